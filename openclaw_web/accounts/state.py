"""Who is signed in, for pages: the base of every state that is not public.

The guard decides before each event whether the browser may call a handler: `requires` says who.
Still, a handler asks `principal()` itself whose data to load, and a background handler asks again
on every turn, because the session may have ended since.

Any browser may call what a state names publicly; what only our own code calls starts with `_`.
"""

from typing import Any, ClassVar

import reflex as rx
from reflex.state import Delta

from openclaw_web.accounts import cookies, queries
from openclaw_web.accounts.messages import sentence_of
from openclaw_web.accounts.queries import Principal
from openclaw_web.core.database import session_scope
from openclaw_web.core.security import token_hash

CUSTOMER = "customer"
STAFF = "admin"


class AuthState(rx.State):
    """The signed-in person's state; everything in the tab is wiped when that person changes."""

    # Who may call the handlers of a subclass: "customer" is anybody signed in, "admin" is staff.
    # A subclass writes `requires: ClassVar[str] = ...`; without ClassVar it would be a page's var.
    requires: ClassVar[str] = CUSTOMER

    email: str = ""
    role: str = ""
    is_signed_in: bool = False
    is_admin: bool = False

    # The session and the onboarding visitor that this tab belongs to.
    _owner: str = ""
    _visitor: str = ""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not isinstance(cls.requires, str) or cls.requires not in {CUSTOMER, STAFF}:
            raise TypeError(f"{cls.__name__}.requires must be a ClassVar: {CUSTOMER} or {STAFF}.")

    async def principal(self) -> Principal | None:
        """Return who is asking right now, out of the cookie and the database."""
        token = cookies.session_token(self.router.headers.cookie)
        if token is None:
            return None
        async with session_scope() as session:
            return await queries.find_principal(session, token)

    def _belong_to(self, principal: Principal | None, visitor: str | None) -> None:
        """Note whose tab this is; wipe it first if it was another session's or visitor's.

        A tab that was nobody's keeps its public state: the onboarding chat goes on.
        """
        owner = str(principal.session_id) if principal else ""
        mark = token_hash(visitor) if visitor else ""
        if self._owner not in {"", owner} or self._visitor not in {"", mark}:
            for substate in self._get_root_state().substates.values():
                substate.reset()
        self._owner, self._visitor = owner, mark
        shown = {
            "email": principal.email if principal else "",
            "role": principal.role if principal else "",
            "is_signed_in": principal is not None,
            "is_admin": principal is not None and principal.is_staff,
        }
        for name, value in shown.items():
            if getattr(self, name) != value:  # an unchanged value is not sent again
                setattr(self, name, value)

    async def _take_changes(self) -> Delta:
        """Return what the browser does not know yet of the whole tab, and count it as sent."""
        root = self._get_root_state()
        delta = await root._get_resolved_delta()  # noqa: SLF001 - Reflex has no public name for it
        root._clean()  # noqa: SLF001 - as above
        return delta


class LoginView(rx.State):
    """What the sign-in page shows; everything comes from the address, so it survives a reload."""

    email: str = ""
    next_page: str = ""
    step: str = ""  # until the address is read: nobody fills in a form that is then replaced
    error: str = ""

    @rx.event
    async def load(self) -> None:
        query = self.router.url.query_parameters
        self.email = str(query.get("email", ""))[:254]
        self.next_page = str(query.get("next", ""))[:200]
        self.error = sentence_of(str(query.get("error", "")))
        wanted = str(query.get("step", ""))
        self.step = wanted if wanted in {"code", "password"} else "email"
