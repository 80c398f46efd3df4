"""The proxies' counters in Redis, as the meter's check sees them: read, never written."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from openclaw_web.integrations import redis
from openclaw_web.metering.sharing import EPOCH_KEY

BASE = "base"  # the highest total of the ledger that any proxy has seen


async def bases(customer_id: UUID, starts: Sequence[datetime]) -> dict[datetime, int]:
    """Return the counters of these periods, as far as Redis has any.

    Read them before the ledger: a counter may lag behind it, and never run ahead.
    """
    found = await redis.hash_fields([EPOCH_KEY], "id")
    epoch = found[0] if found else None
    if epoch is None or not starts:
        return {}
    keys = [key_of(epoch, customer_id, start) for start in starts]
    values = await redis.hash_fields(keys, BASE) or []
    return {
        start: int(value)
        for start, value in zip(starts, values, strict=False)
        if value is not None and value.isdigit()
    }


def key_of(epoch: str, customer_id: UUID, period_start: datetime) -> str:
    """Return the key under which the proxies share a period (`sharing.py`)."""
    return f"meter:{epoch}:{customer_id.hex}:{period_start.timestamp():.6f}"
