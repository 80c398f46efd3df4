"""A Stripe of a few lines for the tests of histories: one customer, whose whole truth it knows."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from openclaw_web.billing.models import Tier
from openclaw_web.billing.tiers import plan_of
from openclaw_web.integrations.payment_objects import StripeInvoice, StripeSubscription

START = datetime(2027, 1, 10, 9, tzinfo=UTC)
MONTH = timedelta(days=30)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
GIVES_UP_AFTER = timedelta(days=21)
LIVE = frozenset({"active", "past_due", "unpaid"})
UPWARDS = {Tier.STARTER: Tier.PRO, Tier.PRO: Tier.TEAM}
DOWNWARDS = {Tier.TEAM: Tier.PRO, Tier.PRO: Tier.STARTER}


@dataclass
class StripeModel:
    """What happens at Stripe; each happening that changes something leaves events to deliver."""

    customer: str
    checkout_id: str = ""
    now: datetime = START
    subscriptions: list[StripeSubscription] = field(default_factory=list)
    invoices: list[StripeInvoice] = field(default_factory=list)
    is_card_good: bool = True
    is_deleted: bool = False
    events: list[str] = field(default_factory=list)

    @property
    def live(self) -> StripeSubscription | None:
        return next((one for one in self.subscriptions if one.status in LIVE), None)

    def do(self, happening: str) -> None:
        getattr(self, happening)()

    def buy(self, tier: Tier = Tier.PRO) -> None:
        if self.live or self.is_deleted:
            return
        self.is_card_good = True
        number = len(self.subscriptions) + 1
        made = StripeSubscription(
            id=f"sub_{self.customer}_{number}",
            stripe_customer_id=self.customer,
            status="active",
            price_id="",
            price_lookup_key="",
            price_tier="",
            period_start=self.now,
            period_end=self.now + MONTH,
            cancel_at_period_end=False,
            trial_end=None,
            created=self.now,
            metadata={"checkout_id": self.checkout_id} if number == 1 else {},
        )
        self.subscriptions.append(_priced(made, tier))
        self._bill(self.subscriptions[-1], "subscription_create")
        self._tell("checkout.session.completed", "customer.subscription.created", "invoice.paid")

    def upgrade(self) -> None:
        one = self.live
        if one is None or one.status != "active" or self._tier(one) not in UPWARDS:
            return
        bigger = _priced(one, UPWARDS[self._tier(one)])
        bigger = replace(bigger, period_start=self.now, period_end=self.now + MONTH)
        self._put(bigger)
        self._bill(bigger, "subscription_update")
        self._tell("customer.subscription.updated", "invoice.paid")

    def downgrade(self) -> None:
        one = self.live
        if one is not None and self._tier(one) in DOWNWARDS:
            self._put(_priced(one, DOWNWARDS[self._tier(one)]))
            self._tell("customer.subscription.updated")

    def undo_downgrade(self) -> None:
        one = self.live
        if one is not None:
            billing = max(
                (each for each in self.invoices if each.stripe_subscription_id == one.id),
                key=lambda each: each.created,
            )
            self._put(_priced(one, _tier_of(billing)))
            self._tell("customer.subscription.updated")

    def cancel(self) -> None:
        self._flag(cancel=True)

    def undo_cancel(self) -> None:
        self._flag(cancel=False)

    def end(self) -> None:
        if (one := self.live) is not None:
            self._end(one)

    def break_card(self) -> None:
        self.is_card_good = False

    def replace_card(self) -> None:
        """Everything that is open is paid with the new card, and the subscription runs again."""
        self.is_card_good = True
        if (one := self.live) is None:
            return
        for invoice in [each for each in self.invoices if each.status == "open"]:
            if invoice.stripe_subscription_id == one.id:
                self._put_invoice(_paid(invoice, self.now))
                self._tell("invoice.paid")
        self._put(replace(one, status="active"))
        self._tell("payment_method.attached", "customer.subscription.updated")

    def refund(self) -> None:
        """Money goes back; what it paid for is kept until the period ends."""
        if any(each.status == "paid" for each in self.invoices):
            self._tell("charge.refunded")

    def delete_customer(self) -> None:
        if (one := self.live) is not None:
            self._end(one)
        self.is_deleted = True
        self._tell("customer.deleted")

    def pass_a_day(self) -> None:
        self._pass(DAY)

    def pass_a_week(self) -> None:
        self._pass(timedelta(days=8))

    def pass_a_month(self) -> None:
        self._pass(MONTH + 2 * HOUR)

    def _pass(self, span: timedelta) -> None:
        """Let time go by; what it brings comes in its order."""
        until = self.now + span
        while (due := self._next_due()) is not None and due[0] <= until:
            self.now = max(self.now, due[0])
            due[1]()
        self.now = until

    def _next_due(self) -> tuple[datetime, Callable[[], None]] | None:
        one = self.live
        if one is None:
            return None
        mine = [each for each in self.invoices if each.stripe_subscription_id == one.id]
        due: list[tuple[datetime, Callable[[], None]]] = [
            (each.created + HOUR, lambda each=each: self._charge(one, each))
            for each in mine
            if each.status == "draft"
        ]
        failing = [each.created for each in mine if each.status == "open"]
        if failing:
            due.append((min(failing) + GIVES_UP_AFTER, lambda: self._end(one)))
        due.append((one.period_end, lambda: self._turn(one)))
        return min(due, key=lambda pair: pair[0])

    def _turn(self, one: StripeSubscription) -> None:
        if one.cancel_at_period_end:
            self._end(one)
            return
        turned = replace(one, period_start=one.period_end, period_end=one.period_end + MONTH)
        self._put(turned)
        self._bill(turned, "subscription_cycle", status="draft")
        self._tell("customer.subscription.updated")

    def _charge(self, one: StripeSubscription, invoice: StripeInvoice) -> None:
        finalised = replace(invoice, finalized_at=self.now, due_at=self.now)
        if self.is_card_good:
            self._put_invoice(_paid(finalised, self.now))
            self._tell("invoice.paid")
            return
        self._put_invoice(replace(finalised, status="open"))
        self._put(replace(one, status="past_due"))
        self._tell("invoice.payment_failed", "customer.subscription.updated")

    def _end(self, one: StripeSubscription) -> None:
        self._put(replace(one, status="canceled", ended_at=self.now))
        self._tell("customer.subscription.deleted")

    def _flag(self, *, cancel: bool) -> None:
        if (one := self.live) is not None:
            self._put(replace(one, cancel_at_period_end=cancel))
            self._tell("customer.subscription.updated")

    def _bill(self, one: StripeSubscription, reason: str, *, status: str = "paid") -> None:
        cents = plan_of(self._tier(one)).price_cents
        is_draft = status == "draft"
        self.invoices.append(
            StripeInvoice(
                id=f"in_{self.customer}_{len(self.invoices) + 1}",
                status=status,
                currency="usd",
                due_cents=cents,
                paid_cents=0 if is_draft else cents,
                remaining_cents=cents if is_draft else 0,
                created=self.now,
                stripe_subscription_id=one.id,
                period_start=one.period_start,
                period_end=one.period_end,
                finalized_at=None if is_draft else self.now,
                due_at=None if is_draft else self.now,
                paid_at=None if is_draft else self.now,
                billing_reason=reason,
                price_id=one.price_id,
                price_cents=cents,
            )
        )
        self._put(replace(one, latest_invoice_id=self.invoices[-1].id))

    def _tier(self, one: StripeSubscription) -> Tier:
        return Tier(one.price_tier or "")

    def _put(self, changed: StripeSubscription) -> None:
        self.subscriptions = [
            changed if one.id == changed.id else one for one in self.subscriptions
        ]

    def _put_invoice(self, changed: StripeInvoice) -> None:
        self.invoices = [changed if one.id == changed.id else one for one in self.invoices]

    def _tell(self, *types: str) -> None:
        self.events.extend(types)


HAPPENINGS = (
    "buy", "upgrade", "downgrade", "undo_downgrade", "cancel", "undo_cancel", "break_card",
    "replace_card", "refund", "pass_a_day", "pass_a_week", "pass_a_month",
)  # fmt: skip


def _priced(one: StripeSubscription, tier: Tier) -> StripeSubscription:
    key = plan_of(tier).lookup_key
    return replace(one, price_id=f"price_{tier}", price_lookup_key=key, price_tier=tier.value)


def _tier_of(invoice: StripeInvoice) -> Tier:
    return next(tier for tier in Tier if invoice.price_id == f"price_{tier}")


def _paid(invoice: StripeInvoice, now: datetime) -> StripeInvoice:
    return replace(
        invoice, status="paid", paid_cents=invoice.due_cents, remaining_cents=0, paid_at=now
    )
