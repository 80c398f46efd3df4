"""Histories of payments in a YAML file, and whether each date of them ends as the file expects.

No database and no Stripe: the same pure functions decide that decide for customers. The format is
described in docs/billing.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from openclaw_web.billing import mapping
from openclaw_web.billing.entitlement import SERVED, is_entitled
from openclaw_web.billing.facts import ConcernCode, Decision, Facts, Known, Verdict
from openclaw_web.boxes import desired
from openclaw_web.boxes.desired import Desired
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.integrations.payment_objects import StripeInvoice, StripeSubscription
from openclaw_web.workflows import scenario_files
from openclaw_web.workflows.scenario_files import Scenario, Step
from openclaw_web.workflows.subscription_effects import moves_deletion

NO_BOX = "none"
NO_ROW = "none"


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """One value that is not as the file expects it."""

    scenario: str
    line: int
    at: datetime
    name: str
    expected: object
    actual: object


@dataclass(frozen=True, kw_only=True)
class Outcome:
    scenarios: int
    dates: int
    mismatches: tuple[Mismatch, ...]


def replay(path: Path) -> Outcome:
    """Play every scenario of a file.

    Raises:
        ScenarioError: the file cannot be read, or says something that makes no sense.
    """
    scenarios = scenario_files.read(path)
    return Outcome(
        scenarios=len(scenarios),
        dates=sum(len(one.steps) for one in scenarios),
        mismatches=tuple(found for one in scenarios for found in _play(one)),
    )


@dataclass
class _Customer:
    """What is true so far: at Stripe, by admins, and with us."""

    subscriptions: dict[str, StripeSubscription] = field(default_factory=dict)
    invoices: dict[str, StripeInvoice] = field(default_factory=dict)
    refunded_cents: dict[str, int] = field(default_factory=dict)
    holds: set[str] = field(default_factory=set)
    released_at: datetime | None = None
    extra_grace: timedelta = timedelta(0)
    extra_tokens: int = 0
    is_deleted: bool = False
    known: Known | None = None
    decision: Decision | None = None
    has_box: bool = False
    delete_after: datetime | None = None


def _play(scenario: Scenario) -> Iterator[Mismatch]:
    customer = _Customer()
    for step in scenario.steps:
        _change(customer, step)
        verdict = _decide(customer, step.at)
        actual = _look(customer, verdict, step.at)
        for name, expected in step.expected.items():
            if actual[name] != expected:
                yield Mismatch(
                    scenario=scenario.name,
                    line=step.line,
                    at=step.at,
                    name=name,
                    expected=expected,
                    actual=actual[name],
                )


def _change(customer: _Customer, step: Step) -> None:
    customer.subscriptions |= {one.id: one for one in step.subscriptions}
    customer.invoices |= {one.id: one for one in step.invoices}
    customer.refunded_cents |= step.refunded_cents
    if step.releases & customer.holds:
        customer.released_at = step.at
    customer.holds = (customer.holds | step.holds) - step.releases
    if step.grace_days is not None:
        customer.extra_grace = timedelta(days=step.grace_days)
    if step.tokens is not None:
        customer.extra_tokens = step.tokens
    customer.is_deleted = customer.is_deleted or step.is_customer_deleted
    if customer.is_deleted:
        customer.subscriptions = {}


def _decide(customer: _Customer, now: datetime) -> Verdict:
    """Decide as a sync does, and keep what it would write."""
    verdict = mapping.decide(
        Facts(
            subscriptions=tuple(customer.subscriptions.values()),
            invoices=tuple(customer.invoices.values()),
            holds=tuple(sorted(customer.holds)),
            released_at=customer.released_at,
            extra_grace=customer.extra_grace,
            extra_tokens=customer.extra_tokens,
            known=customer.known,
            is_customer_deleted=customer.is_deleted,
            now=now,
        )
    )
    if verdict.current is not None:
        _write(customer, verdict.current, now)
    return verdict


def _write(customer: _Customer, decision: Decision, now: datetime) -> None:
    is_another = (
        customer.known is not None
        and customer.known.stripe_subscription_id != decision.stripe_subscription_id
    )
    customer.known, customer.decision = known_after(decision), decision
    if decision.status in SERVED:
        if is_another or not customer.has_box:
            customer.delete_after = None  # a kept box goes on with the new subscription
        customer.has_box = True
    elif moves_deletion(customer.delete_after, decision, now):
        customer.delete_after = decision.delete_after


def known_after(decision: Decision) -> Known:
    """Return our row as it is once this decision was written."""
    return Known(
        stripe_subscription_id=decision.stripe_subscription_id,
        status=decision.status,
        tier=decision.tier,
        period_start=decision.period_start,
        period_end=decision.period_end,
        stripe_price_id=decision.stripe_price_id,
        cancel_at_period_end=decision.cancel_at_period_end,
        trial_end=decision.trial_end,
        past_due_since=decision.past_due_since,
        pending_tier=decision.pending_tier,
    )


def _look(customer: _Customer, verdict: Verdict, now: datetime) -> dict[str, object]:
    """Return what the file may expect; without a subscription there is no plan and no limit."""
    known, decision = customer.known, customer.decision
    is_served = decision is not None and is_entitled(
        decision.status,
        now=now,
        period_end=decision.period_end,
        cancel_at_period_end=decision.cancel_at_period_end,
        trial_end=decision.trial_end,
        grace_until=decision.grace_until,
    )
    return {
        "status": known.status.value if known else NO_ROW,
        "plan": known.tier.value if known else NO_ROW,
        "pending_plan": known.pending_tier.value if known and known.pending_tier else NO_ROW,
        "entitled": is_served,
        "limit": decision.period_limit if decision and is_served else 0,
        "box": _box(customer, now, is_served=is_served),
        "delete_after": customer.delete_after,
        "refunds_cents": _cents_out(customer, verdict),
        "alerts": sorted(one.code.value for one in verdict.concerns),
    }


def _box(customer: _Customer, now: datetime, *, is_served: bool) -> str:
    if not customer.has_box:
        return NO_BOX
    state, _ = desired.desired_state(
        desired.Facts(
            status=BoxStatus.ACTIVE,
            is_entitled=is_served,
            has_hold=bool(customer.holds),
            is_account_deleted=False,
            user_paused_at=None,
            delete_after=customer.delete_after,
            now=now,
        )
    )
    customer.has_box = state is not Desired.DESTROYED
    return state.value


def _cents_out(customer: _Customer, verdict: Verdict) -> int:
    """Return what went back by now, and what we owe for subscriptions that were bought twice."""
    doubled = {one.subject for one in verdict.concerns if one.code is ConcernCode.DUPLICATE}
    return sum(
        invoice.paid_cents
        if invoice.stripe_subscription_id in doubled
        else customer.refunded_cents.get(invoice.id, 0)
        for invoice in customer.invoices.values()
    )
