"""What Stripe's answer means to us: one pure function from the whole set to one decision.

Events never change anything; this does, from a fresh list, so their order and number do not matter.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from openclaw_web.billing.models import SubscriptionStatus, Tier
from openclaw_web.billing.tiers import Plan, plan_of, plan_of_price
from openclaw_web.integrations.payment_objects import StripeInvoice, StripeSubscription

GRACE = timedelta(days=7)  # from the day on which the oldest open invoice became due
KEPT_AFTER_END = timedelta(days=7)  # memory is kept that long, and never less than what was paid

ENDED = frozenset({"canceled", "incomplete_expired"})
UNPAID_START = frozenset({"incomplete", "incomplete_expired"})
SUSPENDING = frozenset({"unpaid", "paused", "incomplete"})
KNOWN_STATUSES = ENDED | UNPAID_START | SUSPENDING | {"trialing", "active", "past_due"}
# Of several subscriptions the paid one counts, and of those the earliest: the others are a mistake.
RANK = {"active": 0, "trialing": 0, "past_due": 1}
LAST_RANK = 2
SERVED = frozenset(
    {SubscriptionStatus.TRIALING, SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE}
)


class Desired(StrEnum):
    """What the subscription wants of the box; a pause by the customer is the box's own affair."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


class ConcernCode(StrEnum):
    DUPLICATE = "duplicate_subscription"
    UNKNOWN_STATUS = "unknown_stripe_status"
    UNKNOWN_PRICE = "unknown_stripe_price"
    MISSING = "subscription_missing_at_stripe"


