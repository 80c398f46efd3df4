"""What Stripe's answer means: the rules one by one, and what may never come out of it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from openclaw_web.billing.facts import ConcernCode, Facts
from openclaw_web.billing.keeping import GRACE, KEPT_AFTER_END
from openclaw_web.billing.mapping import decide
from openclaw_web.billing.models import SubscriptionStatus, Tier
from openclaw_web.billing.tiers import plan_of
from tests.billing.stripe_facts import (
    DAY,
    KNOWN,
    NOW,
    PAID,
    SUB,
    billed,
    chosen,
    decided,
    facts,
    priced,
    unpaid,
    written,
)


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


def test_of_two_active_ones_the_one_that_was_paid_with_money_counts():
    paid = replace(SUB, id="sub_2", created=SUB.created + DAY)
    its = replace(PAID, id="in_2", stripe_subscription_id="sub_2")
    waits = unpaid(since=NOW)
    assert chosen(decide(facts(SUB, paid, invoices=(waits, its)))) == "sub_2"
    gratis = replace(PAID, paid_cents=0, due_cents=0)
    nothing = replace(its, paid_cents=0, due_cents=0)
    assert chosen(decide(facts(SUB, paid, invoices=(gratis, nothing)))) == "sub_1"


def test_a_period_that_began_anew_and_is_not_paid_has_a_quarter():
    anew = replace(SUB, period_start=NOW, period_end=NOW + 30 * DAY)
    owed = replace(unpaid(since=NOW), period_start=NOW, period_end=anew.period_end)
    decision = decided(facts(anew, invoices=(PAID, owed), known=KNOWN))
    assert not decision.is_period_paid
    assert decision.period_limit == plan_of(Tier.PRO).tokens_limit // 4


def test_a_customer_who_comes_back_gets_the_new_subscription():
    ended = replace(SUB, status="canceled", ended_at=NOW)
    cancelled = replace(KNOWN, status=SubscriptionStatus.CANCELLED)
    verdict = decide(facts(ended, replace(SUB, id="sub_2"), known=cancelled))
    assert chosen(verdict) == "sub_2"


def test_a_smaller_plan_waits_for_the_turn_of_the_period():
    now = decided(facts(priced(Tier.STARTER), invoices=(PAID,), known=KNOWN))
    assert (now.tier, now.pending_tier) == (Tier.PRO, Tier.STARTER)
    turned = replace(
        priced(Tier.STARTER), period_start=SUB.period_end, period_end=SUB.period_end + 30 * DAY
    )
    then = decided(facts(turned, invoices=(PAID,), known=written(now)))
    assert (then.tier, then.pending_tier) == (Tier.STARTER, None)


def test_a_bigger_plan_counts_at_once_when_it_starts_a_period():
    bigger = replace(priced(Tier.TEAM), period_start=NOW, period_end=NOW + 30 * DAY)
    paid = replace(
        billed(Tier.TEAM), id="in_team", created=NOW, period_start=NOW, period_end=bigger.period_end
    )
    decision = decided(facts(bigger, invoices=(PAID, paid), known=KNOWN))
    assert (decision.tier, decision.pending_tier) == (Tier.TEAM, None)
    assert decision.period_limit == plan_of(Tier.TEAM).tokens_limit


def test_a_bigger_plan_in_a_period_that_was_paid_for_less_waits_for_its_turn():
    decision = decided(facts(priced(Tier.TEAM), invoices=(PAID,), known=KNOWN))
    assert (decision.tier, decision.pending_tier) == (Tier.PRO, Tier.TEAM)
    assert decision.period_limit == plan_of(Tier.PRO).tokens_limit


@pytest.mark.parametrize("known", [None, replace(KNOWN, tier=Tier.STARTER, period_start=NOW)])
def test_what_a_period_was_billed_with_counts_though_we_look_late(known):
    decision = decided(facts(priced(Tier.STARTER), invoices=(PAID,), known=known))
    assert (decision.tier, decision.pending_tier) == (Tier.PRO, Tier.STARTER)


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


def test_a_customer_deleted_at_stripe_has_ended_and_an_admin_hears_of_it():
    given = Facts(subscriptions=(), now=NOW, known=KNOWN, is_customer_deleted=True)
    verdict = decide(given)
    assert [one.code for one in verdict.concerns] == [ConcernCode.CUSTOMER_DELETED]
    decision = decided(given)
    assert (decision.status, decision.delete_after) == ("cancelled", KNOWN.period_end)
    over = replace(KNOWN, period_end=NOW)
    assert decided(replace(given, known=over)).delete_after == NOW + KEPT_AFTER_END
    again = decide(replace(given, known=written(decision), now=NOW + DAY))
    assert (again.current, again.concerns) == (None, ())


def test_a_hold_that_outlived_the_deletion_of_its_customer_starts_the_week_at_its_release():
    given = Facts(subscriptions=(), now=NOW, known=KNOWN, is_customer_deleted=True)
    held = decided(replace(given, holds=("dispute",)))
    assert held.delete_after is None
    much_later = KNOWN.period_end + 30 * DAY
    after = replace(given, known=written(held), now=much_later, released_at=much_later - DAY)
    assert decided(after).delete_after == much_later + 6 * DAY
    assert decide(replace(after, holds=("admin",))).current is None


def test_a_box_is_kept_a_week_and_as_long_as_was_paid_for():
    ended = replace(SUB, status="canceled", ended_at=NOW)
    owed = replace(unpaid(since=NOW - DAY), created=SUB.period_start)
    unpaid_end = facts(ended, invoices=(owed,), known=KNOWN)
    assert decided(unpaid_end).delete_after == NOW + KEPT_AFTER_END
    paid_end = facts(ended, invoices=(PAID,), known=KNOWN)
    assert decided(paid_end).delete_after == SUB.period_end
    assert decided(replace(paid_end, holds=("dispute",))).delete_after is None


def test_the_release_of_a_hold_starts_the_week_again():
    ended = replace(SUB, status="canceled", ended_at=NOW - 60 * DAY, period_end=NOW - 60 * DAY)
    given = facts(ended, known=KNOWN, released_at=NOW - DAY)
    assert decided(given).delete_after == NOW + 6 * DAY
    early = replace(given, released_at=NOW - 61 * DAY)
    assert decided(early).delete_after == NOW - 53 * DAY


def test_a_period_is_paid_once_its_own_invoice_is():
    open_one = replace(unpaid(since=NOW), created=SUB.period_start)
    before = replace(PAID, period_start=NOW - 40 * DAY, period_end=SUB.period_start)
    decision = decided(facts(invoices=(before, open_one)))
    assert not decision.is_period_paid
    assert decision.period_limit == plan_of(Tier.PRO).tokens_limit // 4
    assert decided(facts(invoices=(PAID,))).is_period_paid


def test_a_period_whose_invoice_we_have_not_seen_is_not_paid():
    turned = replace(SUB, period_start=SUB.period_end, period_end=SUB.period_end + 30 * DAY)
    assert not decided(facts(turned, invoices=(PAID,))).is_period_paid
    assert not decided(facts()).is_period_paid


def test_an_invoice_made_after_the_list_of_subscriptions_was_read_is_not_an_old_debt():
    renewal = replace(unpaid(since=NOW, id="in_new"), created=NOW)
    behind = replace(SUB, latest_invoice_id="in_paid")
    decision = decided(facts(behind, invoices=(renewal, PAID)))
    assert (decision.status, decision.past_due_since) == ("active", None)


def test_the_newest_invoice_written_off_is_still_owed_and_an_older_one_is_forgiven():
    off = replace(unpaid(since=NOW - 3 * DAY), status="uncollectible", created=NOW - 3 * DAY)
    assert decided(facts(invoices=(off,))).status == "past_due"
    assert decided(facts(invoices=(replace(off, created=NOW - 40 * DAY), PAID))).status == "active"


def test_an_invoice_that_waits_for_its_due_date_is_not_overdue():
    later = replace(unpaid(since=NOW - 20 * DAY), due_at=NOW + DAY)
    assert decided(facts(invoices=(later, PAID))).status == "active"


def test_an_upgrade_that_waits_for_its_payment_changes_nothing():
    asked = replace(
        billed(Tier.TEAM, unpaid(since=NOW)), created=NOW, period_start=NOW,
        period_end=NOW + 30 * DAY,
    )  # fmt: skip
    decision = decided(facts(replace(SUB, latest_invoice_id=asked.id), invoices=(asked, PAID)))
    assert (decision.status, decision.tier) == ("active", Tier.PRO)
    assert decision.is_period_paid


def test_an_invoice_that_stripe_never_asks_for_is_told_to_an_admin():
    stuck = replace(PAID, id="in_draft", status="draft", finalized_at=None, due_at=None)
    verdict = decide(facts(invoices=(replace(stuck, created=NOW - 4 * DAY),)))
    assert [(one.code, one.subject) for one in verdict.concerns] == [
        (ConcernCode.UNBILLED, "in_draft")
    ]
    paused = replace(SUB, is_collection_paused=True)
    assert decide(facts(paused, invoices=(replace(stuck, created=NOW - 4 * DAY),))).concerns == ()


def test_tokens_given_by_an_admin_are_added_to_the_plan_and_to_its_quarter():
    full = plan_of(Tier.PRO).tokens_limit
    paid = decided(facts(invoices=(PAID,), extra_tokens=1_000_000))
    assert (paid.tokens_limit, paid.period_limit) == (full + 1_000_000,) * 2
    assert decided(facts(extra_tokens=1_000_000)).period_limit == full // 4 + 1_000_000


def test_a_status_of_the_future_raises_no_rights():
    odd = replace(
        priced(Tier.TEAM), status="hibernating", period_start=NOW, period_end=NOW + 90 * DAY
    )
    decision = decided(facts(odd, invoices=(billed(Tier.TEAM),), known=KNOWN))
    assert (decision.tier, decision.period_end) == (Tier.PRO, KNOWN.period_end)
    ends = replace(KNOWN, cancel_at_period_end=True, period_end=NOW)
    assert not decided(facts(odd, known=ends)).is_entitled


def test_a_status_of_the_future_is_told_to_an_admin_even_of_a_stranger():
    verdict = decide(facts(replace(SUB, status="hibernating")))
    assert verdict.current is None
    assert [one.code for one in verdict.concerns] == [ConcernCode.UNKNOWN_STATUS]


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
    known = written(first)
    assert decide(replace(given_facts, known=known)).current == first
