"""What a sync does when Stripe, or an admin, does something unusual."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlmodel import col, select

from openclaw_web.accounts.models import AuditLog, Customer, OutboxMail
from openclaw_web.billing import holds, leases, queries
from openclaw_web.billing import service as billing
from openclaw_web.billing.models import (
    Adjustment,
    BillingSync,
    Hold,
    HoldKind,
    Subscription,
    SubscriptionStatus,
    Tier,
)
from openclaw_web.boxes.models import Box
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import VendorError
from openclaw_web.core.switches import advance_clock
from openclaw_web.integrations import payment_client, payment_reversals, payments
from openclaw_web.jobs.models import Alert, OperatorJob
from openclaw_web.metering.models import UsageMonthly
from openclaw_web.workflows import disputes, looking, subscription_mails
from openclaw_web.workflows import subscription as workflow
from openclaw_web.workflows.subscription_effects import moves_deletion
from tests.billing.buying import come_to_pay, only, rows, start_checkout, sync
from tests.billing.interleaving import Stage
from tests.billing.stripe_facts import DAY, KNOWN, NOW, SUB, decided, facts
from tests.billing.stripe_model import MONTH
from tests.billing.stripe_world import KEY, stripe_world
from tests.factories import make_box, make_subscription

pytestmark = pytest.mark.usefixtures("database", "redis")


@pytest.fixture
async def world(monkeypatch):
    """Somebody who bought the Pro plan."""
    made = await Stage(monkeypatch).enter(sync=workflow.sync)
    await happen(made, "buy")
    return made


async def happen(world, *happenings: str) -> None:
    for happening in happenings:
        await world.do(happening)
    await world.settle()


async def periods() -> list[tuple[int, bool]]:
    found = sorted(await rows(UsageMonthly), key=lambda one: one.period_start)
    return [(one.tokens_limit, one.is_provisional) for one in found]


async def mails() -> list[str]:
    return sorted(mail.kind for mail in await rows(OutboxMail))


async def test_a_customer_deleted_at_stripe_is_ended_and_can_come_back(tmp_path):
    with stripe_world(tmp_path) as stripe:
        payment_client.open_payments(KEY, stripe.url)
        await billing.publish_catalogue()
        visitor = await come_to_pay()
        stripe.pay(visitor.page)
        await sync(visitor.id)
        old = (await only(Customer)).stripe_customer_id
        stripe.api("DELETE", f"/customers/{old}")
        await sync(visitor.id)
        ended, box = await only(Subscription), await only(Box)
        assert ended.status is SubscriptionStatus.CANCELLED
        assert box.delete_after is not None
        assert [one.code for one in await rows(Alert)] == ["stripe_customer_deleted"]
        assert (await only(Customer)).stripe_customer_id == old
        again = await start_checkout(visitor.customer, None)
        stripe.pay(again.stripe_session_id or "")
        await sync(visitor.id)
        await payment_client.close_payments()
    async with session_scope() as session:
        live = await queries.find_live_subscription(session, visitor.id)
        found = await session.exec(
            select(AuditLog).where(col(AuditLog.action) == "customer.stripe_replaced")
        )
        replaced = found.one()
    assert live is not None
    assert live.status is SubscriptionStatus.ACTIVE
    assert (await only(Box)).subscription_id == live.id
    assert replaced.diff == {"stripe_customer_id": [old, (await only(Customer)).stripe_customer_id]}


@pytest.mark.parametrize("name", ["invoices_of", "subscriptions_of"])
async def test_what_stripe_forgot_of_a_deleted_customer_is_nothing(world, monkeypatch, name):
    async def forget(_stripe_customer_id):
        raise VendorError("No such customer.", can_retry=False, code="resource_missing")

    async def is_deleted(_stripe_customer_id):
        return True

    monkeypatch.setattr(payments, name, forget)
    monkeypatch.setattr(payments, "is_customer_deleted", is_deleted)
    found = await looking.look("cus_1", None)
    assert world
    assert found.invoices == () or name != "invoices_of"


async def test_a_hold_stays_where_stripe_says_nothing_of_the_payments_any_more(world):
    buyer = (await only(Subscription)).customer_id
    async with session_scope() as session:
        await holds.place(session, customer_id=buyer, kind=HoldKind.DISPUTE, reason="A.", by="a")
        for is_known in (False, True):
            found = looking.Found(are_charges_known=is_known)
            changed = await disputes.settle_holds(session, buyer, found, ["dispute"])
            assert changed is is_known
    assert world


async def test_charges_of_a_deleted_customer_that_stripe_does_not_list_are_unknown(monkeypatch):
    async def nothing(_stripe_customer_id):
        return ()

    async def forget(_stripe_customer_id):
        raise VendorError("No such customer.", can_retry=False, code="resource_missing")

    async def is_deleted(_stripe_customer_id):
        return True

    for name in ("invoices_of", "subscriptions_of"):
        monkeypatch.setattr(payments, name, nothing)
    monkeypatch.setattr(payments, "is_customer_deleted", is_deleted)
    monkeypatch.setattr(payment_reversals, "charges_of", forget)
    assert not (await looking.look("cus_1", None)).are_charges_known


async def test_a_sync_that_breaks_reaches_an_admin_and_rests(world, monkeypatch):
    async def break_down(*_, **__):
        raise KeyError("price of a@example.com")

    with monkeypatch.context() as patched:
        patched.setattr(workflow, "_write_subscription", break_down)
        await world.ask()
        await workflow.sync((await only(Subscription)).customer_id)
    (alert,) = await rows(Alert)
    assert alert.code == "billing_sync_failed"
    assert alert.detail["error"].startswith("KeyError:")
    assert "example.com" not in str(alert.detail)
    assert await workflow.due_syncs() == []  # it rests, and nobody is kept busy by it
    async with session_scope() as session:
        await leases.end_rest(session, (await only(Subscription)).customer_id)
    await world.serve()
    assert (await only(Alert)).resolved_at is not None


async def test_tokens_given_by_an_admin_reach_the_open_period_and_leave_it(world):
    assert await periods() == [(40_000_000, False)]
    await happen(world, "give_tokens")
    assert await periods() == [(41_000_000, False)]
    async with session_scope() as session:
        given = (await session.exec(select(Adjustment))).one()
        given.until = world.stripe.now
    await world.ask()
    await world.serve()
    assert await periods() == [(40_000_000, False)]


async def test_a_smaller_plan_resizes_the_box_at_the_turn_and_not_before(world):
    await happen(world, "downgrade")
    row = await only(Subscription)
    assert (row.tier, row.pending_tier) == (Tier.PRO, Tier.STARTER)
    assert (await only(OperatorJob)).payload["actions"] == ["provision"]
    await happen(world, "pass_a_month")
    row = await only(Subscription)
    assert (row.tier, row.pending_tier) == (Tier.STARTER, None)
    assert "resize" in (await only(OperatorJob)).payload["actions"]
    assert await periods() == [(40_000_000, False), (10_000_000, False)]
    assert "plan_changed" in await mails()


async def test_a_period_whose_end_stripe_moves_follows_it(world):
    live = world.stripe.live
    world.stripe.subscriptions = [replace(live, period_end=live.period_end + 5 * DAY)]
    world.undelivered.append("customer.subscription.updated")
    await world.settle()
    assert (await only(UsageMonthly)).period_end == live.period_end + 5 * DAY


async def test_a_period_that_is_lengthened_stops_at_the_next_one(world):
    live = world.stripe.live
    async with session_scope() as session:
        session.add(
            UsageMonthly(
                customer_id=world.customer_id,
                period_start=live.period_end,
                period_end=live.period_end + MONTH,
                tokens_limit=1,
            )
        )
    world.stripe.subscriptions = [replace(live, period_end=live.period_end + 5 * DAY)]
    await world.ask()
    await world.serve()
    first, second = sorted(await rows(UsageMonthly), key=lambda one: one.period_start)
    assert first.period_end == second.period_start


async def test_a_subscription_that_comes_back_has_its_row_of_before(world):
    first = world.stripe.live
    world.stripe.subscriptions[0] = replace(first, status="past_due")
    second = replace(first, id=f"{first.id}_again", created=first.created + DAY)
    world.stripe.subscriptions.append(second)
    await world.ask()
    await world.serve()
    assert len(await rows(Subscription)) == 2
    world.stripe.subscriptions = [first, replace(second, status="canceled")]
    await world.ask()
    await world.serve()
    both = {one.stripe_subscription_id: one.status for one in await rows(Subscription)}
    assert both == {first.id: "active", second.id: "cancelled"}
    async with session_scope() as session:
        live = await queries.find_live_subscription(session, world.customer_id)
    assert live is not None
    assert (await only(Box)).subscription_id == live.id


async def test_a_renewal_has_a_receipt_and_a_lapse_that_is_paid_has_thanks(world):
    await happen(world, "pass_a_month")
    assert await mails() == ["renewal_receipt", "welcome"]
    await happen(world, "break_card", "pass_a_month")
    assert await mails() == ["payment_failed", "renewal_receipt", "welcome"]
    await happen(world, "replace_card")
    assert await mails() == ["payment_failed", "payment_thanks", "renewal_receipt", "welcome"]


@pytest.mark.parametrize(
    ("left", "expected"),
    [(4 * DAY, []), (DAY * 2.5, ["destroy_soon"]), (DAY * 0.5, ["destroy_soon"])],
)
async def test_a_box_that_is_deleted_soon_is_told_once_for_each_day(left, expected):
    async with session_scope() as session:
        await make_box(session, delete_after=await business_now(session) + left)
    for _ in range(2):
        await subscription_mails.send_reminders()
    assert await mails() == expected


async def test_a_box_is_told_three_days_before_and_one_day_before():
    async with session_scope() as session:
        now = await business_now(session)
        box = await make_box(session, delete_after=now + DAY * 2.5)
    await subscription_mails.send_reminders()
    async with session_scope() as session:
        await advance_clock(session, timedelta(days=2).total_seconds(), by="test")
    await subscription_mails.send_reminders()
    assert await mails() == ["destroy_soon", "destroy_soon"]
    async with session_scope() as session:
        held = Hold(customer_id=box.customer_id, kind="dispute", reason="A test.")
        session.add(held)
        box.delete_after = now + DAY * 2.2
        session.add(box)
    assert await subscription_mails.send_reminders() == 0


async def test_a_grace_that_ends_in_two_days_is_told_once():
    async with session_scope() as session:
        until = await business_now(session) + DAY * 1.5
        await make_subscription(
            session,
            status=SubscriptionStatus.PAST_DUE,
            past_due_since=until - 7 * DAY,
            grace_until=until,
        )
        await make_subscription(
            session,
            status=SubscriptionStatus.PAST_DUE,
            past_due_since=until,
            grace_until=until + 7 * DAY,
        )
    assert await subscription_mails.send_reminders() == 1
    assert await subscription_mails.send_reminders() == 0
    assert await mails() == ["grace_ending"]


async def test_who_pays_is_compared_with_stripe_once_a_day():
    async with session_scope() as session:
        now = await business_now(session)
        old = await make_subscription(session, synced_at=now - 1.1 * DAY)
        await make_subscription(session, synced_at=now - 0.9 * DAY)
        assert list(await queries.any_customers_to_sync(session, now)) == [old.customer_id]


async def test_who_left_lately_is_compared_with_stripe_once_a_day_while_the_box_is_kept():
    async with session_scope() as session:
        now = await business_now(session)
        ended = SubscriptionStatus.CANCELLED
        long_ago, lately = [
            await make_subscription(
                session,
                status=ended,
                current_period_start=now - 40 * DAY,
                current_period_end=now - days * DAY,
            )
            for days in (9, 7)
        ]
        for row in (long_ago, lately):
            session.add(BillingSync(customer_id=row.customer_id, synced_at=now - 1.1 * DAY))
        assert list(await queries.any_customers_to_sync(session, now)) == [lately.customer_id]


async def test_those_whose_sync_keeps_failing_starve_nobody():
    async with session_scope() as session:
        now = await business_now(session)
        failing, newer, older = [
            await make_subscription(
                session, current_period_start=now - 30 * DAY, current_period_end=now - DAY
            )
            for _ in range(3)
        ]
        for row, asked, days in ((failing, 1, 9), (newer, 0, 2), (older, 0, 3)):
            session.add(
                BillingSync(
                    customer_id=row.customer_id, requested_seq=asked, synced_at=now - days * DAY
                )
            )
        found = [await queries.any_customers_to_sync(session, now, limit=most) for most in (1, 9)]
    assert found == [[older.customer_id], [older.customer_id, newer.customer_id]]


@pytest.mark.parametrize(
    ("planned", "released_at", "moves"),
    [
        (None, None, True),
        (NOW + DAY, None, True),
        (NOW + 8 * DAY, None, False),
        (NOW, None, False),
        (NOW - DAY, NOW - 2 * DAY, False),
        (NOW - DAY, NOW - timedelta(hours=1), True),
    ],
    ids=["first", "to come", "later", "an admin's, due now", "held before", "held until after it"],
)
def test_a_deletion_that_is_due_is_moved_only_by_a_release(planned, released_at, moves):
    ended = replace(SUB, status="canceled", ended_at=NOW)
    decision = decided(facts(ended, released_at=released_at, known=KNOWN))
    assert moves_deletion(planned, decision, NOW) is moves
