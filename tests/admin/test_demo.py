"""Made-up customers: believable, to the token, and of no interest to any worker."""

import time
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from openclaw_web.accounts.models import Customer, OutboxMail
from openclaw_web.admin import demo, demo_rows
from openclaw_web.admin.demo import DemoError
from openclaw_web.billing import queries as billing
from openclaw_web.billing.models import Subscription, SubscriptionStatus, Tier
from openclaw_web.boxes import queries as boxes
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.settings import settings
from openclaw_web.jobs import leases
from openclaw_web.jobs.models import OperatorJob
from openclaw_web.metering import queries as metering
from openclaw_web.metering.models import (
    UsageDaily,
    UsageEvent,
    UsageEventMeta,
    UsageMonthly,
    UsageReject,
)
from openclaw_web.onboarding import tasks
from openclaw_web.onboarding.models import OnboardingSession


async def fill(customers, days):
    async with session_scope() as session:
        return await demo.fill(session, customers=customers, days=days)


async def rows(session, table):
    return list((await session.exec(select(table))).all())


async def count(session, table):
    return (await session.exec(select(sa.func.count()).select_from(table))).one()


@pytest.fixture
async def filled(database, redis):
    assert database
    assert redis is not None
    return await fill(20, 14)


async def test_what_was_added_is_what_was_reported(filled, session):
    assert filled.customers == await count(session, Customer) == 20
    assert filled.boxes == await count(session, Box) == 20
    assert filled.jobs == await count(session, OperatorJob)
    assert filled.chats == await count(session, OnboardingSession) == 24
    assert filled.events == await count(session, UsageEvent) == await count(session, UsageEventMeta)
    total = sa.select(sa.func.sum(UsageEvent.total_tokens))
    assert filled.tokens == await session.scalar(total)
    assert await count(session, UsageReject) == 0


async def test_events_months_and_days_agree_to_the_token(filled, session):
    assert filled.events > 500
    for period in await rows(session, UsageMonthly):
        ledger, monthly, daily = await metering.usage_sums(session, period.customer_id, period)
        assert ledger == monthly == daily == period.tokens_used
        assert period.tokens_used <= period.tokens_limit
    cached = (
        sa.select(sa.func.sum(UsageEventMeta.cached_tokens)),
        sa.select(sa.func.sum(UsageDaily.cached_tokens)),
    )
    by_event, by_day = [await session.scalar(one) for one in cached]
    assert by_event == by_day > 0


async def test_every_event_lies_in_its_period_and_in_the_past(filled, session):
    assert filled
    now = await business_now(session)
    periods = {
        (one.customer_id, one.period_start): one for one in await rows(session, UsageMonthly)
    }
    joined = select(UsageEvent, UsageEventMeta).join(
        UsageEventMeta, col(UsageEventMeta.event_id) == col(UsageEvent.id)
    )
    for event, meta in await session.exec(joined):
        period = periods[event.customer_id, meta.period_start]
        assert period.period_start <= event.timestamp < period.period_end
        assert now - timedelta(days=15) < event.timestamp <= now
        assert meta.cached_tokens <= event.prompt_tokens
        assert meta.reasoning_tokens <= event.completion_tokens


async def test_periods_of_a_customer_follow_each_other(filled, session):
    assert filled
    by_customer = {}
    for period in await rows(session, UsageMonthly):
        by_customer.setdefault(period.customer_id, []).append(period)
    for found in by_customer.values():
        found.sort(key=lambda one: one.period_start)
        for before, after in pairwise(found):
            assert before.period_end == after.period_start


async def test_there_is_something_of_everything(filled, session):
    assert filled
    subscriptions = await rows(session, Subscription)
    assert {one.tier for one in subscriptions} == set(Tier)
    assert {one.status for one in subscriptions} == set(SubscriptionStatus) - {
        SubscriptionStatus.TRIALING
    }
    assert Counter(one.status for one in subscriptions)[SubscriptionStatus.ACTIVE] > 10
    statuses = {one.status for one in await rows(session, Box)}
    assert statuses == {
        BoxStatus.ACTIVE,
        BoxStatus.SUSPENDED,
        BoxStatus.UNHEALTHY,
        BoxStatus.DESTROYED,
    }
    models = (await session.exec(select(UsageEvent.model).distinct())).all()
    assert len(models) > 2


async def test_a_statement_of_ours_about_a_box_fits_its_subscription(filled, session):
    assert filled
    for box in await rows(session, Box):
        desired, why = await boxes.desired_of(session, box)
        if box.status is BoxStatus.SUSPENDED:
            assert (desired.value, why.value) == ("suspended", box.status_reason)
        if box.status in {BoxStatus.ACTIVE, BoxStatus.UNHEALTHY}:
            assert desired.value == "active"


async def test_no_worker_has_anything_to_do(filled, session):
    assert filled
    clusters = {one.cluster for one in await rows(session, Box)}
    assert clusters == {demo_rows.CLUSTER} != {settings().cluster_name}
    assert await leases.claim_job(session, owner="a test") is None
    assert list(await leases.any_customers_expired_jobs(session)) == []
    assert await count(session, OutboxMail) == 0
    assert await tasks.abandon_expired_chats() == 0


@pytest.mark.parametrize("later", [timedelta(0), timedelta(days=400)])
async def test_stripe_is_never_asked_about_them(filled, session, later):
    assert filled
    now = await business_now(session) + later
    assert await billing.any_customers_to_sync(session, now) == []
    assert await billing.any_customers_due_for_sync(session, limit=50) == []
    assert {one.stripe_subscription_id for one in await rows(session, Subscription)} == {None}


async def test_the_second_time_others_come(filled, session):
    assert filled
    await fill(6, 3)
    customers = await rows(session, Customer)
    numbers = sorted(int(one.email.partition("@")[0].rsplit(".", 1)[1]) for one in customers)
    assert numbers == list(range(1, 27))


async def test_the_same_number_is_the_same_person(database):
    assert database
    async with session_scope() as session:
        now = await business_now(session)
    first, second = (demo.tell(7, now=now, days=days) for days in (5, 50))
    assert (first.email, first.tier, first.box_id) == (second.email, second.tier, second.box_id)
    assert first.email.endswith(("@example.com", "@example.org"))


@pytest.mark.parametrize(("customers", "days"), [(0, 5), (5, 0), (-1, 5), (10_001, 5), (5, 1_000)])
async def test_numbers_that_make_no_sense_are_refused(database, session, customers, days):
    assert database
    with pytest.raises(DemoError):
        await demo.fill(session, customers=customers, days=days)


@pytest.mark.parametrize("fields", [{"environment": "production"}, {"cluster_name": "demo"}])
async def test_it_is_refused_where_it_could_do_harm(database, session, monkeypatch, fields):
    assert database
    chosen = replace(settings(), **fields)
    monkeypatch.setattr(demo, "settings", lambda: chosen)
    with pytest.raises(DemoError):
        await demo.fill(session, customers=1, days=1)
    assert await count(session, Customer) == 0


async def test_a_single_customer_with_a_single_day_is_fine(database, redis):
    assert database
    assert redis is not None
    report = await fill(1, 1)
    assert report.customers == 1


@pytest.mark.slow
async def test_two_months_of_forty_customers_take_less_than_twenty_seconds(database, redis):
    assert database
    assert redis is not None
    began = time.monotonic()
    report = await fill(40, 60)
    assert report.events > 20_000
    assert time.monotonic() - began < 20
