"""How the billing page says things: one plain sentence for each state of a plan."""

from datetime import datetime, timedelta

from openclaw_web.billing.changes import ChangePreview
from openclaw_web.billing.keeping import KEPT_AFTER_END
from openclaw_web.billing.models import Invoice, Subscription, SubscriptionStatus
from openclaw_web.billing.tiers import Plan, plan_of
from openclaw_web.boxes.fitting import Misfit
from openclaw_web.boxes.reloading import RESTART_TAKES
from openclaw_web.integrations.payment_changes import Card, Charge
from openclaw_web.ui import format as fmt

HELD = {
    "dispute": "Your bank questions a payment. Until that is decided your assistant is paused, and "
    "its memory is kept.",
    "refunding": "We are sending your money back. Your assistant is paused meanwhile.",
}
HELD_OTHERWISE = "We have paused your plan and are looking into it. Its memory is kept."
BADGES = {
    SubscriptionStatus.ACTIVE: ("Active", "good"),
    SubscriptionStatus.TRIALING: ("On trial", "good"),
    SubscriptionStatus.PAST_DUE: ("Payment overdue", "warning"),
    SubscriptionStatus.SUSPENDED: ("Suspended", "bad"),
    SubscriptionStatus.CANCELLED: ("Ended", "quiet"),
}
INVOICE_BADGES = {
    "paid": ("Paid", "good"),
    "open": ("Open", "warning"),
    "uncollectible": ("Not paid", "bad"),
}
UNPAID = frozenset({SubscriptionStatus.SUSPENDED, SubscriptionStatus.PAST_DUE})
CARD_ENDS_SOON = timedelta(days=30)


def badge(row: Subscription) -> tuple[str, str]:
    is_ending = row.cancel_at_period_end and row.status is not SubscriptionStatus.CANCELLED
    return ("Ending", "warning") if is_ending else BADGES[row.status]


def status(row: Subscription, *, holds: tuple[str, ...] = (), kept_until: datetime | None) -> str:
    """Return what is the matter with a plan, and until when."""
    if row.status is SubscriptionStatus.CANCELLED:
        return _ended(kept_until)
    if holds:
        return HELD.get(holds[0], HELD_OTHERWISE)
    if row.status in UNPAID:
        return _unpaid(row)
    return _running(row, plan_of(row.tier).name, fmt.day(row.current_period_end))


def next_charge(
    row: Subscription, charge: Charge | None, owed: Invoice | None = None
) -> tuple[str, str, str]:
    """Return a heading, an amount and when: what is owed, else the next charge.

    What Stripe says of it wins over the catalogue.
    """
    if owed is not None and row.status in UNPAID:
        since = fmt.day(owed.due_at or owed.finalized_at or row.current_period_start)
        amount = fmt.money(owed.due_cents - owed.paid_cents, owed.currency)
        return "To pay", amount, f"owed since {since}"
    return "Next charge", *_coming(row, charge)


def _coming(row: Subscription, charge: Charge | None) -> tuple[str, str]:
    if row.status is SubscriptionStatus.CANCELLED or row.cancel_at_period_end:
        return "None", "You are not charged again."
    if charge is not None:
        return fmt.money(charge.amount_cents, charge.currency), f"on {fmt.day(charge.at)}"
    plan = plan_of(row.pending_tier or row.tier)
    return fmt.money(plan.price_cents, plan.currency), f"on {fmt.day(row.current_period_end)}"


def card(found: Card | None, charge: Charge | None, now: datetime) -> tuple[str, str, str]:
    """Return the card, a note about it, and the colour of that note."""
    if found is None:
        return "No card", "Add one, so that the next charge goes through.", "warning-text"
    name = f"{found.brand.capitalize()} ending in {found.last4}"
    until = f"{found.exp_month:02d}/{found.exp_year}"
    if found.ends_at <= now:
        return name, f"It ended in {until}. Replace it before the next charge.", "bad-text"
    if charge is not None and found.ends_at <= charge.at:
        return (
            name,
            f"It ends in {until}, before the next charge. Replace it in time.",
            "warning-text",
        )
    if found.ends_at <= now + CARD_ENDS_SOON:
        return name, f"It ends in {until}, soon.", ""
    return name, f"Good until {until}.", ""


def preview_lines(shown: ChangePreview, now: datetime) -> list[dict[str, str]]:
    """Return what a change means, line by line."""
    starts = "Right away" if shown.takes_effect_at <= now else fmt.day(shown.takes_effect_at)
    due = fmt.money(shown.due_now_cents, shown.currency) if shown.due_now_cents else "Nothing"
    following = fmt.money(shown.next_charge_cents, shown.currency)
    return [
        {"name": "To pay now", "value": due},
        {"name": "Begins", "value": starts},
        {"name": "Tokens a month", "value": fmt.tokens(shown.tokens_limit)},
        {
            "name": "Next charge",
            "value": f"{following} on {fmt.day(shown.next_charge_at)}",
        },
    ]


def preview_note(shown: ChangePreview) -> str:
    if shown.is_upgrade:
        return (
            "A new month begins now, with all of its tokens. What is left of the month that you "
            "have paid for is taken off the price. Your assistant restarts once; that takes "
            f"{RESTART_TAKES}."
        )
    return (
        "Nothing changes before that day, and you can take it back until then. Your assistant "
        "restarts once on that day."
    )


