"""Our own dates: at which moments something changes here though nobody does anything."""

from datetime import datetime

import sqlalchemy as sa
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.local.hops import Due

# Each finds the earliest date later than :after. Mails that announce a date are dates as well.
DATES = {
    "a period ends": """
        SELECT min(current_period_end) FROM subscriptions
        WHERE status <> 'cancelled' AND current_period_end > :after""",
    "a trial ends": """
        SELECT min(trial_end) FROM subscriptions
        WHERE status = 'trialing' AND trial_end > :after""",
    "a grace ends": """
        SELECT min(grace_until) FROM subscriptions
        WHERE status = 'past_due' AND grace_until > :after""",
    "a grace ends soon": """
        SELECT min(grace_until - interval '2 days') FROM subscriptions
        WHERE status = 'past_due' AND grace_until - interval '2 days' > :after""",
    "an adjustment ends": "SELECT min(until) FROM adjustments WHERE until > :after",
    "a box is to be deleted": """
        SELECT min(delete_after) FROM boxes
        WHERE destroyed_at IS NULL AND delete_after > :after""",
    "a box is to be deleted soon": """
        SELECT min(moment) FROM boxes, LATERAL (VALUES
            (delete_after - interval '3 days'), (delete_after - interval '1 day')) AS dates(moment)
        WHERE destroyed_at IS NULL AND moment > :after""",
    "a checkout expires": """
        SELECT min(expires_at) FROM checkouts WHERE status = 'open' AND expires_at > :after""",
    "a delivery is late": """
        SELECT min(moment) FROM checkouts, LATERAL (VALUES
            (paid_at + interval '10 minutes'), (deliver_by)) AS dates(moment)
        WHERE paid_at IS NOT NULL AND delivered_at IS NULL AND refunded_at IS NULL
              AND moment > :after""",
    "a chat expires": """
        SELECT min(expires_at) FROM onboarding_sessions
        WHERE state NOT IN ('provisioning', 'complete', 'failed', 'abandoned')
              AND expires_at > :after""",
}
_EARLIEST = sa.text(
    " UNION ALL ".join(
        f"SELECT :name{at} AS what, ({question}) AS moment"
        for at, question in enumerate(DATES.values())
    )
)
_NAMES = {f"name{at}": name for at, name in enumerate(DATES)}


async def next_date(session: AsyncSession, after: datetime) -> Due | None:
    """Return the earliest of our dates later than a moment, and what happens then."""
    connection = await session.connection()
    rows = (await connection.execute(_EARLIEST, {**_NAMES, "after": after})).all()
    known = [(moment, what) for what, moment in rows if moment is not None]
    if not known:
        return None
    earliest = min(moment for moment, _ in known)
    return Due(moment=earliest, what=tuple(what for moment, what in known if moment == earliest))
