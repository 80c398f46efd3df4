"""A subscription's life: started, paid, renewed, refused, ended."""

from collections.abc import Iterator

from simulators.stripe import discounts, events, invoicing, shapes, starting
from simulators.stripe.cards import Presence
from simulators.stripe.clock import DAY, HOUR
from simulators.stripe.errors import StripeError, invalid
from simulators.stripe.lines import billed_by, for_period
from simulators.stripe.shapes import items_of
from simulators.stripe.starting import Start
from simulators.stripe.store import Json
from simulators.stripe.world import World

INCOMPLETE_SECONDS = 23 * HOUR  # how long Stripe waits for a first payment or a pending update
TRIAL_WARNING_SECONDS = 3 * DAY
AFTER_LAST_RETRY = "after_last_retry"  # the account's choice: cancel, unpaid or past_due
ENDED = frozenset({"canceled", "incomplete_expired"})
UPDATED = "customer.subscription.updated"
TRIAL_WILL_END = "customer.subscription.trial_will_end"


def start(world: World, wish: Start) -> tuple[Json, StripeError | None]:
    """Make the subscription and try to have its first invoice paid; return why that failed."""
    subscription, lines = starting.prepare(world, wish)
    _settle_on_currency(world, wish.customer, subscription["currency"])
    subscription["discounts"] = discounts.give(
        world,
        wish.discounts,
        customer=wish.customer["id"],
        subscription=subscription["id"],
        session=wish.session,
    )
    events.created(world, "customer.subscription.created", subscription)
    _warn_of_short_trial(world, subscription)
    bill = invoicing.bill(world, subscription, lines, "subscription_create")
    invoice = invoicing.draft(world, bill)
    subscription |= {"_billed": billed_by(invoice), "latest_invoice": invoice["id"]}
    world.store.put(subscription)
    invoice = invoicing.finalize(world, invoice)
    refusal, method = None, wish.method or method_of(world, subscription)
    if wish.behavior != "default_incomplete":
        invoice, refusal = invoicing.collect(world, invoice, method, wish.presence)
    return settle(world, invoice, refusal, method), refusal


def settle(
    world: World, invoice: Json, refusal: StripeError | None, method: Json | None = None
) -> Json:
    """Bring the subscription in line with what just happened to one of its invoices."""
    before = world.store.get(invoicing.subscription_of(invoice)) or {}
    if before["status"] in ENDED:
        return before
    is_latest = before["latest_invoice"] == invoice["id"]
    is_paid = invoice["status"] == "paid"
    if is_latest and (is_paid or refusal):
        _mark_delinquent(world, before["customer"], is_delinquent=not is_paid)
    pending = before.get("_pending")
    if pending and pending["invoice"] == invoice["id"]:
        return _apply_pending(world, before) if is_paid else before
    after = dict(before)
    if is_latest and is_paid:
        after["status"] = status_when_paid(world, before)
        _keep_method(after, method)
    elif is_latest and refusal and before["status"] == "active":
        after["status"] = "past_due"
    return events.changed(world, UPDATED, before, after)


def status_when_paid(world: World, subscription: Json) -> str:
    is_in_trial = subscription["trial_end"] is not None and subscription["trial_end"] > world.now()
    return "trialing" if is_in_trial else "active"


def turn(world: World, subscription: Json) -> Json:
    """Begin the next period: new dates now, its invoice as a draft, or the end if so decided."""
    is_trial_over = subscription["status"] == "trialing"
    if is_trial_over and method_of(world, subscription) is None:
        choice = subscription["trial_settings"]["end_behavior"]["missing_payment_method"]
        if choice == "cancel":
            return end(world, subscription, reason=None)
        if choice == "pause":
            return _pause(world, subscription)
    began, now = shapes.period_of(subscription)
    price = items_of(subscription)[0]["price"]
    after = shapes.with_period(subscription, now, shapes.next_end(subscription, price, now))
    after.pop("_share", None)
    given = discounts.in_force(world, subscription["discounts"], now)
    after["discounts"] = [one["id"] for one in given]
    if is_trial_over:
        after["status"] = "active"
    bill = invoicing.Bill(
        subscription=after,
        lines=period_lines(world, after),
        reason="subscription_cycle",
        period=(began, now),
        at=now,
        discounts=list(after["discounts"]),
    )
    is_unpaid = subscription["status"] == "unpaid"
    finalizes_at = None if is_unpaid else now + invoicing.DRAFT_SECONDS
    invoice = invoicing.draft(world, bill, finalizes_at)
    after |= {"latest_invoice": invoice["id"], "_billed": billed_by(invoice)}
    return events.changed(world, UPDATED, subscription, after)


def period_lines(world: World, subscription: Json) -> list:
    """Return the lines that a whole period costs, the one that the subscription is in."""
    start_at, end_at = shapes.period_of(subscription)
    return [
        for_period(item, shapes.product_name(world, item), start_at, end_at)
        for item in items_of(subscription)
    ]


def advance_invoice(world: World, invoice: Json) -> None:
    """Do what time does to an invoice: finalise a draft, try to collect an open one."""
    subscription = world.store.get(invoicing.subscription_of(invoice)) or {}
    if invoice["status"] == "draft":
        paused = subscription["pause_collection"]
        if paused:
            _hold_back(world, invoice, paused["behavior"])
            return
        invoice = invoicing.finalize(world, invoice)
    method = method_of(world, subscription, invoice)
    invoice, refusal = invoicing.collect(world, invoice, method, Presence.OFF)
    settle(world, invoice, refusal, method)
    if refusal:
        retry_later(world, invoice)


