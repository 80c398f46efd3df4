"""A process may die between any two steps: nobody pays twice, and whoever paid gets what was sold.

Each step of a purchase is listed, and what really ran is compared with the list. The fast suite
kills at a few of them, `make test-all` at every one.
"""

import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlmodel import col

from openclaw_web import worker as operator
from openclaw_web.accounts.models import OutboxMail
from openclaw_web.billing import redaction
from openclaw_web.billing.models import (
    BillingSync,
    Checkout,
    Hold,
    Reversal,
    Subscription,
    SubscriptionStatus,
)
from openclaw_web.boxes import failures
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.core.database import session_scope
from openclaw_web.integrations import payments
from openclaw_web.jobs import inbox, leases
from openclaw_web.jobs.inbox import Received
from openclaw_web.jobs.models import OperatorJob, WebhookEvent
from openclaw_web.workflows import delivery, provisioning, stripe_events
from openclaw_web.workflows import subscription as workflow
from tests.billing.buying import finish_the_chat, only, rows, start_checkout
from tests.billing.stripe_world import stripe_world
from tests.flows.box_world import box_world, cluster_process
from tests.flows.killing import Deathbed, watch_steps
from tests.workflows.money_world import PRICE_CENTS, adapter_of, later

# Every step from the click to the answer: a transaction that wrote, or a change at a vendor.
PURCHASE = (
    "stripe POST customers",
    "stripe POST checkout/sessions",
    "checkouts._open_page",
    "test_killed_anywhere.store_event",
    "stripe_events.apply_webhook_events",
    "stripe_events._apply_plain_ones",
    "subscription._take",
    "subscription._turn",
    "box_world.work",
    "restoring.make_ready",
    "goals.decide",
    "leases.check_and_tell",
    "cluster new Namespace",
    "cluster ServiceAccount",
    "cluster LimitRange",
    "cluster ResourceQuota",
    "cluster NetworkPolicy",
    "cluster PersistentVolumeClaim",
    "writing.write_secret",
    "cluster new Secret",
    "cluster Secret",
    "cluster new Deployment",
    "cluster Deployment",
    "activating._arrive",
    "worker._attempt",
)
# Every step from the day's end to the money's return, for a box that could not be set up.
REFUND = (
    "delivery.watch_promises",
    "refunding.carry_out_due",
    "stripe DELETE subscriptions",
    "refunding._end",
    "stripe POST refunds",
    "refunding._carry_out",
    "subscription._take",
    "subscription._turn",
    "box_world.work",
    "leases.check_and_tell",
    "ending.destroy",
    "worker._attempt",
)
FAST = frozenset({"cluster Secret", "stripe POST refunds"})
A_DAY = timedelta(hours=24, minutes=1)
ROUNDS = 8


@pytest.fixture(scope="module")
def stripe_process(tmp_path_factory):
    with stripe_world(tmp_path_factory.mktemp("stripe")) as world:
        yield world


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory):
    with cluster_process(tmp_path_factory.mktemp("cluster")) as path:
        yield path


@pytest.fixture
async def stripe(stripe_process, database, redis):
    assert database
    assert redis
    async with adapter_of(stripe_process) as world:
        yield world


