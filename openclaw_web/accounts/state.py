"""Who is signed in, for pages: the base of every state that is not public.

What the browser may call on a state is decided by the guard before the handler runs: `requires` says
who. Still, a handler asks `principal()` itself for whose data to load, and a background handler asks
again on every turn, because the session may have ended since.
"""

from typing import ClassVar

import reflex as rx

from openclaw_web.accounts import cookies, queries
from openclaw_web.accounts.queries import Principal
from openclaw_web.core.database import session_scope

CUSTOMER = "customer"
STAFF = "admin"


class AuthState(rx.State):
    """The signed-in person's state; everything below it is wiped when that person changes."""

    # Who may call the handlers of a subclass: "customer" is anybody signed in, "admin" is staff.
    requires: ClassVar[str] = CUSTOMER

    email: str = ""
    role: str = ""
    is_signed_in: bool = False
    is_admin: bool = False

    # The session and the onboarding visitor that this tab's state belongs to; the guard sets both.
    _owner: str = ""
    _visitor: str = ""

    async def principal(self) -> Principal | None:
        """Return who is asking right now, out of the cookie and the database."""
        token = cookies.session_token(self.router.headers.cookie)
        if token is None:
            return None
        async with session_scope() as session:
            return await queries.find_principal(session, token)
