"""What an operator does by hand from a shell."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import service as accounts
from openclaw_web.billing import service as billing
from openclaw_web.boxes import queries as boxes
from openclaw_web.boxes.memory import drills
from openclaw_web.core.database import close_database, open_database, session_scope
from openclaw_web.core.errors import NotFoundError
from openclaw_web.core.settings import Settings
from openclaw_web.integrations import payment_client
from openclaw_web.integrations.redis import close_redis, open_redis
from openclaw_web.local import keys
from openclaw_web.metering import service as metering
from openclaw_web.metering.models import TokenKind
from openclaw_web.workflows import rotating

OPERATORS_LABEL = "Made by our support"  # the customer sees it among their keys, and may revoke it


async def create_admin(chosen: Settings, email: str) -> str:
    """Make an admin and return the password."""
    password = keys.password()
    async with _one_act(chosen) as session:
        await accounts.create_admin(session, email, password)
    return password


async def issue_token(
    chosen: Settings, email: str, *, kind: str = TokenKind.BOX, is_unthrottled: bool = False
) -> str:
    """Make a proxy token for a customer's box and return it in clear; it is written down.

    Raises:
        NotFoundError: nobody has this address, or the customer has no box.
    """
    async with _one_act(chosen) as session:
        customer = await accounts.find_customer_by_email(session, email)
        if customer is None:
            raise NotFoundError(f"Nobody is known as {email}.")
        box = await boxes.find_box_of_customer(session, customer.id)
        if box is None:
            raise NotFoundError(f"{email} has no box yet.")
        issued = await metering.issue_token(
            session,
            customer_id=customer.id,
            box_id=box.id,
            kind=TokenKind(kind),
            is_unthrottled=is_unthrottled,
            label=OPERATORS_LABEL if kind == TokenKind.API else None,
        )
        await accounts.audit(
            session,
            action="token.issued",
            actor_type="operator",
            user_id=customer.id,
            resource_type="proxy_token",
            resource_id=str(issued.token_id),
            diff={"kind": str(kind), "is_unthrottled": is_unthrottled},
        )
    return issued.clear


async def publish_catalogue() -> dict[str, str]:
    """Have Stripe know every tier, and return its price ids by our names for them.

    Raises:
        VendorError: Stripe refused or did not answer.
    """
    try:
        return await billing.publish_catalogue()
    finally:
        await payment_client.close_payments()


async def fill_demo(chosen: Settings, *, customers: int, days: int) -> None:
    """Add made-up customers with history."""
    from openclaw_web.admin import demo  # noqa: PLC0415 - only this command needs it

    async with _one_act(chosen) as session:
        await demo.fill(session, customers=customers, days=days)


async def rotate_keys(chosen: Settings) -> rotating.Rotated:
    """Bring every stored secret under the newest key."""
    async with _one_act(chosen):
        return await rotating.rotate_keys()


async def verify_backups(chosen: Settings) -> drills.Drill:
    """Read every backup that should be usable to its end."""
    async with _one_act(chosen):
        return await drills.verify_all()


@asynccontextmanager
async def _one_act(chosen: Settings) -> AsyncGenerator[AsyncSession]:
    """Open one unit of work, and Redis for the bells that its commit rings."""
    open_database(chosen.database_url)
    open_redis(chosen.redis_url)
    try:
        async with session_scope() as session:
            yield session
    finally:
        await close_redis()
        await close_database()