def button(shown: ChangePreview) -> str:
    if not shown.is_upgrade:
        return f"Move on {fmt.day(shown.takes_effect_at)}"
    return f"Pay {fmt.money(shown.due_now_cents, shown.currency)} and upgrade"


def done(shown: ChangePreview) -> str:
    name = plan_of(shown.tier).name
    if shown.is_upgrade:
        return f"Paid. {name} is yours in a moment, with all of its tokens."
    return f"Noted. You move to {name} on {fmt.day(shown.takes_effect_at)}."


def gives(plan: Plan) -> tuple[str, ...]:
    people = "One person" if plan.telegram_users == 1 else f"Up to {plan.telegram_users} people"
    return (
        f"{fmt.tokens_short(plan.tokens_limit)} tokens a month",
        f"{people} on Telegram",
        f"{plan.storage.removesuffix('Gi')} GB of memory",
        f"{plan.parallel_requests} requests at the same time",
    )


def choices_note(row: Subscription, *, is_open: bool, is_kept: bool) -> str:
    """Return what the plans to choose from are for just now."""
    if row.status is SubscriptionStatus.CANCELLED:
        return (
            "Your assistant comes back with everything that it remembers."
            if is_kept
            else "A short chat sets up a new assistant."
        )
    if is_open:
        return (
            "A bigger plan begins at once, a smaller one with your next month. You see the price "
            "before you decide."
        )
    if row.cancel_at_period_end:
        return "Your plan is cancelled. Keep it first; then you can change it."
    return "You can change your plan again once this is settled."


def choice(
    plan: Plan, current: Plan, pending: Plan | None, *, is_live: bool, is_open: bool
) -> dict[str, str]:
    """Return one plan as a card; `kind` says what its button does, which has words only then."""
    kind = "start"
    if is_live:
        is_bigger = plan.price_cents > current.price_cents
        kind = "current" if plan is current else "upgrade" if is_bigger else "downgrade"
        kind = "pending" if plan is pending else kind
    words = {
        "start": f"Start again with {plan.name}",
        "upgrade": f"Upgrade to {plan.name}",
        "downgrade": f"Move to {plan.name}",
    }
    tokens, people, memory, *_ = gives(plan)
    return {
        "tier": plan.tier.value,
        "name": plan.name,
        "price": fmt.money(plan.price_cents, plan.currency),
        "tokens": tokens,
        "people": people,
        "memory": memory,
        "kind": kind,
        "button": words.get(kind, "") if is_open else "",
    }


def misfit_note(found: Misfit | None, plan: Plan) -> str:
    """Return what a smaller plan would leave out."""
    if found is None:
        return ""
    parts = []
    if found.people:
        ids = ", ".join(str(one) for one in found.people)
        who = "this Telegram user" if len(found.people) == 1 else "these Telegram users"
        parts.append(f"{plan.name} is for {_people(plan)}: {who} could not write any more: {ids}.")
    if found.model:
        parts.append(f"{plan.name} does not have the model {found.model}; the usual one answers.")
    return " ".join(parts)


def invoice(row: Invoice, *, is_payable: bool = True) -> dict[str, str]:
    """Return one invoice as a line; what an ended plan left open is shown, not asked for."""
    label, tone = INVOICE_BADGES.get(row.status, (row.status.capitalize(), "quiet"))
    if row.refunded_cents:
        is_whole = row.refunded_cents >= row.paid_cents
        label, tone = ("Refunded" if is_whole else "Partly refunded"), "quiet"
    moment = row.paid_at or row.finalized_at or row.period_start
    return {
        "id": row.stripe_invoice_id,
        "number": row.number or "",
        "day": fmt.day(moment) if moment else "",
        "amount": fmt.money(row.due_cents, row.currency),
        "status": label,
        "tone": tone,
        "url": row.hosted_url or "",
        "action": "Pay" if row.status == "open" and is_payable else "View",
    }


def _running(row: Subscription, name: str, ends: str) -> str:
    if row.cancel_at_period_end:
        return (
            f"Your plan ends on {ends}. Until then everything works; after it your assistant is "
            f"paused, and its memory is kept for {KEPT_AFTER_END.days} more days."
        )
    if row.pending_tier:
        return f"You are on {name} until {ends}, and on {plan_of(row.pending_tier).name} after it."
    if row.status is SubscriptionStatus.TRIALING:
        return f"Your trial runs until {fmt.day(row.trial_end or row.current_period_end)}."
    return f"Your plan renews on {ends}."


def _unpaid(row: Subscription) -> str:
    if row.status is SubscriptionStatus.SUSPENDED:
        return (
            "A payment is missing, so your assistant is paused. Its memory is kept; with the "
            "payment it goes on where it stopped."
        )
    grace = fmt.day(row.grace_until) if row.grace_until else "the last day"
    return (
        f"A payment is overdue. Your assistant works until {grace}; without the payment it is "
        "paused then, with its memory kept."
    )


def _ended(kept_until: datetime | None) -> str:
    if kept_until is None:
        return "Your plan has ended."
    return (
        f"Your plan has ended. Your assistant's memory is kept until {fmt.day(kept_until)}: choose "
        "a plan before then and it goes on where it stopped."
    )


def _people(plan: Plan) -> str:
    return "one person" if plan.telegram_users == 1 else f"{plan.telegram_users} people"
