"""A plan that was paid twice, and money that is given back: once, whatever happens in between."""

from functools import partial

import pytest

from openclaw_web.accounts.models import AuditLog, OutboxMail
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
from openclaw_web.workflows import brakes, refunding
from openclaw_web.workflows.brakes import Switch
from tests.billing.buying import only, reach, rows, sync
from tests.billing.stripe_world import KEY, StripeWorld
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