@pytest.fixture
async def world(kubeconfig, tmp_path, monkeypatch, stripe):
    assert stripe
    async with box_world(kubeconfig, tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
async def bed(database, purchase, monkeypatch):
    assert purchase
    made = Deathbed(database)
    watch_steps(monkeypatch, made)
    yield made
    await made.bury()


class Purchase:
    """One customer who wants an assistant, and clicks again when a page breaks."""

    def __init__(self, stripe, world, customer, chat) -> None:
        self.stripe, self.world = stripe, world
        self.customer, self.chat = customer, chat

    async def click_and_pay(self) -> None:
        checkout = await start_checkout(self.customer, self.chat)
        page = checkout.stripe_session_id or ""
        if checkout.status == "open":
            answer = await asyncio.to_thread(self.stripe.pay, page)
            assert answer.is_redirect

    async def events(self) -> list[dict]:
        listed = self.stripe.api("GET", "/events", params={"limit": 100})["data"]
        kinds = {"checkout.session.completed"}
        return [
            one
            for one in listed
            if one["type"] in kinds
            and one["data"]["object"]["metadata"]["customer_id"] == str(self.customer.id)
        ]

    async def story(self) -> None:
        await self.click_and_pay()
        await self.operate()

    async def operate(self) -> None:
        """Do what Stripe's delivery, the syncs and the operator do, once each."""
        await self.hear()
        while await self.world.work():
            continue

    async def hear(self) -> None:
        for event in await self.events():
            await store_event(event)
        while await stripe_events.apply_webhook_events():
            continue
        for customer_id in await workflow.due_syncs():
            await workflow.sync(customer_id)

    async def give_back(self) -> None:
        await delivery.turn_timers()
        await self.operate()

    async def recover(self) -> None:
        """Let time pass for a new process: leases run out, and everything turns again."""
        if not await self.events():
            await self.click_and_pay()
        for _ in range(ROUNDS):
            await let_leases_run_out()
            await operator.reap()
            await delivery.turn_timers()
            await self.operate()
            if await self.is_settled():
                return

    async def is_settled(self) -> bool:
        boxes, busy = await rows(Box), await rows(OperatorJob)
        is_running = [box.status for box in boxes] == [BoxStatus.ACTIVE]
        return is_running and all(job.completed_at for job in busy)

    async def stripe_id(self) -> str:
        async with session_scope() as session:
            found = await session.get_one(type(self.customer), self.customer.id)
        return found.stripe_customer_id or ""

    async def charges(self) -> list[dict]:
        fields = {"customer": await self.stripe_id()}
        return self.stripe.api("GET", "/charges", params=fields)["data"]


async def store_event(event: dict) -> None:
    async with session_scope() as session:
        await inbox.keep(
            session,
            [
                Received(
                    provider="stripe",
                    event_id=event["id"],
                    event_type=event["type"],
                    payload=redaction.without_people(event),
                    object_id=event["data"]["object"]["id"],
                )
            ],
        )


async def let_leases_run_out() -> None:
    past = sa.func.now() - timedelta(minutes=5)
    async with session_scope() as session:
        for table in (WebhookEvent, BillingSync, OperatorJob):
            await session.exec(
                sa.update(table).where(col(table.lease_until).is_not(None)).values(lease_until=past)
            )
        for table in (WebhookEvent, OperatorJob, Reversal):
            await session.exec(sa.update(table).values(run_after=past))


@pytest.fixture
async def purchase(stripe, world) -> Purchase:
    return Purchase(stripe, world, *await finish_the_chat())


async def check_one_of_everything(purchase: Purchase) -> None:
    (charge,) = await purchase.charges()
    assert (charge["paid"], charge["amount_refunded"]) == (True, 0)
    (at_stripe,) = await payments.subscriptions_of(await purchase.stripe_id())
    assert at_stripe.status == "active"
    assert (await only(Subscription)).stripe_subscription_id == at_stripe.id
    assert (await only(Box)).status is BoxStatus.ACTIVE
    assert [one.delivered_at is not None for one in await rows(Checkout)] == [True]
    kinds = sorted(mail.kind for mail in await rows(OutboxMail))
    assert kinds == ["live", "welcome"]


def each(steps: tuple[str, ...]) -> list:
    marks = {True: (), False: pytest.mark.slow}
    return [pytest.param(step, marks=marks[step in FAST]) for step in steps]


async def test_the_list_of_steps_is_what_really_happens(bed, purchase):
    await bed.run(purchase.story)
    await check_one_of_everything(purchase)
    assert tuple(bed.seen) == PURCHASE


@pytest.mark.parametrize("step", each(PURCHASE))
async def test_a_purchase_survives_a_death_after(step, bed, purchase):
    await bed.kill(purchase.story, after=step)
    await purchase.recover()
    await check_one_of_everything(purchase)


@pytest.fixture
async def unlucky(bed, purchase) -> Purchase:
    """Return somebody who paid a day ago for a box that could not be set up."""
    await purchase.click_and_pay()
    await purchase.hear()
    async with session_scope() as session:
        await session.exec(sa.update(OperatorJob).values(max_attempts=1))
        claimed = await leases.claim_job(session, owner="test")
    assert claimed is not None
    async with session_scope() as session:
        for change in await failures.attempt_failed(
            session, claimed, code="not_ready", detail="A test.", can_retry=True
        ):
            await provisioning.box_changed(session, change)
    await later(A_DAY)
    bed.seen.clear()
    return purchase


async def check_all_given_back(purchase: Purchase) -> None:
    (charge,) = await purchase.charges()
    assert charge["amount_refunded"] == PRICE_CENTS
    (at_stripe,) = await payments.subscriptions_of(await purchase.stripe_id())
    assert at_stripe.status == "canceled"
    assert (await only(Subscription)).status is SubscriptionStatus.CANCELLED
    assert (await only(Checkout)).refund_id
    assert (await only(Reversal)).finished_at is not None
    assert (await only(Hold)).released_at is not None
    assert (await only(Box)).status is BoxStatus.DESTROYED
    kinds = [mail.kind for mail in await rows(OutboxMail)]
    assert (kinds.count("refunded"), kinds.count("live")) == (1, 0)


async def test_the_list_of_a_refunds_steps_is_what_really_happens(bed, unlucky):
    await bed.run(unlucky.give_back)
    await check_all_given_back(unlucky)
    assert tuple(bed.seen) == REFUND


@pytest.mark.parametrize("step", each(REFUND))
async def test_a_refund_survives_a_death_after(step, bed, unlucky):
    await bed.kill(unlucky.give_back, after=step)
    for _ in range(2):
        await let_leases_run_out()
        await operator.reap()
        await unlucky.give_back()
    await check_all_given_back(unlucky)


async def test_a_box_that_is_ready_a_moment_too_late_does_not_outrun_its_refund(bed, purchase):
    bed.last_step = "cluster Deployment"
    working = await bed.run(purchase.story)
    await later(A_DAY)
    await delivery.watch_promises()
    assert (await only(Hold)).kind == "refunding"
    bed.resume.set()
    await working
    assert (await only(Box)).activated_at is None
    await purchase.give_back()
    await check_all_given_back(purchase)
