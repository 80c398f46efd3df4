"""What a customer changes about their plan, from the click to Stripe and back to our row."""

import asyncio
from datetime import timedelta
from typing import cast

import pytest
from sqlalchemy.pool import QueuePool

from openclaw_web.billing import changes
from openclaw_web.billing import service as billing
from openclaw_web.billing.changes import ChangeRefusedError
from openclaw_web.billing.models import Checkout, Subscription, SubscriptionStatus, Tier
from openclaw_web.boxes.models import Box
from openclaw_web.core import database
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import VendorError
from openclaw_web.integrations import payment_changes, payment_client
from openclaw_web.integrations.payment_changes import ConfirmationNeededError
from openclaw_web.metering.models import UsageMonthly
from openclaw_web.workflows import refunding
from openclaw_web.workflows import subscription as workflow
from tests.billing.buying import only, reach, rows, sync
from tests.billing.changing import (
    CHALLENGED,
    REFUSED_LATER,
    actions,
    at_stripe,
    invoices,
    mail_kinds,
    pass_time,
    subscribe,
    use_card,
)
from tests.billing.stripe_world import KEY, stripe_world
from tests.factories import make_customer

SCHEDULED = "plan_change_scheduled"


@pytest.fixture(scope="module")
def stripe_process(tmp_path_factory):
    with stripe_world(tmp_path_factory.mktemp("stripe")) as world:
        yield world


@pytest.fixture
async def stripe(stripe_process, database, redis):
    assert database
    assert redis
    payment_client.open_payments(KEY, stripe_process.url)
    await billing.publish_catalogue()
    yield stripe_process
    await payment_client.close_payments()


async def preview(customer_id, tier):
    return await changes.preview_change(customer_id, tier)


async def change(customer_id, tier):
    """Change the plan as it was previewed, and let the worker look at Stripe."""
    shown = await preview(customer_id, tier)
    await changes.change_plan(customer_id, tier, proration_date=shown.proration_date)
    await sync(customer_id)
    return shown


async def act(what, customer_id, **named):
    await what(customer_id, **named)
    await sync(customer_id)
    return await only(Subscription)


async def mark(**fields):
    """Write something into the one row, as a sync may have left it."""
    async with session_scope() as session:
        row = await session.get_one(Subscription, (await only(Subscription)).id)
        for name, value in fields.items():
            setattr(row, name, value)


async def test_an_upgrade_begins_a_new_period_for_the_amount_that_was_shown(stripe):
    ada = await subscribe(stripe, Tier.STARTER)
    before = await only(Subscription)
    shown = await change(ada, Tier.PRO)
    row = await only(Subscription)
    assert (row.tier, row.tokens_limit) == (Tier.PRO, 40_000_000)
    assert row.current_period_start > before.current_period_start
    assert row.current_period_end - shown.next_charge_at < timedelta(minutes=5)  # time went on
    newest = (await invoices(stripe))[0]
    assert newest["amount_paid"] == shown.due_now_cents
    assert shown.is_upgrade
    assert shown.next_charge_cents == 4900
    assert await mail_kinds() == ["plan_changed"]
    assert await actions() == ["plan.upgraded"]


async def test_an_upgrade_closes_the_period_of_before(stripe):
    ada = await subscribe(stripe, Tier.STARTER)
    await change(ada, Tier.TEAM)
    row = await only(Subscription)
    periods = sorted(await rows(UsageMonthly), key=lambda one: one.period_start)
    assert [one.tokens_limit for one in periods] == [10_000_000, 150_000_000]
    assert periods[0].period_end == periods[1].period_start == row.current_period_start


async def test_two_clicks_upgrade_once(stripe):
    ada = await subscribe(stripe, Tier.STARTER)
    shown = await preview(ada, Tier.PRO)

    async def click():
        await changes.change_plan(ada, Tier.PRO, proration_date=shown.proration_date)

    outcomes = await asyncio.gather(click(), click(), return_exceptions=True)
    told = [str(one) for one in outcomes if one is not None]
    assert told in [  # by how much the second one was behind
        [],
        ["Your plan is being changed in another tab. Try again in a moment."],
        ["Your plan has just changed. Look at this page again in a moment."],
    ]
    await sync(ada)
    assert [one["amount_paid"] for one in await invoices(stripe)] == [shown.due_now_cents, 1900]
    assert await mail_kinds() == ["plan_changed"]
    assert await actions() == ["plan.upgraded"]