@dataclass(frozen=True, kw_only=True)
class Concern:
    """Something that an admin should look at; `subject` is a Stripe id."""

    code: ConcernCode
    subject: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Known:
    """Our row of before: the live one, or the newest that ended."""

    stripe_subscription_id: str | None
    status: SubscriptionStatus
    tier: Tier
    period_start: datetime
    past_due_since: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything the decision depends on; `now` is business time."""

    subscriptions: tuple[StripeSubscription, ...]
    now: datetime
    invoices: tuple[StripeInvoice, ...] = ()
    holds: tuple[str, ...] = ()
    extra_grace: timedelta = timedelta(0)
    extra_tokens: int = 0
    known: Known | None = None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What our row should say, and what follows. `delete_after` is set only once it ended."""

    stripe_subscription_id: str
    stripe_price_id: str | None
    stripe_status: str
    status: SubscriptionStatus
    tier: Tier
    tokens_limit: int
    period_start: datetime
    period_end: datetime
    is_period_paid: bool
    is_entitled: bool
    desired: Desired
    cancel_at_period_end: bool
    trial_end: datetime | None
    past_due_since: datetime | None
    grace_until: datetime | None
    pending_tier: Tier | None
    delete_after: datetime | None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The decision, or none when there is nothing to write, and what looked odd."""

    current: Decision | None
    concerns: tuple[Concern, ...] = ()


def decide(facts: Facts) -> Verdict:
    """Return what the customer's subscription is now.

    Rights only come from a status that we know and a price that is ours; anything else keeps what
    was, and says so.
    """
    chosen = _chosen(facts)
    concerns = [*_duplicates(facts, chosen)]
    if chosen is None:
        return Verdict(current=None, concerns=(*concerns, *_missing(facts)))
    plan = _plan_of(chosen, facts)
    if chosen.status not in KNOWN_STATUSES:
        concerns.append(_unknown_status(chosen))
    if _price_plan(chosen) is None:
        concerns.append(_unknown_price(chosen))
    if plan is None:
        return Verdict(current=None, concerns=tuple(concerns))
    return Verdict(current=_decision(chosen, plan, facts), concerns=tuple(concerns))


def is_entitled(
    status: SubscriptionStatus,
    *,
    now: datetime,
    period_end: datetime,
    cancel_at_period_end: bool = False,
    trial_end: datetime | None = None,
    grace_until: datetime | None = None,
) -> bool:
    """Say whether the token proxy serves this subscription at this moment of business time."""
    if status not in SERVED or (cancel_at_period_end and now >= period_end):
        return False
    if status is SubscriptionStatus.TRIALING:
        return trial_end is None or now < trial_end
    if status is SubscriptionStatus.PAST_DUE:
        return grace_until is not None and now < grace_until
    return True


def desired_of(status: SubscriptionStatus) -> Desired:
    return Desired.ACTIVE if status in SERVED else Desired.SUSPENDED


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
    return sorted(usable, key=lambda one: (RANK.get(one.status, LAST_RANK), one.created, one.id))


def _gives_a_row(one: StripeSubscription, facts: Facts) -> bool:
    """Say whether a subscription that we have no row of was paid for, or is on a running trial."""
    if one.status == "trialing":
        return _trial_runs(one, facts.now) or _has_paid(one, facts.invoices)
    return one.status in {"active", "past_due"}


def _duplicates(facts: Facts, chosen: StripeSubscription | None) -> Iterable[Concern]:
    for one in _live(facts):
        if chosen is not None and one.id != chosen.id:
            yield Concern(
                code=ConcernCode.DUPLICATE,
                subject=one.id,
                sentence=f"This customer also pays {chosen.id}; cancel and refund this one.",
            )


def _missing(facts: Facts) -> tuple[Concern, ...]:
    known = facts.known
    if known is None or known.status is SubscriptionStatus.CANCELLED:
        return ()
    return (
        Concern(
            code=ConcernCode.MISSING,
            subject=known.stripe_subscription_id or "none",
            sentence="Stripe does not list the subscription of our live row; nothing was changed.",
        ),
    )


def _unknown_status(one: StripeSubscription) -> Concern:
    return Concern(
        code=ConcernCode.UNKNOWN_STATUS,
        subject=one.id,
        sentence=f"Stripe says {one.status!r}, which we do not know; nothing was changed.",
    )


def _unknown_price(one: StripeSubscription) -> Concern:
    return Concern(
        code=ConcernCode.UNKNOWN_PRICE,
        subject=one.id,
        sentence=f"The price {one.price_lookup_key or one.price_id!r} is not in the catalogue.",
    )


def _price_plan(one: StripeSubscription) -> Plan | None:
    """Return the plan that is paid: by the price's name, or, for a replaced price, by its tier."""
    if plan := plan_of_price(one.price_lookup_key):
        return plan
    return plan_of(one.price_tier) if one.price_tier in set(Tier) else None


def _plan_of(one: StripeSubscription, facts: Facts) -> Plan | None:
    """Return the plan that applies now; a price that is not ours keeps the tier of before."""
    mine = _known_of(one, facts)
    paid = _price_plan(one)
    if mine is None:
        return paid
    before = plan_of(mine.tier)
    if paid is None or _waits_for_the_turn(paid, before, one, mine):
        return before
    return paid


def _waits_for_the_turn(paid: Plan, before: Plan, one: StripeSubscription, mine: Known) -> bool:
    """Say whether this is a smaller plan in a period that was paid for with the bigger one."""
    return paid.price_cents < before.price_cents and one.period_start == mine.period_start


def _known_of(one: StripeSubscription, facts: Facts) -> Known | None:
    known = facts.known
    return known if known and known.stripe_subscription_id == one.id else None


def _decision(one: StripeSubscription, plan: Plan, facts: Facts) -> Decision:
    since = _past_due_since(one, facts)
    until = since + GRACE + facts.extra_grace if since else None
    status = _status(one, facts, grace_until=until)
    paid_plan = _price_plan(one) or plan
    is_period_paid = _is_period_paid(one, facts.invoices)
    return Decision(
        stripe_subscription_id=one.id,
        stripe_price_id=one.price_id,
        stripe_status=one.status,
        status=status,
        tier=plan.tier,
        tokens_limit=plan.tokens_limit + facts.extra_tokens,
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
        pending_tier=paid_plan.tier if paid_plan.tier is not plan.tier else None,
        delete_after=_delete_after(one, facts, is_period_paid=is_period_paid),
    )


