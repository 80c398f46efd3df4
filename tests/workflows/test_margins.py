"""A customer who costs more than the price bears is told to an admin: once a period."""

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from openclaw_web import worker as operator
from openclaw_web.billing.models import Subscription
from openclaw_web.core.database import session_scope
from openclaw_web.core.leadership import NotLeaderError, only_one
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.models import Alert
from openclaw_web.metering.models import UsageDaily, UsageEvent, UsageEventMeta
from openclaw_web.workflows import margins
from tests.billing.buying import only, rows
from tests.factories import make_box, make_subscription, now

pytestmark = pytest.mark.usefixtures("database")


async def uses(millions: int, *, in_period: bool = True) -> Subscription:
    """Return a Starter customer who read so many tokens afresh; a million costs 95 cents."""
    async with session_scope() as session:
        subscription = await make_subscription(session)
        box = await make_box(session, subscription=subscription)
        start = subscription.current_period_start
        counted = start if in_period else start - timedelta(days=30)
        used = {"box_id": box.id, "model": "k2p5", "prompt_tokens": millions * 1_000_000}
        common: dict[str, Any] = {**used, "customer_id": box.customer_id, "completion_tokens": 0}
        event = UsageEvent(**common, timestamp=start + timedelta(minutes=1))
        session.add(event)
        await session.flush()
        session.add(UsageEventMeta(event_id=event.id or 0, period_start=counted))
        session.add(UsageDaily(**common, day=now().date(), requests=1))
    return subscription


async def test_above_sixty_percent_an_admin_hears_of_it_once_a_period():
    dear = await uses(13)
    await uses(11)
    assert await margins.watch() == 1
    alert = await only(Alert)
    assert alert.detail["customer_id"] == str(dear.customer_id)
    assert (alert.detail["cost_cents"], alert.detail["percent_of_price"]) == (1235, 65)
    async with session_scope() as session:
        await jobs.resolve_alert(session, code=margins.ALERT, subject=alert.subject)
    assert await margins.watch() == 0
    assert len(await rows(Alert)) == 1


async def test_the_next_period_is_told_again():
    subscription = await uses(13)
    assert await margins.watch() == 1
    async with session_scope() as session:
        start = subscription.current_period_start - timedelta(days=2)
        await session.exec(sa.update(Subscription).values(current_period_start=start))
        await session.exec(sa.update(UsageEventMeta).values(period_start=start))
    assert await margins.watch() == 1


async def test_what_the_period_before_used_on_its_last_day_does_not_count():
    await uses(13, in_period=False)
    assert await margins.watch() == 0


async def test_one_worker_watches_the_margins():
    await uses(13)
    async with only_one(operator.MARGIN_LOCK):
        with pytest.raises(NotLeaderError):
            await operator.watch_margins()
    await operator.watch_margins()
    assert (await only(Alert)).code == margins.ALERT
