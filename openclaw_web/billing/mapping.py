"""What Stripe's answer means to us: one pure function from the whole set to one decision.

Events never change anything; this does, from a fresh list, so their order and number do not matter.
"""

from collections.abc import Iterable
from datetime import datetime

from openclaw_web.billing import arrears
from openclaw_web.billing.entitlement import desired_of, is_entitled
from openclaw_web.billing.facts import Concern, ConcernCode, Decision, Facts, Verdict
from openclaw_web.billing.keeping import (
    GRACE,
    KEPT_AFTER_END,
    PROVISIONAL_SHARE,
    orphaned,
    unchanged,
)
from openclaw_web.billing.models import SubscriptionStatus
from openclaw_web.billing.paid_plan import plan_of_its_price, plan_of_period
from openclaw_web.billing.tiers import Plan
from openclaw_web.integrations.payment_objects import StripeSubscription

ENDED = frozenset({"canceled", "incomplete_expired"})
UNPAID_START = frozenset({"incomplete", "incomplete_expired"})
SUSPENDING = frozenset({"unpaid", "paused", "incomplete"})
KNOWN_STATUSES = ENDED | UNPAID_START | SUSPENDING | {"trialing", "active", "past_due"}
# Of several subscriptions those in order count first, of those the ones that were paid with money,
# and of those the earliest: the others are a mistake.
RANK = {"active": 0, "trialing": 0, "past_due": 1}
LAST_RANK = 2
MISSING = (
    ConcernCode.MISSING,
    "Stripe does not list the subscription of our live row; nothing was changed.",
)
DELETED = (
    ConcernCode.CUSTOMER_DELETED,
    "The customer was deleted at Stripe, which ended what they paid for.",
)


def decide(facts: Facts) -> Verdict:
    """Return what the customer's subscription is now.

    Rights only come from a status that we know and a price that is ours; anything else keeps what
    was, and says so.
    """
    chosen = _chosen(facts)
    concerns = (*_duplicates(facts, chosen), *_oddities(facts, chosen))
    if chosen is None:
        return Verdict(current=orphaned(facts), concerns=concerns)
    if chosen.status not in KNOWN_STATUSES:
        mine = facts.known_of(chosen)
        kept = unchanged(chosen, mine, facts) if mine else None
        return Verdict(current=kept, concerns=concerns)
    plan = plan_of_period(chosen, facts)
    decision = _decision(chosen, plan, facts) if plan else None
    return Verdict(current=decision, concerns=concerns)


def _chosen(facts: Facts) -> StripeSubscription | None:
    """Return the subscription that counts: the best live one, else the one of our row."""
    if live := _live(facts):
        return live[0]
    mine = facts.known and facts.known.stripe_subscription_id
    return next((one for one in facts.subscriptions if one.id == mine), None)


def _live(facts: Facts) -> list[StripeSubscription]:
    """Return what runs, the best first; an unknown status counts only for a row that exists."""
    mine = facts.known.stripe_subscription_id if facts.known else None
    usable = [
        one
        for one in facts.subscriptions
        if one.status not in ENDED | UNPAID_START and (one.id == mine or _gives_a_row(one, facts))
    ]

    def order(one: StripeSubscription) -> tuple[int, bool, datetime, bool, str]:
        """Of two that were made in the same second, the one that we know came first."""
        rank, is_free = RANK.get(one.status, LAST_RANK), not arrears.has_paid(one, facts.invoices)
        return rank, is_free, one.created, one.id != mine, one.id

    return sorted(usable, key=order)


def _gives_a_row(one: StripeSubscription, facts: Facts) -> bool:
    """Say whether a subscription that we have no row of was paid for, or is on a running trial."""
    if one.status == "trialing":
        return _trial_runs(one, facts.now) or arrears.has_paid(one, facts.invoices)
    return one.status in {"active", "past_due"}


def _duplicates(facts: Facts, chosen: StripeSubscription | None) -> Iterable[Concern]:
    for one in _live(facts):
        if chosen is not None and one.id != chosen.id:
            yield Concern(
                code=ConcernCode.DUPLICATE,
                subject=one.id,
                sentence=f"This customer also pays {chosen.id}; cancel and refund this one.",
            )


