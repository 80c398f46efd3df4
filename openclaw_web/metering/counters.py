"""The proxies' counters in Redis, as the meter's check sees them: read, never written."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from openclaw_web.integrations import redis
from openclaw_web.metering.sharing import EPOCH_KEY

KEYS_AT_ONCE = 1_000
BASE = "base"  # the highest total of the ledger that any proxy has seen

Period = tuple[UUID, datetime]  # whose, and when it began


async def bases(customer_id: UUID, starts: Sequence[datetime]) -> dict[datetime, int]:
    """Return the counters of these periods, as far as Redis has any.

    Read them before the ledger: a counter may lag behind it, and never run ahead.
    """
    found = await any_customers_bases([(customer_id, start) for start in starts])
    return {start: base for (_, start), base in found.items()}


async def any_customers_bases(periods: Sequence[Period]) -> Mapping[Period, int]:
    """Return the counters of many customers' periods, as far as Redis has any."""
    found = await redis.hash_fields([EPOCH_KEY], "id")
    epoch = found[0] if found else None
    bases: dict[Period, int] = {}
    for start in range(0, len(periods) if epoch else 0, KEYS_AT_ONCE):
        some = periods[start : start + KEYS_AT_ONCE]
        values = await redis.hash_fields([key_of(str(epoch), *one) for one in some], BASE)
        if values is None:
            break
        bases |= {
            one: int(value)
            for one, value in zip(some, values, strict=True)
            if value is not None and value.isdigit()
        }
    return bases


def key_of(epoch: str, customer_id: UUID, period_start: datetime) -> str:
    """Return the key under which the proxies share a period (`sharing.py`)."""
    return f"meter:{epoch}:{customer_id.hex}:{period_start.timestamp():.6f}"