def _status(
    one: StripeSubscription, facts: Facts, *, grace_until: datetime | None
) -> SubscriptionStatus:
    mine = _known_of(one, facts)
    if one.status in ENDED:
        return SubscriptionStatus.CANCELLED
    if facts.holds or one.status in SUSPENDING:
        return SubscriptionStatus.SUSPENDED
    if one.status not in KNOWN_STATUSES:
        return mine.status if mine else SubscriptionStatus.SUSPENDED
    if one.status == "trialing":
        return _status_on_trial(one, facts)
    if grace_until is None:
        return SubscriptionStatus.ACTIVE
    in_grace = facts.now < grace_until
    return SubscriptionStatus.PAST_DUE if in_grace else SubscriptionStatus.SUSPENDED


def _status_on_trial(one: StripeSubscription, facts: Facts) -> SubscriptionStatus:
    if _trial_runs(one, facts.now):
        return SubscriptionStatus.TRIALING
    has_paid = _has_paid(one, facts.invoices)
    return SubscriptionStatus.ACTIVE if has_paid else SubscriptionStatus.SUSPENDED


def _past_due_since(one: StripeSubscription, facts: Facts) -> datetime | None:
    """Return when the oldest open invoice became due: the same answer, whenever we look.

    While Stripe says `active`, the newest invoice may still be on its way; only older ones count.
    """
    if one.status not in {"active", "past_due"}:
        return _known_clock(one, facts) if one.status not in KNOWN_STATUSES else None
    open_ones = [invoice for invoice in _finalised(one, facts) if invoice.status == "open"]
    if one.status == "active":
        newest = _newest_invoice_id(one, facts.invoices)
        open_ones = [invoice for invoice in open_ones if invoice.id != newest]
    oldest = min((invoice.due_at or invoice.created for invoice in open_ones), default=None)
    if oldest is None and one.status == "past_due":
        return _known_clock(one, facts) or facts.now
    return oldest


def _known_clock(one: StripeSubscription, facts: Facts) -> datetime | None:
    mine = _known_of(one, facts)
    return mine.past_due_since if mine else None


def _finalised(one: StripeSubscription, facts: Facts) -> list[StripeInvoice]:
    return [
        invoice
        for invoice in facts.invoices
        if invoice.stripe_subscription_id == one.id
        and invoice.finalized_at is not None
        and invoice.remaining_cents > 0
    ]


def _newest_invoice_id(one: StripeSubscription, invoices: tuple[StripeInvoice, ...]) -> str | None:
    if one.latest_invoice_id:
        return one.latest_invoice_id
    mine = [invoice for invoice in invoices if invoice.stripe_subscription_id == one.id]
    return max(mine, key=lambda invoice: invoice.created).id if mine else None


def _is_period_paid(one: StripeSubscription, invoices: tuple[StripeInvoice, ...]) -> bool:
    """Say whether this period's invoice is settled; so is one that Stripe never made."""
    newest = _newest_invoice_id(one, invoices)
    found = next((invoice for invoice in invoices if invoice.id == newest), None)
    return found is None or found.status not in {"draft", "open", "uncollectible"}


def _has_paid(one: StripeSubscription, invoices: tuple[StripeInvoice, ...]) -> bool:
    return any(
        invoice.stripe_subscription_id == one.id
        and invoice.status == "paid"
        and invoice.paid_cents > 0
        for invoice in invoices
    )


def _trial_runs(one: StripeSubscription, now: datetime) -> bool:
    return one.trial_end is not None and now < one.trial_end


def _delete_after(
    one: StripeSubscription, facts: Facts, *, is_period_paid: bool
) -> datetime | None:
    """Return when the box may be destroyed; a hold freezes that: disputed memory is kept."""
    if one.status not in ENDED or facts.holds:
        return None
    kept_until = (one.ended_at or one.canceled_at or one.period_end) + KEPT_AFTER_END
    return max(kept_until, one.period_end) if is_period_paid else kept_until
