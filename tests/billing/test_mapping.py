"""What Stripe's answer means: every cell of the table, and what may never come out of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some

from openclaw_web.billing.mapping import (
    GRACE,
    KEPT_AFTER_END,
    ConcernCode,
    Decision,
    Desired,
    Facts,
    Known,
    Verdict,
    decide,
)
from openclaw_web.billing.models import SubscriptionStatus, Tier
from openclaw_web.billing.tiers import plan_of
from openclaw_web.integrations.payment_objects import StripeInvoice, StripeSubscription

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SUB = StripeSubscription(
    id="sub_1",
    stripe_customer_id="cus_1",
    status="active",
    price_id="price_1",
    price_lookup_key=plan_of(Tier.PRO).lookup_key,
    price_tier="pro",
    period_start=NOW - 10 * DAY,
    period_end=NOW + 20 * DAY,
    cancel_at_period_end=False,
    trial_end=None,
    created=NOW - 40 * DAY,
)
PAID = StripeInvoice(
    id="in_paid",
    status="paid",
    currency="usd",
    due_cents=4900,
    paid_cents=4900,
    remaining_cents=0,
    created=NOW - 10 * DAY,
    stripe_subscription_id="sub_1",
    finalized_at=NOW - 10 * DAY,
    due_at=NOW - 10 * DAY,
)
KNOWN = Known(
    stripe_subscription_id="sub_1",
    status=SubscriptionStatus.ACTIVE,
    tier=Tier.PRO,
    period_start=SUB.period_start,
)


def unpaid(*, since: datetime, id: str = "in_open") -> StripeInvoice:  # noqa: A002 - Stripe's word
    return replace(
        PAID, id=id, status="open", paid_cents=0, remaining_cents=4900,
        created=since, finalized_at=since, due_at=since,
    )  # fmt: skip


def decided(given_facts: Facts) -> Decision:
    decision = decide(given_facts).current
    assert decision is not None
    return decision


def chosen(verdict: Verdict) -> str:
    assert verdict.current is not None
    return verdict.current.stripe_subscription_id


def facts(*subscriptions, **fields) -> Facts:
    return Facts(subscriptions=subscriptions or (SUB,), now=fields.pop("now", NOW), **fields)


CELLS = {
    "active": (facts(invoices=(PAID,)), "active", True),
    "active, cancelled at the period's end": (
        facts(replace(SUB, cancel_at_period_end=True)), "active", True),
    "active, cancelled, and the period is over": (
        facts(replace(SUB, cancel_at_period_end=True), now=SUB.period_end), "active", False),
    "active, its newest invoice still open": (
        facts(replace(SUB, latest_invoice_id="in_open"), invoices=(unpaid(since=NOW - DAY),)),
        "active", True),
    "active, an older invoice still open": (
        facts(replace(SUB, latest_invoice_id="in_paid"),
              invoices=(PAID, unpaid(since=NOW - DAY))), "past_due", True),
    "active, an older invoice open for longer than the grace": (
        facts(replace(SUB, latest_invoice_id="in_paid"),
              invoices=(PAID, unpaid(since=NOW - 8 * DAY))), "suspended", False),
    "active, but held": (facts(holds=("dispute",)), "suspended", False),
    "trialing": (
        facts(replace(SUB, status="trialing", trial_end=NOW + DAY)), "trialing", True),
    "trialing, but held": (
        facts(replace(SUB, status="trialing", trial_end=NOW + DAY), holds=("abuse",)),
        "suspended", False),
    "trial over, nothing paid": (
        facts(replace(SUB, status="trialing", trial_end=NOW), known=KNOWN), "suspended", False),
    "trial over and paid": (
        facts(replace(SUB, status="trialing", trial_end=NOW), invoices=(PAID,)), "active", True),
    "past due, in grace": (
        facts(replace(SUB, status="past_due"), invoices=(unpaid(since=NOW - 6 * DAY),)),
        "past_due", True),
    "past due, grace over": (
        facts(replace(SUB, status="past_due"), invoices=(unpaid(since=NOW - GRACE),)),
        "suspended", False),
    "past due, grace given by an admin": (
        facts(replace(SUB, status="past_due"), invoices=(unpaid(since=NOW - GRACE),),
              extra_grace=DAY), "past_due", True),
    "past due, but held": (
        facts(replace(SUB, status="past_due"), invoices=(unpaid(since=NOW),), holds=("admin",)),
        "suspended", False),
    "unpaid": (facts(replace(SUB, status="unpaid"), known=KNOWN), "suspended", False),
    "paused": (facts(replace(SUB, status="paused"), known=KNOWN), "suspended", False),
    "canceled": (facts(replace(SUB, status="canceled"), known=KNOWN), "cancelled", False),
    "first payment never came, though there is a row": (
        facts(replace(SUB, status="incomplete_expired"), known=KNOWN), "cancelled", False),
    "a status of the future keeps what was": (
        facts(replace(SUB, status="hibernating"), known=KNOWN), "active", True),
    "a status of the future never gives back what was lost": (
        facts(replace(SUB, status="hibernating"),
              known=replace(KNOWN, status=SubscriptionStatus.SUSPENDED)), "suspended", False),
}  # fmt: skip


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS.keys())
def test_a_cell_of_the_table(cell):
    given_facts, status, is_entitled = cell
    decision = decided(given_facts)
    assert (decision.status, decision.is_entitled) == (status, is_entitled)
    runs = status in {"active", "trialing", "past_due"}
    assert decision.desired is (Desired.ACTIVE if runs else Desired.SUSPENDED)


@pytest.mark.parametrize(
    "status",
    ["incomplete", "incomplete_expired", "unpaid", "paused", "canceled", "hibernating", "trialing"],
)
def test_without_a_payment_there_is_no_row(status):
    assert decide(facts(replace(SUB, status=status))).current is None


def test_the_grace_clock_does_not_depend_on_when_we_looked():
    late = facts(replace(SUB, status="past_due"), invoices=(unpaid(since=NOW),))
    decisions = [decided(replace(late, now=NOW + hours * DAY / 24)) for hours in (0, 30)]
    assert {one.past_due_since for one in decisions} == {NOW}
    assert {one.grace_until for one in decisions} == {NOW + GRACE}


def test_of_two_paid_subscriptions_the_earlier_counts_and_an_admin_hears_of_the_other():
    second = replace(SUB, id="sub_2", created=SUB.created + DAY)
    for both in ((SUB, second), (second, SUB)):
        verdict = decide(facts(*both))
        assert chosen(verdict) == "sub_1"
        assert [(one.code, one.subject) for one in verdict.concerns] == [
            (ConcernCode.DUPLICATE, "sub_2")
        ]


def test_a_paid_subscription_counts_before_one_that_is_not():
    verdict = decide(facts(replace(SUB, status="unpaid"), replace(SUB, id="sub_2"), known=KNOWN))
    assert chosen(verdict) == "sub_2"


def test_a_customer_who_comes_back_gets_the_new_subscription():
    ended = replace(SUB, status="canceled", ended_at=NOW)
    cancelled = replace(KNOWN, status=SubscriptionStatus.CANCELLED)
    verdict = decide(facts(ended, replace(SUB, id="sub_2"), known=cancelled))
    assert chosen(verdict) == "sub_2"


def test_a_smaller_plan_waits_for_the_turn_of_the_period():
    smaller = replace(SUB, price_lookup_key=plan_of(Tier.STARTER).lookup_key)
    now = decided(facts(smaller, known=KNOWN))
    assert (now.tier, now.pending_tier) == (Tier.PRO, Tier.STARTER)
    turned = replace(smaller, period_start=SUB.period_end, period_end=SUB.period_end + 30 * DAY)
    then = decided(facts(turned, known=KNOWN))
    assert (then.tier, then.pending_tier) == (Tier.STARTER, None)


def test_a_bigger_plan_counts_at_once():
    bigger = replace(SUB, price_lookup_key=plan_of(Tier.TEAM).lookup_key)
    decision = decided(facts(bigger, known=KNOWN))
    assert decision.tier is Tier.TEAM
    assert decision.tokens_limit == plan_of(Tier.TEAM).tokens_limit


def test_a_replaced_price_is_known_by_its_tier():
    decision = decided(facts(replace(SUB, price_lookup_key=None)))
    assert decision.tier is Tier.PRO


def test_a_price_that_is_not_ours_gives_nothing_and_is_said_aloud():
    foreign = replace(SUB, price_lookup_key="other", price_tier=None)
    verdict = decide(facts(foreign))
    assert verdict.current is None
    assert [one.code for one in verdict.concerns] == [ConcernCode.UNKNOWN_PRICE]
    assert decided(facts(foreign, known=KNOWN)).tier is Tier.PRO


def test_a_subscription_that_vanished_changes_nothing_and_is_said_aloud():
    verdict = decide(Facts(subscriptions=(), now=NOW, known=KNOWN))
    assert verdict.current is None
    assert [one.code for one in verdict.concerns] == [ConcernCode.MISSING]


def test_a_box_is_kept_a_week_and_as_long_as_was_paid_for():
    unpaid_end = facts(
        replace(SUB, status="canceled", ended_at=NOW, latest_invoice_id="in_open"),
        invoices=(unpaid(since=NOW - DAY),),
        known=KNOWN,
    )
    assert decided(unpaid_end).delete_after == NOW + KEPT_AFTER_END
    paid_end = facts(replace(SUB, status="canceled", ended_at=NOW), invoices=(PAID,), known=KNOWN)
    assert decided(paid_end).delete_after == SUB.period_end
    assert decided(replace(paid_end, holds=("dispute",))).delete_after is None


def test_a_period_is_paid_once_its_newest_invoice_is():
    waiting = replace(SUB, latest_invoice_id="in_open")
    decision = decided(facts(waiting, invoices=(PAID, unpaid(since=NOW))))
    assert not decision.is_period_paid
    assert decided(facts(invoices=(PAID,))).is_period_paid


def test_tokens_given_by_an_admin_are_added_to_the_plan():
    decision = decided(facts(extra_tokens=1_000_000))
    assert decision.tokens_limit == plan_of(Tier.PRO).tokens_limit + 1_000_000


STATUSES = ("incomplete", "incomplete_expired", "trialing", "active", "past_due", "canceled",
            "unpaid", "paused", "hibernating")  # fmt: skip
DAYS = some.integers(-30, 30)


@some.composite
def anything(draw) -> Facts:
    """Draw anything that Stripe could list, with or without a row of ours."""
    subscriptions = tuple(
        replace(
            SUB,
            id=f"sub_{number}",
            status=draw(some.sampled_from(STATUSES)),
            created=NOW + draw(DAYS) * DAY,
            trial_end=draw(some.none() | DAYS.map(lambda days: NOW + days * DAY)),
            cancel_at_period_end=draw(some.booleans()),
        )
        for number in range(draw(some.integers(0, 3)))
    )
    invoices = tuple(
        replace(
            unpaid(since=NOW + draw(DAYS) * DAY, id=f"in_{number}"),
            status=draw(some.sampled_from(("draft", "open", "paid", "uncollectible", "void"))),
            stripe_subscription_id=f"sub_{draw(some.integers(0, 2))}",
            paid_cents=draw(some.sampled_from((0, 4900))),
        )
        for number in range(draw(some.integers(0, 3)))
    )
    known = draw(
        some.none()
        | some.builds(
            replace,
            some.just(KNOWN),
            stripe_subscription_id=some.sampled_from(("sub_0", "sub_1", "sub_gone")),
            status=some.sampled_from(SubscriptionStatus),
        )
    )
    holds = draw(some.sampled_from(((), ("dispute",))))
    return Facts(subscriptions=subscriptions, invoices=invoices, holds=holds, known=known, now=NOW)


@given(anything())
def test_nobody_is_served_without_a_payment_a_trial_or_a_grace(given_facts):
    decision = decide(given_facts).current
    if decision is None or not decision.is_entitled:
        return
    assert not given_facts.holds
    paid_trial = any(one.paid_cents for one in given_facts.invoices)
    reasons = {
        "active": decision.grace_until is None or decision.grace_until > NOW,
        "past_due": decision.grace_until is not None and decision.grace_until > NOW,
        "trialing": (decision.trial_end and decision.trial_end > NOW) or paid_trial,
        "hibernating": given_facts.known is not None and given_facts.known.status != "cancelled",
    }
    assert reasons[decision.stripe_status]


@given(anything())
def test_the_order_of_the_list_does_not_matter(given_facts):
    turned = replace(
        given_facts,
        subscriptions=given_facts.subscriptions[::-1],
        invoices=given_facts.invoices[::-1],
    )
    assert decide(turned).current == decide(given_facts).current


@given(anything())
def test_deciding_again_on_what_was_written_changes_nothing(given_facts):
    first = decide(given_facts).current
    if first is None:
        return
    known = Known(
        stripe_subscription_id=first.stripe_subscription_id,
        status=first.status,
        tier=first.tier,
        period_start=first.period_start,
        past_due_since=first.past_due_since,
    )
    assert decide(replace(given_facts, known=known)).current == first
