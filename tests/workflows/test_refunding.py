"""A plan that was paid twice, and money that is given back: once, whatever happens in between."""

from dataclasses import replace
from functools import partial

import pytest

from openclaw_web.accounts.models import AuditLog, OutboxMail
from openclaw_web.billing.mapping import decide
from openclaw_web.billing.models import (
    Checkout,
    Hold,
    Invoice,
    Reversal,
    Subscription,
    SubscriptionStatus,
)
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import ValidationError
from openclaw_web.integrations import payment_client
from openclaw_web.integrations import payment_reversals as adapter
from openclaw_web.jobs.models import Alert
from openclaw_web.workflows import brakes, refunding
from openclaw_web.workflows.brakes import Switch
from tests.billing.buying import deliver, only, reach, rows, sync
from tests.billing.stripe_facts import NOW, SUB, facts, unpaid
from tests.billing.stripe_world import KEY, StripeWorld
from tests.factories import make_customer
from tests.workflows.money_world import (
    PRICE_CENTS,
    buyer,
    charges_of,
    open_alerts,
    pay_twice,
    subscription_statuses,
    turn,
)

ASKED = partial(refunding.request_refund, by="admin:test", reason="They asked for it.")


async def refunded(stripe: StripeWorld, visitor) -> list[int]:
    return sorted(one["amount_refunded"] for one in await charges_of(stripe, visitor))


async def test_of_two_paid_plans_the_first_is_kept_and_the_other_given_back(stripe: StripeWorld):
    visitor = await buyer(stripe)
    kept = (await only(Subscription)).stripe_subscription_id
    await pay_twice(stripe, visitor)
    await sync(visitor.id)
    assert await open_alerts() == {"duplicate_subscription"}
    for _ in range(2):
        await turn()
    assert await refunded(stripe, visitor) == [0, PRICE_CENTS]
    assert await subscription_statuses(visitor) == ["active", "canceled"]
    live = await only(Subscription)
    assert (live.stripe_subscription_id, live.status) == (kept, SubscriptionStatus.ACTIVE)
    assert sorted(mail.kind for mail in await rows(OutboxMail)) == ["refunded", "welcome"]
    assert [one.refunded_cents for one in await rows(Invoice)] in [
        [0, PRICE_CENTS],
        [PRICE_CENTS, 0],
    ]
    assert "reversal.finished" in [line.action for line in await rows(AuditLog)]
    assert (await only(Checkout)).refunded_at is None
    assert await open_alerts() == set()


async def test_while_the_one_that_counts_has_brought_nothing_no_other_is_ended(stripe: StripeWorld):
    assert stripe
    second = replace(SUB, id="sub_2", created=NOW)
    waits = unpaid(since=NOW)
    for invoices, undone in (((waits,), 0), ((), 1)):
        async with session_scope() as session:
            customer = await make_customer(session)
            verdict = decide(facts(SUB, second, invoices=invoices))
            await refunding.undo_duplicates(session, customer.id, verdict, (SUB, second), invoices)
        assert len(await rows(Reversal)) == undone


async def test_switched_off_a_second_payment_waits_for_an_admin(stripe: StripeWorld):
    visitor = await buyer(stripe)
    async with session_scope() as session:
        await brakes.turn(
            session, Switch.REFUND_DUPLICATES, is_on=False, by="admin:test", reason="A test."
        )
    await pay_twice(stripe, visitor)
    await sync(visitor.id)
    await turn()
    assert await refunded(stripe, visitor) == [0, 0]
    assert await open_alerts() == {"duplicate_subscription"}


async def test_when_stripe_is_away_it_is_tried_again(stripe: StripeWorld, monkeypatch):
    visitor = await buyer(stripe)
    await pay_twice(stripe, visitor)
    await sync(visitor.id)
    monkeypatch.setattr(payment_client, "NETWORK_RETRIES", 0)
    await reach(KEY, "http://127.0.0.1:9")
    await turn()
    waiting = await only(Reversal)
    assert (waiting.error, waiting.attempt) == ("Stripe cannot be reached.", 1)
    await reach(KEY, stripe.url)
    await turn()
    assert (await only(Reversal)).finished_at is not None
    assert await refunded(stripe, visitor) == [0, PRICE_CENTS]


async def test_an_answer_that_was_lost_is_no_second_refund(stripe: StripeWorld, monkeypatch):
    visitor = await buyer(stripe)
    await pay_twice(stripe, visitor)
    await sync(visitor.id)
    real = adapter.refund_payment

    async def forget(*arguments, **fields):
        await real(*arguments, **fields)
        raise adapter.VendorError("Stripe cannot be reached.", can_retry=True)

    monkeypatch.setattr(adapter, "refund_payment", forget)
    await turn()
    monkeypatch.setattr(adapter, "refund_payment", real)
    await turn()
    assert (await only(Reversal)).refunded_cents == PRICE_CENTS
    assert await refunded(stripe, visitor) == [0, PRICE_CENTS]


