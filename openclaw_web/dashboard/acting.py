"""Doing something for whoever is signed in now: one transaction, and the customer's name on it."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from openclaw_web.accounts.state import AuthState
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import NotFoundError
from openclaw_web.workflows.api_access import By

NOBODY = "Your session has ended. Sign in again."
NO_SUCH_BACKUP = "There is no such backup any more."


async def act(state: AuthState, do: Callable[..., Awaitable[Any]], *what: Any, **named: Any) -> Any:
    """Do it for the customer of this tab; whose tab it is, only the session says.

    Raises:
        NotFoundError: nobody is signed in.
    """
    by = await by_of(state)
    async with session_scope() as session:
        return await do(session, *what, by=by, **named)


async def by_of(state: AuthState) -> By:
    """Return who acts in this tab, and from where.

    Raises:
        NotFoundError: nobody is signed in.
    """
    principal = await state.principal()
    if principal is None:
        raise NotFoundError(NOBODY)
    return By(
        customer_id=principal.customer_id,
        ip=state.router.session.client_ip,
        user_agent=state.router.headers.user_agent,
    )


def id_of(text: Any, missing: str) -> UUID:
    """Read an id that a browser sent.

    Raises:
        NotFoundError: it is none; says `missing`.
    """
    try:
        return UUID(text)
    except (ValueError, TypeError, AttributeError) as error:
        raise NotFoundError(missing) from error
