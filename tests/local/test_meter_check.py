"""The meter's check from a shell: it tells, it repairs when asked, and it can fail."""

from dataclasses import replace

import pytest
import sqlalchemy as sa
from redis import Redis

from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.models import Customer
from openclaw_web.core.database import close_database, open_database, session_scope
from openclaw_web.core.errors import NotFoundError
from openclaw_web.core.settings import settings
from openclaw_web.integrations.redis import close_redis, open_redis
from openclaw_web.local import meter_check
from openclaw_web.metering import sabotage
from openclaw_web.metering.invariants import Invariant
from openclaw_web.metering.models import UsageEvent, UsageMonthly
from tests.factories import make_period, make_subscription


@pytest.fixture
def chosen(database, valkey_server, tmp_path):
    with Redis.from_url(valkey_server.url) as valkey:
        valkey.flushall()
    return replace(settings(), database_url=database, redis_url=valkey_server.url, home=tmp_path)


async def left_in(table):
    async with session_scope() as session:
        return await session.scalar(sa.select(sa.func.count()).select_from(table))


async def test_every_sabotage_is_noticed_and_leaves_nothing_behind(chosen):
    for name in sabotage.NAMES:
        verdict = await meter_check.check_sabotaged(chosen, name)
        assert sabotage.NOTICED_BY[name] in {one.invariant for one in verdict.findings}, name
        assert verdict.as_dict()["verdict"] == "red"
    assert set(sabotage.NOTICED_BY.values()) == set(Invariant)
    open_database(chosen.database_url)
    for table in (Customer, UsageEvent, UsageMonthly):
        assert await left_in(table) == 0
    client = open_redis(chosen.redis_url)
    assert await client.keys("meter*") == []
    await close_redis()


async def test_an_unknown_sabotage_is_refused(chosen):
    with pytest.raises(NotFoundError, match="ledger-event-deleted"):
        await meter_check.check_sabotaged(chosen, "coffee")


async def test_a_difference_is_told_and_mended_when_asked(chosen, session):
    customer = await accounts.ensure_customer(session, "ada@example.com")
    subscription = await make_subscription(session, customer=customer)
    await make_period(session, subscription=subscription, tokens_used=5)
    await session.commit()
    await close_database()  # a shell has its own
    for repair, findings, repairs in ((False, 1, 0), (True, 0, 1), (False, 0, 0)):
        verdict = await meter_check.check(chosen, repair=repair)
        assert (verdict.customers, len(verdict.findings)) == (1, findings)
        assert (verdict.is_green, len(verdict.repairs)) == (not findings, repairs)
    assert (await meter_check.check(chosen, email="ADA@example.com")).is_green
    with pytest.raises(NotFoundError):
        await meter_check.check(chosen, email="nobody@example.com")