def _oddities(facts: Facts, chosen: StripeSubscription | None) -> Iterable[Concern]:
    """Return what Stripe says that we do not understand, or that nobody meant."""
    for one in facts.subscriptions:
        if one.status not in KNOWN_STATUSES:
            sentence = f"Stripe says {one.status!r}, which we do not know; nothing was changed."
            yield Concern(code=ConcernCode.UNKNOWN_STATUS, subject=one.id, sentence=sentence)
    known = facts.live
    if known is not None and (chosen is None or facts.is_customer_deleted):
        code, sentence = MISSING
        if facts.is_customer_deleted:
            code, sentence = DELETED
        yield Concern(code=code, subject=known.stripe_subscription_id or "none", sentence=sentence)
    if chosen is None:
        return
    if plan_of_its_price(chosen) is None:
        price = chosen.price_lookup_key or chosen.price_id
        yield Concern(
            code=ConcernCode.UNKNOWN_PRICE,
            subject=chosen.id,
            sentence=f"The price {price!r} is not in the catalogue.",
        )
    if stuck := arrears.is_unbilled(chosen, facts.invoices, facts.now):
        yield Concern(
            code=ConcernCode.UNBILLED,
            subject=stuck.id,
            sentence="Stripe made this invoice days ago and has not asked for the money.",
        )


def _decision(one: StripeSubscription, plan: Plan, facts: Facts) -> Decision:
    since = _past_due_since(one, facts)
    until = since + GRACE + facts.extra_grace if since else None
    status = _status(one, facts, grace_until=until)
    next_plan = plan_of_its_price(one) or plan
    is_period_paid = arrears.is_period_paid(one, facts.invoices)
    share = 1 if is_period_paid else PROVISIONAL_SHARE
    return Decision(
        stripe_subscription_id=one.id,
        stripe_price_id=one.price_id,
        stripe_status=one.status,
        status=status,
        tier=plan.tier,
        tokens_limit=max(1, plan.tokens_limit + facts.extra_tokens),
        period_start=one.period_start,
        period_end=one.period_end,
        is_period_paid=is_period_paid,
        is_entitled=is_entitled(
            status,
            now=facts.now,
            period_end=one.period_end,
            cancel_at_period_end=one.cancel_at_period_end,
            trial_end=one.trial_end,
            grace_until=until,
        ),
        desired=desired_of(status),
        cancel_at_period_end=one.cancel_at_period_end,
        trial_end=one.trial_end,
        past_due_since=since,
        grace_until=until,
        pending_tier=next_plan.tier if next_plan.tier is not plan.tier else None,
        delete_after=_delete_after(one, facts, is_period_paid=is_period_paid),
        released_at=facts.released_at,
        period_limit=max(1, plan.tokens_limit // share + facts.extra_tokens),
    )


def _status(
    one: StripeSubscription, facts: Facts, *, grace_until: datetime | None
) -> SubscriptionStatus:
    if one.status in ENDED:
        return SubscriptionStatus.CANCELLED
    if facts.holds or one.status in SUSPENDING:
        return SubscriptionStatus.SUSPENDED
    if one.status == "trialing":
        return _status_on_trial(one, facts)
    if grace_until is None:
        return SubscriptionStatus.ACTIVE
    in_grace = facts.now < grace_until
    return SubscriptionStatus.PAST_DUE if in_grace else SubscriptionStatus.SUSPENDED


def _status_on_trial(one: StripeSubscription, facts: Facts) -> SubscriptionStatus:
    if _trial_runs(one, facts.now):
        return SubscriptionStatus.TRIALING
    has_paid = arrears.has_paid(one, facts.invoices)
    return SubscriptionStatus.ACTIVE if has_paid else SubscriptionStatus.SUSPENDED


def _past_due_since(one: StripeSubscription, facts: Facts) -> datetime | None:
    """Return when the clock of the grace began; only what runs has one."""
    if one.status not in {"active", "past_due"}:
        return None
    since = arrears.overdue_since(one, facts.invoices, facts.now)
    if since is None and one.status == "past_due":
        mine = facts.known_of(one)
        return mine.past_due_since if mine and mine.past_due_since else facts.now
    return since


def _trial_runs(one: StripeSubscription, now: datetime) -> bool:
    return one.trial_end is not None and now < one.trial_end


def _delete_after(
    one: StripeSubscription, facts: Facts, *, is_period_paid: bool
) -> datetime | None:
    """Return when the box may be destroyed.

    A hold freezes that, as disputed memory is kept; its release starts the week again.
    """
    if one.status not in ENDED or facts.holds:
        return None
    ended_at = one.ended_at or one.canceled_at or one.period_end
    kept_until = max(ended_at, facts.released_at or ended_at) + KEPT_AFTER_END
    return max(kept_until, one.period_end) if is_period_paid else kept_until