async def test_nothing_is_sold_on_top_of_a_plan_that_is_given_back(stripe):
    ada = await subscribe(stripe, Tier.PRO)
    async with session_scope() as session:
        await refunding.request_refund(session, ada, by="admin:a", reason="They asked.")
    for tier in (Tier.TEAM, Tier.STARTER):
        with pytest.raises(ChangeRefusedError, match="given back"):
            await preview(ada, tier)
        with pytest.raises(ChangeRefusedError, match="given back"):
            await changes.change_plan(ada, tier, proration_date=0)


async def test_a_change_in_another_tab_is_not_waited_for(stripe, monkeypatch):
    ada = await subscribe(stripe, Tier.STARTER)
    ask = payment_changes.terms_of

    async def ask_beside_another_tab(stripe_subscription_id):
        with pytest.raises(ChangeRefusedError, match="another tab"):
            await changes.cancel(ada, reason="unused")
        return await ask(stripe_subscription_id)

    monkeypatch.setattr(payment_changes, "terms_of", ask_beside_another_tab)
    await changes.undo_change(ada)
    monkeypatch.undo()
    await changes.cancel(ada, reason="unused")
    assert await actions() == ["plan.cancelled"]


async def test_what_a_lost_click_did_is_written_by_the_next_one_and_mailed_once(
    stripe, monkeypatch
):
    ada = await subscribe(stripe, Tier.TEAM)
    shown = await preview(ada, Tier.PRO)
    clicks = (
        lambda: changes.change_plan(ada, Tier.PRO, proration_date=shown.proration_date),
        lambda: changes.undo_change(ada),
        lambda: changes.cancel(ada, reason="unused"),
        lambda: changes.undo_cancel(ada),
    )
    for click in clicks:
        with monkeypatch.context() as patched:
            patched.setattr(changes, "_write", None)  # the process ends before it could write
            with pytest.raises(TypeError):
                await click()
        for _ in range(2):
            await click()
        await sync(ada)
    assert await actions() == [
        "plan.downgrade_set",
        "plan.downgrade_undone",
        "plan.cancelled",
        "plan.cancel_undone",
    ]
    assert sorted(await mail_kinds()) == ["cancel_scheduled", "cancel_undone", SCHEDULED]


async def test_no_transaction_is_open_while_stripe_is_asked(stripe, monkeypatch):
    ada = await subscribe(stripe)
    pool = cast("QueuePool", database.engine().pool)
    ask, in_use = payment_changes.terms_of, []

    async def counted(stripe_subscription_id):
        in_use.append(pool.checkedout())
        return await ask(stripe_subscription_id)

    monkeypatch.setattr(payment_changes, "terms_of", counted)
    await changes.cancel(ada, reason="unused")
    assert in_use == [0]


async def test_a_refused_card_changes_nothing_and_says_so(stripe):
    ada = await subscribe(stripe, Tier.STARTER)
    before = await only(Subscription)
    await use_card(stripe, REFUSED_LATER)
    with pytest.raises(ChangeRefusedError, match=r"declined\. Nothing has changed"):
        await change(ada, Tier.PRO)
    await sync(ada)
    row = await only(Subscription)
    kept = ("tier", "tokens_limit", "status", "current_period_start", "current_period_end")
    assert [getattr(row, name) for name in kept] == [getattr(before, name) for name in kept]
    assert [one["status"] for one in await invoices(stripe)] == ["void", "paid"]
    assert (await only(UsageMonthly)).tokens_limit == 10_000_000
    assert await actions() == ["plan.upgrade_refused"]
    assert await mail_kinds() == []


