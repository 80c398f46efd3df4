"""What providers tell us, kept under their own event ids: however many, in one statement."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.core.clock import business_now
from openclaw_web.core.database import after_commit
from openclaw_web.integrations import redis

BELL = "webhooks"

_KEEP = sa.text("""
INSERT INTO webhook_events
    (id, provider, event_id, event_type, payload, object_id, livemode, api_version, created_at,
     run_after)
SELECT gen_random_uuid(), e.provider, e.event_id, e.event_type, e.payload, e.object_id,
       e.livemode, e.api_version, :now, clock_timestamp()
FROM json_to_recordset(CAST(:batch AS json)) AS e(
    provider text, event_id text, event_type text, payload jsonb, object_id text,
    livemode boolean, api_version text)
ON CONFLICT (event_id) DO NOTHING
RETURNING event_id
""")

_FINISH = sa.text("""
UPDATE webhook_events SET processed = true, processed_at = :now, outcome = 'applied',
    error_message = NULL, lease_owner = NULL, lease_until = NULL
WHERE event_id = ANY(:ids) AND NOT processed
""")


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """One event. Whoever received it has taken out of `payload` what says something of people."""

    provider: str
    event_id: str
    event_type: str
    payload: dict[str, Any]
    object_id: str | None = None
    livemode: bool | None = None
    api_version: str | None = None


async def keep(session: AsyncSession, events: Sequence[Received]) -> set[str]:
    """Store events, and return the ids of those that we did not have yet.

    Raises:
        sqlalchemy.exc.DBAPIError: the database does not answer, or refuses one of them.
    """
    values = {"batch": msgspec.json.encode(events).decode(), "now": await business_now(session)}
    connection = await session.connection()
    new = {row.event_id for row in await connection.execute(_KEEP, values)}
    if new:
        after_commit(session, partial(redis.ring, BELL, next(iter(new))))
    return new


async def finish_applied(session: AsyncSession, event_ids: Sequence[str]) -> None:
    """Say that these events were applied; they are never looked at again."""
    values = {"ids": list(event_ids), "now": await business_now(session)}
    await (await session.connection()).execute(_FINISH, values)