def retry_later(world: World, invoice: Json) -> None:
    """Plan the next try; after the last one the account's setting decides."""
    _, is_last = invoicing.schedule_retry(world, invoice)
    subscription = world.store.get(invoicing.subscription_of(invoice)) or {}
    if not is_last or subscription["status"] != "past_due":
        return
    choice = world.store.setting(AFTER_LAST_RETRY, "cancel")
    if choice == "cancel":
        end(world, subscription, reason="payment_failed")
    elif choice == "unpaid":
        events.changed(world, UPDATED, subscription, {**subscription, "status": "unpaid"})


def expire(world: World, subscription: Json) -> None:
    """Give up on a first payment or a pending update that did not come within 23 hours."""
    if subscription["status"] == "incomplete":
        gone = {**subscription, "status": "incomplete_expired", "ended_at": world.now()}
        events.changed(world, UPDATED, subscription, gone)
        invoice = world.store.get(subscription["latest_invoice"]) or {}
    else:
        invoice = world.store.get(subscription["_pending"]["invoice"]) or {}
        after = {**subscription, "pending_update": None}
        del after["_pending"]
        world.store.put(after)
        events.record(world, "customer.subscription.pending_update_expired", after)
    if invoice["status"] == "open":
        invoicing.void(world, invoice)


def warn_of_trial_end(world: World, subscription: Json) -> None:
    world.store.put({**subscription, "_is_warned": True})
    events.record(world, TRIAL_WILL_END, subscription)


def end(
    world: World,
    subscription: Json,
    *,
    reason: str | None = "cancellation_requested",
    details: Json | None = None,
) -> Json:
    """End it now. Open invoices stay open, but nobody collects them any more."""
    is_first_unpaid = subscription["status"] == "incomplete"
    ended = {
        **subscription,
        "status": "incomplete_expired" if is_first_unpaid else "canceled",
        "canceled_at": subscription["canceled_at"] or world.now(),
        "ended_at": world.now(),
        "cancellation_details": {
            **subscription["cancellation_details"],
            **(details or {}),
            "reason": reason,
        },
    }
    world.store.put(ended)
    for invoice in list(invoicing.of_subscription(world, subscription)):
        if is_first_unpaid and invoice["status"] == "open":
            invoicing.void(world, invoice)
        elif invoice["status"] in {"draft", "open"}:
            invoicing.stop(world, invoice)
    discounts.take_away(world, subscription["discounts"])
    events.record(world, "customer.subscription.deleted", ended)
    return ended


def of_customer(world: World, customer: str) -> Iterator[Json]:
    """Walk a customer's subscriptions that have not ended, newest first."""
    for one in world.store.every("subscription", customer):
        if one["status"] not in ENDED:
            yield one


def method_of(world: World, subscription: Json, invoice: Json | None = None) -> Json | None:
    """Return the card that an invoice of the subscription is taken from."""
    customer = world.store.get(subscription["customer"]) or {}
    settings = customer.get("invoice_settings") or {}
    chosen = (
        (invoice or {}).get("default_payment_method")
        or subscription["default_payment_method"]
        or settings.get("default_payment_method")
    )
    return world.store.get(chosen) if chosen else None


def _warn_of_short_trial(world: World, subscription: Json) -> None:
    """Warn at once of a trial that is over before the usual warning would come."""
    trial_end = subscription["trial_end"]
    if trial_end and trial_end - world.now() <= TRIAL_WARNING_SECONDS:
        subscription["_is_warned"] = True
        events.record(world, TRIAL_WILL_END, subscription)


def _settle_on_currency(world: World, customer: Json, currency: str) -> None:
    known = world.store.get(customer["id"]) or customer
    if known["currency"] not in {None, currency}:
        raise invalid(
            "You cannot combine currencies on a single customer. This customer has an active"
            f" subscription or balance with currency {known['currency']}.",
            "currency",
        )
    events.changed(world, "customer.updated", known, {**known, "currency": currency})


def _hold_back(world: World, invoice: Json, behavior: str) -> None:
    """Do with a draft what a pause of the collection wants."""
    if behavior == "keep_as_draft":
        invoicing.stop(world, invoice)
        return
    opened = invoicing.finalize(world, invoice)
    if opened["status"] == "open":
        (invoicing.void if behavior == "void" else invoicing.write_off)(world, opened)


def _pause(world: World, subscription: Json) -> Json:
    """Stop a subscription whose trial ended without a card, until it is resumed."""
    paused = {
        **subscription,
        "status": "paused",
        "status_details": {
            "paused": {
                "subscription": {"type": "trial_end_without_payment_method"},
                "transitioned_at": world.now(),
                "type": "subscription",
            }
        },
    }
    events.changed(world, UPDATED, subscription, paused)
    events.record(world, "customer.subscription.paused", paused)
    return paused


def _keep_method(subscription: Json, method: Json | None) -> None:
    """Remember the card that paid, where the subscription was made with that wish."""
    wish = subscription["payment_settings"]["save_default_payment_method"]
    if method and wish == "on_subscription" and not subscription["default_payment_method"]:
        subscription["default_payment_method"] = method["id"]


def _apply_pending(world: World, before: Json) -> Json:
    after = {**before, **before["_pending"]["after"], "pending_update": None}
    del after["_pending"]
    events.changed(world, UPDATED, before, after)
    events.record(world, "customer.subscription.pending_update_applied", after)
    return after


def _mark_delinquent(world: World, identifier: str, *, is_delinquent: bool) -> None:
    customer = world.store.get(identifier) or {}
    if not customer.get("deleted"):
        after = {**customer, "delinquent": is_delinquent}
        events.changed(world, "customer.updated", customer, after)