async def test_an_answer_that_is_lost_charges_once_and_is_found_by_the_sync(stripe, monkeypatch):
    ada = await subscribe(stripe, Tier.STARTER)
    shown = await preview(ada, Tier.PRO)
    monkeypatch.setattr(payment_client, "NETWORK_RETRIES", 0)
    await reach(KEY, stripe.url)
    stripe.fail_next("hang_up_after", method="POST", path="/v1/subscriptions/*")
    with pytest.raises(VendorError):
        await changes.change_plan(ada, Tier.PRO, proration_date=shown.proration_date)
    assert list(await workflow.due_syncs()) == [ada]
    await workflow.sync(ada)
    assert (await only(Subscription)).tier is Tier.PRO
    assert [one["amount_paid"] for one in await invoices(stripe)] == [shown.due_now_cents, 1900]
    assert await actions() == ["plan.upgrade_failed"]
    assert await mail_kinds() == ["plan_changed"]


async def test_after_a_refused_card_another_one_is_charged(stripe):
    ada = await subscribe(stripe, Tier.STARTER)
    await use_card(stripe, REFUSED_LATER)
    with pytest.raises(ChangeRefusedError):
        await change(ada, Tier.PRO)
    await use_card(stripe, "pm_card_mastercard")
    await pass_time(stripe, timedelta(seconds=1))  # a price of the same second is the same click
    await change(ada, Tier.PRO)
    assert (await only(Subscription)).tier is Tier.PRO


async def test_a_bank_that_asks_first_gets_its_answer_on_one_page(stripe):
    ada = await subscribe(stripe, Tier.STARTER)
    await use_card(stripe, CHALLENGED)
    shown = await preview(ada, Tier.PRO)
    asked = []
    for _ in range(2):
        with pytest.raises(ConfirmationNeededError) as raised:
            await changes.change_plan(ada, Tier.PRO, proration_date=shown.proration_date)
        asked.append(raised.value.address)
    assert asked[0] == asked[1]
    await sync(ada)
    assert (await only(Subscription)).tier is Tier.STARTER
    (invoice,) = [one["id"] for one in await invoices(stripe) if one["status"] == "open"]
    stripe.pay_invoice(invoice)
    await sync(ada)
    assert (await only(Subscription)).tier is Tier.PRO


async def test_a_downgrade_waits_for_the_turn_and_is_undone_until_then(stripe):
    ada = await subscribe(stripe, Tier.TEAM)
    shown = await change(ada, Tier.STARTER)
    row = await only(Subscription)
    assert (row.tier, row.pending_tier, row.tokens_limit) == (Tier.TEAM, Tier.STARTER, 150_000_000)
    assert (shown.is_upgrade, shown.due_now_cents, shown.next_charge_cents) == (False, 0, 1900)
    assert shown.takes_effect_at == row.current_period_end
    for _ in range(2):
        row = await act(changes.undo_change, ada)
    assert (row.tier, row.pending_tier) == (Tier.TEAM, None)
    assert await actions() == ["plan.downgrade_set", "plan.downgrade_undone"]
    assert await mail_kinds() == ["plan_change_scheduled"]


async def test_at_the_turn_a_downgrade_happens_and_the_box_is_fitted_to_it(stripe):
    ada = await subscribe(stripe, Tier.TEAM)
    async with session_scope() as session:
        box = await session.get_one(Box, (await only(Box)).id)
        box.telegram_user_ids, box.model = [11, 22], "kimi-coding/k3"
    await change(ada, Tier.STARTER)
    await pass_time(stripe, timedelta(days=32))
    await sync(ada)
    row = await only(Subscription)
    assert (row.tier, row.pending_tier, row.tokens_limit) == (Tier.STARTER, None, 10_000_000)
    kept = await only(Box)
    assert (kept.telegram_user_ids, kept.model) == ([11], "kimi-coding/k2p5")
    assert (await invoices(stripe))[0]["amount_due"] == 1900
    assert {"plan_change_scheduled", "plan_changed"} <= set(await mail_kinds())


async def test_a_waiting_downgrade_may_become_another_one(stripe):
    ada = await subscribe(stripe, Tier.TEAM)
    await change(ada, Tier.STARTER)
    await change(ada, Tier.PRO)
    assert (await only(Subscription)).pending_tier is Tier.PRO
    row = await act(changes.undo_change, ada)
    assert (row.tier, row.pending_tier) == (Tier.TEAM, None)


