"""What the billing page shows and does: the plan, its change and end, the card, the invoices.

The page is drawn from our own rows first; what only Stripe knows is asked for after that, and a
Stripe that does not answer leaves a sentence instead of a hole.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import reflex as rx
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import queries as accounts
from openclaw_web.accounts.state import AuthState
from openclaw_web.billing import changes, queries
from openclaw_web.billing import service as billing
from openclaw_web.billing.changes import REASONS, Asker, ChangePreview
from openclaw_web.billing.models import Invoice, Subscription, SubscriptionStatus, Tier
from openclaw_web.billing.tiers import plan_of, plans
from openclaw_web.boxes import queries as boxes
from openclaw_web.boxes.fitting import misfit
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.core.clock import business_now, real_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import NotFoundError, OpenClawError, ValidationError
from openclaw_web.core.settings import settings
from openclaw_web.dashboard.acting import NOBODY, by_of
from openclaw_web.dashboard.billing import at_stripe, sentences
from openclaw_web.dashboard.billing.at_stripe import AtStripe
from openclaw_web.dashboard.loading import Loaded
from openclaw_web.integrations.payment_changes import ConfirmationNeededError
from openclaw_web.ui import format as fmt
from openclaw_web.ui.navigation import leave_to
from openclaw_web.ui.showing import show

logger = logging.getLogger(__name__)

HERE = "/billing"
INVOICES_SHOWN = 24
ASK_AGAIN_AFTER = timedelta(minutes=1)
STRIPE_IS_AWAY = (
    "Stripe, which handles our payments, does not answer just now. This is what we know ourselves; "
    "the card and changes of your plan come back with it."
)
GONE = frozenset({BoxStatus.DESTROYING, BoxStatus.DESTROYED})


class BillingState(Loaded, AuthState):
    """Billing of the customer who is signed in."""

    has_plan: bool = False
    is_live: bool = False
    plan: str = ""
    price: str = ""
    gives: list[str] = []
    badge: str = ""
    tone: str = "quiet"
    sentence: str = ""
    is_overdue: bool = False
    is_ending: bool = False
    may_cancel: bool = False
    pending: str = ""
    pending_note: str = ""
    charge_heading: str = ""
    charge: str = ""
    charge_note: str = ""
    card: str = ""
    card_note: str = ""
    card_tone: str = ""
    stripe_note: str = ""
    confirm_address: str = ""
    plans: list[dict[str, str]] = []
    choices_note: str = ""
    invoices: list[dict[str, str]] = []
    # What is being asked before a change is made.
    working_on: str = ""
    is_asking: bool = False
    asked_title: str = ""
    asked_lines: list[dict[str, str]] = []
    asked_note: str = ""
    asked_warning: str = ""
    asked_button: str = ""
    is_leaving: bool = False
    problem: str = ""

    _preview: ChangePreview | None = None
    _at_stripe: AtStripe | None = None
    _asked_at: datetime | None = None
    _asked_of: str = ""
    _pay_address: str = ""

    @rx.event
    async def load(self) -> AsyncGenerator[None]:
        """Show our own rows at once, then what Stripe adds to them."""
        self._preview = None
        show(self, is_asking=False, is_leaving=False, working_on="", problem="")
        await self._note_return()
        await self._look()
        yield
        self._asked_at = None  # whoever comes back from Stripe has changed something there
        if await self._ask_stripe():
            await self._look()

    @rx.event
    async def refresh(self, _date: str = "") -> None:
        """Look again, as the page does every few seconds; Stripe is asked once a minute."""
        await self._look()
        if await self._ask_stripe():
            await self._look()

    @rx.event
    async def look_at(self, tier: str) -> AsyncGenerator[rx.event.EventSpec | None]:
        """Show what another plan means before it is chosen; a plan that has ended is paid anew."""
        show(self, working_on=tier if tier in set(Tier) else "", problem="")
        yield None
        try:
            wanted = _tier(tier)
            if self.is_live:
                await self._show_preview(wanted)
            else:
                yield leave_to(await self._start_again(wanted))
        except OpenClawError as error:
            show(self, problem=_told(error))
        show(self, working_on="")

    @rx.event
    async def confirm(self) -> AsyncGenerator[rx.event.EventSpec | None]:
        """Make the change that is being shown; a refusal stays on the screen."""
        chosen, self._preview = self._preview, None
        if chosen is None:
            return
        show(self, working_on=chosen.tier.value, problem="")
        yield None
        try:
            await self._act(changes.change_plan, chosen.tier, proration_date=chosen.proration_date)
        except ConfirmationNeededError as error:
            yield leave_to(error.address)
        except OpenClawError as error:
            show(self, problem=_told(error), working_on="")
            return
        else:
            yield rx.toast(sentences.done(chosen))
        await self._close()

    @rx.event
    async def stop_asking(self, is_open: bool = False) -> None:
        """Close the question; the dialog calls this with whether it is open."""
        if is_open is not True:
            await self._close()

    @rx.event
    async def undo_change(self) -> rx.event.EventSpec:
        return await self._do(changes.undo_change, "You stay on your plan.")

    @rx.event
    async def ask_to_leave(self, is_open: bool = True) -> None:
        """Open or close the question why somebody leaves."""
        show(self, is_leaving=is_open is True, problem="")

    @rx.event
    async def cancel(self, form: dict[str, Any]) -> rx.event.EventSpec | None:
        """End the plan with the period that is paid, for the reason that was chosen."""
        reason, comment = (_text(form, name) for name in ("reason", "comment"))
        known = next((one for one in REASONS if one == reason), None)
        if known is None:
            show(self, problem="Choose one of the reasons from the list.")
            return None
        show(self, is_leaving=False)
        done = "Your plan is cancelled. You can take that back until its last day."
        return await self._do(changes.cancel, done, reason=known, comment=comment)

    @rx.event
    async def undo_cancel(self) -> rx.event.EventSpec:
        return await self._do(changes.undo_cancel, "Good that you stay. Your plan goes on.")

    @rx.event
    async def fix_payment(self) -> rx.event.EventSpec:
        """Go to the oldest open invoice, which takes another card, else to Stripe's portal."""
        await self._look()
        return leave_to(self._pay_address) if self._pay_address else await self._portal()

    @rx.event
    async def open_portal(self) -> rx.event.EventSpec:
        """Go to Stripe's page for the card and the invoices."""
        return await self._portal()

    async def _portal(self) -> rx.event.EventSpec:
        try:
            principal = await by_of(self)
            async with session_scope() as session:
                customer = await accounts.find_customer(session, principal.customer_id)
            if customer is None:
                raise NotFoundError(NOBODY)
            back = f"{settings().public_url}{HERE}"
            return leave_to(await billing.portal_url(customer, return_url=back))
        except OpenClawError as error:
            return rx.toast.error(_told(error))

    async def _show_preview(self, tier: Tier) -> None:
        """Work a change out and ask whether it is wanted."""
        principal = await by_of(self)
        shown = await changes.preview_change(principal.customer_id, tier)
        async with session_scope() as session:
            box = await _box(session, principal.customer_id)
            now = await business_now(session)
        plan = plan_of(tier)
        found = misfit(box, plan) if box and not shown.is_upgrade else None
        self._preview = shown
        show(
            self,
            is_asking=True,
            asked_title=f"{'Upgrade' if shown.is_upgrade else 'Move'} to {plan.name}?",
            asked_lines=sentences.preview_lines(shown, now),
            asked_note=sentences.preview_note(shown),
            asked_warning=sentences.misfit_note(found, plan),
            asked_button=sentences.button(shown),
        )

    async def _start_again(self, tier: Tier) -> str:
        principal = await by_of(self)
        async with session_scope() as session:
            is_kept = await _box(session, principal.customer_id) is not None
        if not is_kept:
            return f"/start?tier={tier.value}"
        return await changes.start_again(principal.customer_id, tier)

    async def _do(
        self, act: Callable[..., Awaitable[None]], done: str, **named: Any
    ) -> rx.event.EventSpec:
        """Do something that needs no preview, and say how it went."""
        try:
            await self._act(act, **named)
        except OpenClawError as error:
            return rx.toast.error(_told(error))
        self._asked_at = None
        await self._look()
        return rx.toast(done)

    async def _act(self, act: Callable[..., Awaitable[None]], *what: Any, **named: Any) -> None:
        """Do something for whoever is signed in now."""
        principal = await by_of(self)
        asker = Asker(ip=self.router.session.client_ip, user_agent=self.router.headers.user_agent)
        await act(principal.customer_id, *what, asker=asker, **named)

    async def _close(self) -> None:
        self._preview, self._asked_at = None, None
        show(self, is_asking=False, working_on="", problem="")
        await self._look()

    async def _note_return(self) -> None:
        """Have Stripe looked at when somebody comes back from its payment page."""
        page_id = str(self.router.url.query_parameters.get("checkout", ""))[:200]
        principal = await self.principal()
        if page_id and principal is not None:
            async with session_scope() as session:
                await billing.note_checkout_return(
                    session, customer_id=principal.customer_id, stripe_session_id=page_id
                )

    async def _show(self, session: AsyncSession, customer_id: UUID) -> None:
        now = await business_now(session)
        row = await queries.find_subscription(session, customer_id)
        found = await queries.invoices_of_customer(session, customer_id, limit=INVOICES_SHOWN)
        payable = {one.stripe_invoice_id for one in found if _is_payable(one, row)}
        owed = next((one for one in reversed(found) if one.stripe_invoice_id in payable), None)
        self._pay_address = (owed.hosted_url or "") if owed else ""
        show(
            self,
            has_plan=row is not None,
            invoices=[
                sentences.invoice(one, is_payable=one.stripe_invoice_id in payable) for one in found
            ],
        )
        if row is None:
            return
        box = await _box(session, customer_id)
        holds = await queries.open_holds(session, customer_id)
        self._show_plan(row, box, tuple(str(hold.kind) for hold in holds))
        self._show_payment(row, owed, now)

    def _show_plan(self, row: Subscription, box: Box | None, holds: tuple[str, ...]) -> None:
        plan = plan_of(row.tier)
        label, tone = sentences.badge(row)
        is_live = row.status is not SubscriptionStatus.CANCELLED
        kept_until = box.delete_after if box else None
        pending = plan_of(row.pending_tier) if row.pending_tier and is_live else None
        is_open = not is_live or (
            row.status is SubscriptionStatus.ACTIVE and not row.cancel_at_period_end
        )
        show(
            self,
            is_live=is_live,
            plan=plan.name,
            price=f"{fmt.money(plan.price_cents, plan.currency)} a month",
            gives=list(sentences.gives(plan)),
            badge=label,
            tone=tone,
            sentence=sentences.status(row, holds=holds, kept_until=kept_until),
            is_overdue=row.status in sentences.UNPAID and not holds,
            is_ending=is_live and row.cancel_at_period_end,
            may_cancel=is_live and not row.cancel_at_period_end,
            pending=pending.name if pending else "",
            pending_note=sentences.misfit_note(misfit(box, pending), pending)
            if box and pending
            else "",
            choices_note=sentences.choices_note(row, is_open=is_open, is_kept=box is not None),
            plans=[
                sentences.choice(one, plan, pending, is_live=is_live, is_open=is_open)
                for one in plans()
            ],
        )

    def _show_payment(self, row: Subscription, owed: Invoice | None, now: datetime) -> None:
        """Show what is owed or charged next, and the card, as far as Stripe told it lately."""
        told = self._at_stripe if self._asked_of == row.stripe_subscription_id else None
        charge = told.charge if told else None
        heading, amount, when = sentences.next_charge(row, charge, owed)
        card, note, tone = "", "", ""
        if told is not None and row.status is not SubscriptionStatus.CANCELLED:
            card, note, tone = sentences.card(told.payer.card, charge, now)
        show(
            self,
            charge_heading=heading,
            charge=amount,
            charge_note=when,
            card=card,
            card_note=note,
            card_tone=tone,
            confirm_address=(told.payer.confirmation_address or "") if told else "",
        )

    async def _ask_stripe(self) -> bool:
        """Ask for what only Stripe knows, unless it was asked lately; say whether it was."""
        principal = await self.principal()
        if principal is None:
            return False
        async with session_scope() as session:
            row = await queries.find_live_subscription(session, principal.customer_id)
        stripe_id = (row.stripe_subscription_id or "") if row else ""
        is_fresh = self._asked_at is not None and real_now() - self._asked_at < ASK_AGAIN_AFTER
        if not stripe_id or (is_fresh and self._asked_of == stripe_id):
            return False
        self._asked_at, self._asked_of = real_now(), stripe_id
        found = await at_stripe.look(stripe_id)
        self._at_stripe = found or self._at_stripe
        show(self, stripe_note="" if found else STRIPE_IS_AWAY)
        return True


async def _box(session: AsyncSession, customer_id: UUID) -> Box | None:
    box = await boxes.find_box_of_customer(session, customer_id)
    return None if box is None or box.status in GONE else box


def _is_payable(invoice: Invoice, row: Subscription | None) -> bool:
    """Say whether paying an open invoice still brings something: its plan has not ended."""
    if invoice.status != "open" or row is None or row.status is SubscriptionStatus.CANCELLED:
        return False
    return invoice.subscription_id in {None, row.id}


def _told(error: OpenClawError) -> str:
    """Return what the customer reads: ours as it is, a vendor's only that it did not work."""
    if isinstance(error, ValidationError | NotFoundError):
        return str(error)
    logger.warning("Stripe failed on the billing page: %s", error)
    return (
        "Stripe, which handles our payments, did not take this just now. Try again in a moment; "
        "nothing is charged twice."
    )


def _tier(text: Any) -> Tier:
    try:
        return Tier(text)
    except ValueError as error:
        raise ValidationError("There is no such plan.") from error


def _text(form: Any, name: str) -> str:
    value = form.get(name) if isinstance(form, dict) else None
    return value.replace("\x00", "") if isinstance(value, str) else ""
