"""A customer's own programs: whether keys are let in, and the keys, each act written down."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import service as accounts
from openclaw_web.boxes import queries as box_queries
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.core.errors import NotFoundError, ValidationError
from openclaw_web.metering import service as metering
from openclaw_web.metering.tokens import IssuedToken

GONE = frozenset({BoxStatus.DESTROYING, BoxStatus.DESTROYED})


@dataclass(frozen=True, kw_only=True)
class By:
    """The customer who acts, by their session, and from where."""

    customer_id: UUID
    ip: str | None = None
    user_agent: str | None = None


async def find_box(session: AsyncSession, customer_id: UUID) -> Box | None:
    """Return the box whose keys these are: the customer's, unless it is deleted."""
    box = await box_queries.find_box_of_customer(session, customer_id)
    return None if box is None or box.status in GONE else box


async def switch(session: AsyncSession, *, is_on: bool, by: By) -> None:
    """Let the customer's keys in, or keep them out within a second and cut their streams.

    Raises:
        NotFoundError: the customer has no box.
    """
    if await boxes.allow_api_access(session, by.customer_id, is_allowed=is_on):
        box = await _get_box(session, by)
        action = "api.on" if is_on else "api.off"
        await _audit(session, action, by=by, resource_type="box", resource_id=box.id)


async def create_key(session: AsyncSession, label: str, *, by: By) -> IssuedToken:
    """Make a key; its clear text is returned once.

    Raises:
        NotFoundError: the customer has no box.
        ValidationError: API access is off, there are ten keys, or the name will not do.
    """
    box = await _get_box(session, by)
    if not box.api_access:
        raise ValidationError("Turn API access on first.")
    issued = await metering.create_api_key(
        session, customer_id=by.customer_id, box_id=box.id, label=label
    )
    await _audit(session, "api.key_created", by=by, resource_id=issued.token_id)
    return issued


async def replace_key(session: AsyncSession, token_id: UUID, *, by: By) -> IssuedToken:
    """Make another key of the same name; the old one goes on for fifteen minutes.

    Raises:
        NotFoundError: the customer has no such key, or it was replaced already.
    """
    issued = await metering.replace_api_key(session, by.customer_id, token_id)
    diff = {"replaces": str(token_id)}
    await _audit(session, "api.key_replaced", by=by, resource_id=issued.token_id, diff=diff)
    return issued


async def revoke_key(session: AsyncSession, token_id: UUID, *, by: By) -> str:
    """End a key within a second, and return its name.

    Raises:
        NotFoundError: the customer has no such key.
    """
    label = await metering.revoke_api_key(session, by.customer_id, token_id)
    await _audit(session, "api.key_revoked", by=by, resource_id=token_id)
    return label


async def _get_box(session: AsyncSession, by: By) -> Box:
    box = await find_box(session, by.customer_id)
    if box is None:
        raise NotFoundError("There is no assistant.")
    return box


async def _audit(
    session: AsyncSession,
    action: str,
    *,
    by: By,
    resource_id: UUID,
    resource_type: str = "proxy_token",
    diff: dict[str, Any] | None = None,
) -> None:
    """Write the act down; names of keys may be personal and stay out of it."""
    await accounts.audit(
        session,
        action=action,
        actor_id=str(by.customer_id),
        user_id=by.customer_id,
        resource_type=resource_type,
        resource_id=str(resource_id),
        diff=diff,
        ip=by.ip,
        user_agent=by.user_agent,
    )
