"""Opening Stripe's payment page. No transaction is open while Stripe is asked: it may be slow."""

from dataclasses import dataclass
from functools import partial
from uuid import UUID, uuid5

import sqlalchemy as sa
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import queries as accounts
from openclaw_web.accounts import service as account_service
from openclaw_web.accounts.models import Customer
from openclaw_web.billing import queries, records
from openclaw_web.billing import service as billing
from openclaw_web.billing.models import Checkout, CheckoutStatus, Tier
from openclaw_web.billing.tiers import plan_of
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import after_commit, session_scope
from openclaw_web.core.errors import ValidationError
from openclaw_web.integrations import payments, redis
from openclaw_web.integrations.payment_objects import CheckoutRequest, CheckoutSession

# A checkout's id is made from its key: repeated after a crash, the request is the same to Stripe.
CHECKOUT_IDS = UUID("6f0c9f0e-3f6b-4b0e-9d53-0d7f6a3f5a51")
TRIES = 6  # one closes a page of before, one opens the new one; other tabs may come between


class PaymentArrivedError(ValidationError):
    """The customer has paid a moment ago; a second payment would only be given back."""


@dataclass(frozen=True, kw_only=True)
class Sale:
    """What a customer wants to pay for; `success_url` may hold `{CHECKOUT_SESSION_ID}`."""

    customer_id: UUID
    tier: Tier
    onboarding_session_id: UUID | None
    success_url: str
    cancel_url: str


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What the database says before Stripe is asked."""

    customer: Customer
    open_page: Checkout | None
    key: str


async def start_checkout(sale: Sale) -> Checkout:
    """Return a payment page for this tier: the open one, or a new one instead of another tier's.

    Two clicks or two tabs end on the same page, because they ask Stripe with the same key; so does
    the next call after a crash. If the last page was paid a moment ago, that checkout comes back:
    its status is complete, its `url` the success page.

    Raises:
        AlreadySubscribedError: there is a subscription already.
        PaymentArrivedError: it is paid, and a sync, which is asked for, has yet to see it.
        ValidationError: the account is being deleted or held, or other tabs kept changing the page.
        VendorError: Stripe refused or did not answer.
    """
    try:
        for _ in range(TRIES):
            async with session_scope() as session:
                known = await _look(session, sale)
            if known.open_page is None:
                found = await _open_page(sale, known)
            else:
                found = await _follow_page(sale, known.open_page)
            if found is not None:
                return found
    except PaymentArrivedError:
        async with session_scope() as session:
            await billing.request_sync(session, sale.customer_id)
        raise
    raise ValidationError("Your payment page changes in another tab; try again in a moment.")


async def _look(session: AsyncSession, sale: Sale) -> _Known:
    await _refuse_second(session, sale)
    customer = await accounts.find_customer(session, sale.customer_id)
    if customer is None:
        raise ValidationError("This account is being deleted.")
    plan, buyer = plan_of(sale.tier), sale.onboarding_session_id or sale.customer_id
    # Stripe refuses a key whose request is another: a new price is another request.
    price = f"{plan.price_cents}{plan.currency}"
    start = f"checkout:{buyer}:{sale.tier.value}:{price}:"
    return _Known(
        customer=customer,
        open_page=await queries.find_open_checkout(session, sale.customer_id),
        key=f"{start}{await queries.count_checkouts(session, start)}",
    )


async def _follow_page(sale: Sale, page: Checkout) -> Checkout | None:
    """See what became of an open page, and close one that is not wanted; `None`: it is closed."""
    is_wanted = (page.tier, page.onboarding_session_id) == (sale.tier, sale.onboarding_session_id)
    ask = payments.retrieve_checkout_session if is_wanted else payments.expire_checkout_session
    page_id = page.stripe_session_id or ""
    found = await ask(page_id)
    async with session_scope() as session:
        row = await session.get_one(Checkout, page.id, with_for_update={"key_share": True})
        await records.note_checkout(session, row, found, now=await business_now(session))
        if row.status == CheckoutStatus.EXPIRED:
            return None
        if row.status == CheckoutStatus.COMPLETE:
            row.url = sale.success_url.replace("{CHECKOUT_SESSION_ID}", page_id)
            await billing.request_sync(session, sale.customer_id)
    return row


async def _open_page(sale: Sale, known: _Known) -> Checkout | None:
    """Open a page and keep its row; `None`: another tab was faster with something else."""
    checkout_id = uuid5(CHECKOUT_IDS, known.key)
    stripe_id = await _stripe_customer_of(known.customer)
    request = CheckoutRequest(
        stripe_customer_id=stripe_id,
        price_lookup_key=plan_of(sale.tier).lookup_key,
        checkout_id=str(checkout_id),
        success_url=sale.success_url,
        cancel_url=sale.cancel_url,
        metadata=_metadata(sale),
    )
    found = await payments.create_checkout_session(request, idempotency_key=known.key)
    async with session_scope() as session:
        await _lock(session, sale.customer_id)
        await _refuse_second(session, sale)
        row = await session.get(Checkout, checkout_id)
        if row is None and await queries.find_open_checkout(session, sale.customer_id) is None:
            row = await _keep(session, sale, found, checkout_id=checkout_id, key=known.key)
            owner = await session.get_one(Customer, sale.customer_id)
            await _note_stripe_customer(session, owner, known.customer, stripe_id)
    return None if row is None or row.status == CheckoutStatus.EXPIRED else row


async def _stripe_customer_of(customer: Customer) -> str:
    """Return who pays at Stripe: a new customer for whoever has none, or was deleted there."""
    known = customer.stripe_customer_id
    if known is not None and not await payments.is_customer_deleted(known):
        return known
    return (await payments.ensure_customer(customer.email, customer.id, instead_of=known)).id


async def _note_stripe_customer(
    session: AsyncSession, owner: Customer, before: Customer, stripe_id: str
) -> None:
    """Keep who pays at Stripe, unless another tab was faster; the audit keeps who paid before."""
    old = before.stripe_customer_id
    if stripe_id == owner.stripe_customer_id or owner.stripe_customer_id != old:
        return
    owner.stripe_customer_id = stripe_id
    if old is not None:
        await account_service.audit(
            session,
            action="customer.stripe_replaced",
            actor_type="system",
            actor_id="checkout",
            user_id=owner.id,
            diff={"stripe_customer_id": [old, stripe_id]},
        )


async def _keep(
    session: AsyncSession, sale: Sale, found: CheckoutSession, *, checkout_id: UUID, key: str
) -> Checkout:
    row = Checkout(
        id=checkout_id,
        customer_id=sale.customer_id,
        onboarding_session_id=sale.onboarding_session_id,
        tier=sale.tier,
        idempotency_key=key,
        stripe_session_id=found.id,
        url=found.url,
        expires_at=found.expires_at,
        created_at=await business_now(session),
    )
    session.add(row)
    await session.flush()
    after_commit(session, partial(redis.announce_change, sale.customer_id))
    return row


async def _refuse_second(session: AsyncSession, sale: Sale) -> None:
    if await queries.find_live_subscription(session, sale.customer_id):
        raise billing.AlreadySubscribedError(
            "You have a plan already; change it on the billing page."
        )
    now = await business_now(session)
    if await queries.has_unseen_payment(session, sale.customer_id, now):
        raise PaymentArrivedError("Your payment has arrived; give us a moment.")
    if await queries.open_holds(session, sale.customer_id):
        raise ValidationError(
            "Your account is on hold, so we take no payment from you now. Try again once we have "
            "looked into it."
        )


async def _lock(session: AsyncSession, customer_id: UUID) -> None:
    """Let only one transaction at a time write down a page of this customer's."""
    key = sa.func.hashtextextended(f"checkout:{customer_id}", 0)
    await session.scalar(sa.select(sa.func.pg_advisory_xact_lock(key)))


def _metadata(sale: Sale) -> dict[str, str]:
    metadata = {"customer_id": str(sale.customer_id), "tier": sale.tier.value}
    if sale.onboarding_session_id:
        metadata["onboarding_session_id"] = str(sale.onboarding_session_id)
    return metadata
