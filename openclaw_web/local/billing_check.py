"""`admin invariants`, the part about money: our own tables, and our copy beside Stripe's books."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web import tables
from openclaw_web.accounts import service as accounts
from openclaw_web.billing import invariants, revenue, sabotage
from openclaw_web.billing.invariants import Finding
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import close_database, engine, open_database, session_scope
from openclaw_web.core.errors import NotFoundError, VendorError
from openclaw_web.core.settings import Settings
from openclaw_web.integrations import payment_books, payment_client


@dataclass
class Verdict:
    """What a check of the money came to; `not_compared` says why Stripe's books were not read."""

    findings: list[Finding] = field(default_factory=list)
    not_compared: str = ""

    @property
    def is_green(self) -> bool:
        return not self.findings


async def check(chosen: Settings, *, email: str = "") -> Verdict:
    """Ask every question, and compare with Stripe; with an address only what is about them.

    Raises:
        NotFoundError: nobody has this address.
    """
    async with _database(chosen):
        async with session_scope() as session:
            verdict = Verdict(await invariants.check(session, await business_now(session)))
            if email:
                customer = await accounts.find_customer_by_email(session, email)
                if customer is None:
                    raise NotFoundError(f"Nobody is known as {email}.")
                verdict.findings = [
                    one for one in verdict.findings if one.customer_id == customer.id
                ]
                return verdict
        if chosen.stripe_secret_key:
            await _compare(verdict)
        else:
            verdict.not_compared = "STRIPE_SECRET_KEY is not set, so Stripe was not asked."
    return verdict


async def check_sabotaged(chosen: Settings, name: str) -> Verdict:
    """Break one invariant of somebody made up, in tables that vanish, and check.

    Raises:
        NotFoundError: nobody knows this sabotage.
        OpenClawError: the check was red before anything was broken.
    """
    async with _database(chosen), AsyncSession(engine()) as session:
        try:
            return Verdict(await sabotage.check_broken(session, name))
        finally:
            await session.rollback()


async def _compare(verdict: Verdict) -> None:
    """Compare with Stripe's books; our copy is read last, as a sync may come between."""
    try:
        theirs = await payment_books.paid_invoices()
        running = await payment_books.running_subscriptions()
    except VendorError as error:
        verdict.not_compared = f"Stripe's books were not read: {error}"
        return
    finally:
        await payment_client.close_payments()
    async with session_scope() as session:
        ours = await revenue.booked_here(session)
    verdict.findings += invariants.judge_books(ours, theirs)
    verdict.findings += invariants.judge_running(running)


@asynccontextmanager
async def _database(chosen: Settings) -> AsyncGenerator[None]:
    tables.resolve()
    open_database(chosen.database_url)
    try:
        yield
    finally:
        await close_database()