async def test_money_that_an_admin_gives_back_leaves_the_paid_period(stripe: StripeWorld):
    visitor = await buyer(stripe)
    async with session_scope() as session:
        await ASKED(session, visitor.id)
        with pytest.raises(ValidationError):
            await ASKED(session, visitor.id)
    await turn()
    assert await refunded(stripe, visitor) == [PRICE_CENTS]
    assert (await only(Subscription)).status is SubscriptionStatus.ACTIVE
    assert (await only(Invoice)).refunded_cents == PRICE_CENTS
    actions = [(line.action, line.actor_type) for line in await rows(AuditLog)]
    assert ("reversal.requested", "admin") in actions


async def test_a_later_try_gives_the_same_payment_back_and_no_newer_one(
    stripe: StripeWorld, monkeypatch
):
    visitor = await buyer(stripe)
    real_refund, real_payments = adapter.refund_payment, adapter.invoice_payments_of

    async def refuse(*_arguments, **_fields):
        raise adapter.VendorError("Stripe cannot be reached.", can_retry=True)

    async def renewed(stripe_customer_id):
        found = await real_payments(stripe_customer_id)
        newer = replace(found[0], payment_intent_id="pi_newer", invoice_id="in_newer")
        return (newer, *found)

    async with session_scope() as session:
        await ASKED(session, visitor.id)
    monkeypatch.setattr(adapter, "refund_payment", refuse)
    await turn()
    (charge,) = await charges_of(stripe, visitor)
    assert (await only(Reversal)).payment_intent_id == charge["payment_intent"]
    monkeypatch.setattr(adapter, "refund_payment", real_refund)
    monkeypatch.setattr(adapter, "invoice_payments_of", renewed)
    await turn()
    assert (await only(Reversal)).error is None
    assert await refunded(stripe, visitor) == [PRICE_CENTS]


async def test_a_mail_tells_only_of_money_that_we_gave_back(stripe: StripeWorld):
    visitor = await buyer(stripe)
    (charge,) = await charges_of(stripe, visitor)
    stripe.api("POST", "/refunds", data={"charge": charge["id"], "amount": 100})
    for _ in range(2):  # the second finds nothing left
        async with session_scope() as session:
            await ASKED(session, visitor.id)
        await turn()
    (mail,) = [one for one in await rows(OutboxMail) if one.kind == "refunded"]
    assert mail.payload["amount_cents"] == PRICE_CENTS - 100
    found = stripe.api("GET", "/refunds", params={"charge": charge["id"], "limit": 1})
    assert mail.dedupe_key == f"refunded:{found['data'][0]['id']}"
    assert await refunded(stripe, visitor) == [PRICE_CENTS]


async def test_money_given_back_at_stripes_own_page_is_noted_once(stripe: StripeWorld):
    visitor = await buyer(stripe)
    (charge,) = await charges_of(stripe, visitor)
    stripe.api("POST", "/refunds", data={"charge": charge["id"]})
    for _ in range(2):
        await sync(visitor.id)
    assert (await only(Invoice)).refunded_cents == PRICE_CENTS
    noted = [line for line in await rows(AuditLog) if line.action == "invoice.refunded"]
    assert [line.diff for line in noted] == [{"refunded_cents": PRICE_CENTS, "is_full": True}]
    assert (await only(Subscription)).status is SubscriptionStatus.ACTIVE
    assert await rows(Hold) == []


async def bounced(stripe: StripeWorld, visitor) -> str:
    """Have the bank reject the refund of a customer's one charge days later; returns its id."""
    (charge,) = await charges_of(stripe, visitor)
    found = stripe.api("GET", "/refunds", params={"charge": charge["id"], "limit": 1})
    stripe.act("bounce", found["data"][0]["id"])
    return found["data"][0]["id"]


async def test_a_refund_that_a_bank_rejects_later_is_told_and_can_be_given_again(
    stripe: StripeWorld,
):
    visitor = await buyer(stripe)
    async with session_scope() as session:
        await ASKED(session, visitor.id)
    await turn()
    assert (await only(Invoice)).refunded_cents == PRICE_CENTS
    refund_id = await bounced(stripe, visitor)
    events = stripe.api("GET", "/events", params={"type": "refund.failed", "limit": 1})
    await deliver(events["data"])
    assert events["data"][0]["data"]["object"]["id"] == refund_id
    assert await open_alerts() == {"refund.failed"}
    assert [one.detail["customer_id"] for one in await rows(Alert)] == [str(visitor.id)]
    assert (await only(Invoice)).refunded_cents == 0
    async with session_scope() as session:
        await ASKED(session, visitor.id)
    await turn()
    assert await refunded(stripe, visitor) == [PRICE_CENTS]
    assert (await only(Invoice)).refunded_cents == PRICE_CENTS
    assert sorted(one.refunded_cents for one in await rows(Reversal)) == [PRICE_CENTS, PRICE_CENTS]
    assert await open_alerts() == set()
    kinds = [mail.kind for mail in await rows(OutboxMail)]
    assert kinds.count("refunded") == 2