async def test_an_upgrade_replaces_a_waiting_downgrade(stripe):
    ada = await subscribe(stripe, Tier.PRO)
    await change(ada, Tier.STARTER)
    shown = await change(ada, Tier.TEAM)
    row = await only(Subscription)
    assert (row.tier, row.pending_tier) == (Tier.TEAM, None)
    assert shown.due_now_cents == pytest.approx(12900 - 4900, abs=20)


async def test_a_price_that_is_not_sold_any_more_comes_back_when_a_downgrade_is_undone(stripe):
    ada = await subscribe(stripe, Tier.PRO)
    found = await at_stripe(stripe)
    item = found["items"]["data"][0]
    old = stripe.api(
        "POST",
        "/prices",
        data={
            "product": item["price"]["product"],
            "currency": "usd",
            "unit_amount": 3900,
            "recurring[interval]": "month",
            "metadata[tier]": "pro",
        },
    )["id"]
    fields = {
        "items[0][id]": item["id"],
        "items[0][price]": old,
        "proration_behavior": "none",
    }
    stripe.api("POST", f"/subscriptions/{found['id']}", data=fields)
    await sync(ada)
    await change(ada, Tier.STARTER)
    row = await act(changes.undo_change, ada)
    assert (row.tier, row.pending_tier, row.stripe_price_id) == (Tier.PRO, None, old)


async def test_leaving_keeps_the_paid_period_and_is_taken_back(stripe):
    ada = await subscribe(stripe)
    for _ in range(2):
        row = await act(changes.cancel, ada, reason="unused", comment=" On holiday ")
    assert (row.status, row.cancel_at_period_end) == (SubscriptionStatus.ACTIVE, True)
    assert row.cancel_reason == "unused: On holiday"
    for _ in range(2):
        row = await act(changes.undo_cancel, ada)
    assert (row.cancel_at_period_end, row.cancel_reason) == (False, None)
    assert await mail_kinds() == ["cancel_scheduled", "cancel_undone"]
    assert await actions() == ["plan.cancelled", "plan.cancel_undone"]


async def test_a_plan_that_ends_is_not_changed_before_it_is_kept(stripe):
    ada = await subscribe(stripe)
    await act(changes.cancel, ada, reason="other")
    with pytest.raises(ChangeRefusedError, match="Keep it first"):
        await preview(ada, Tier.TEAM)


async def test_a_period_that_turned_meanwhile_is_looked_at_first(stripe):
    ada = await subscribe(stripe, Tier.STARTER)
    row = await only(Subscription)
    await mark(current_period_start=row.current_period_start - timedelta(days=30))
    with pytest.raises(ChangeRefusedError, match="just changed"):
        await preview(ada, Tier.PRO)


@pytest.mark.usefixtures("database", "redis")
async def test_somebody_without_a_plan_is_told_to_choose_one():
    async with session_scope() as session:
        ada = (await make_customer(session)).id
    for what in (changes.undo_change, changes.undo_cancel):
        with pytest.raises(ChangeRefusedError, match="no plan"):
            await act(what, ada)
    with pytest.raises(ChangeRefusedError, match="no plan"):
        await act(changes.cancel, ada, reason="other")
    with pytest.raises(ChangeRefusedError, match="no plan"):
        await preview(ada, Tier.PRO)


async def test_a_plan_that_has_ended_is_bought_again_and_the_box_comes_back(stripe):
    ada = await subscribe(stripe)
    found = await at_stripe(stripe)
    stripe.api("DELETE", f"/subscriptions/{found['id']}")
    await sync(ada)
    assert (await only(Subscription)).status is SubscriptionStatus.CANCELLED
    with pytest.raises(ChangeRefusedError):
        await act(changes.undo_cancel, ada)
    address = await changes.start_again(ada, Tier.STARTER)
    assert address == await changes.start_again(ada, Tier.STARTER)
    page = next(one for one in await rows(Checkout) if one.status == "open")
    stripe.pay(page.stripe_session_id or "")
    await sync(ada)
    again = [one for one in await rows(Subscription) if one.status is SubscriptionStatus.ACTIVE]
    assert [one.tier for one in again] == [Tier.STARTER]
