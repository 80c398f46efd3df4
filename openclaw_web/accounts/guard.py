"""What runs before every event of every page: who is asking, and may they.

The browser holds nothing but a tab's token and a cookie, and may call any handler. So before each
event the session is looked up in the database, a tab that changed hands is wiped, and handlers of
states that are not public are refused unless the session allows them.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import reflex as rx
from reflex.state import BaseState, StateUpdate
from reflex_base.event import Event
from reflex_base.registry import RegistrationContext

from openclaw_web.accounts import cookies, origins
from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.queries import Principal
from openclaw_web.accounts.state import CUSTOMER, STAFF, AuthState
from openclaw_web.core.database import session_scope

logger = logging.getLogger(__name__)

EVENTS_PER_SECOND = 20.0
BURST = 60.0
WARN_EVERY_SECONDS = 10.0
MOST_BUCKETS = 20_000  # tabs remembered; the one that was quiet for longest is forgotten first
LOGIN_PAGE = "/login"
HOME_PAGE = "/home"
PUBLIC = "public"


@dataclass(slots=True)
class Bucket:
    """How many events a tab may still send now; refilled as time goes by."""

    left: float
    at: float
    warned_at: float = float("-inf")


class SessionGuard(rx.Middleware):
    """Binds each tab's state to one session, and lets through what that session may call."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    async def preprocess(self, app: rx.App, state: BaseState, event: Event) -> StateUpdate | None:  # noqa: ARG002 - Reflex's signature
        """Return `None` to let the event run, or what to tell the browser instead."""
        if (refusal := self._limited(state.router.session.client_token)) is not None:
            return refusal
        auth = await state.get_state(AuthState)
        header = auth.router.headers.cookie
        principal = await _principal(header)
        auth._belong_to(principal, cookies.visitor_token(header))  # noqa: SLF001 - see state.py
        target = _refused_to(event, principal, _here(auth))
        if target is None:
            return None
        changes = await auth._take_changes()  # noqa: SLF001 - see state.py
        return StateUpdate(delta=changes, events=Event.from_event_type(rx.redirect(target)))

    def _limited(self, tab: str) -> StateUpdate | None:
        """Take one event out of the tab's bucket; when it is empty, drop the event."""
        now = self._clock()
        bucket = self._buckets.setdefault(tab, Bucket(left=BURST, at=now))
        self._buckets.move_to_end(tab)
        if len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)
        bucket.left = min(BURST, bucket.left + (now - bucket.at) * EVENTS_PER_SECOND)
        bucket.at = now
        if bucket.left >= 1:
            bucket.left -= 1
            return None
        if now - bucket.warned_at < WARN_EVERY_SECONDS:
            return StateUpdate()
        bucket.warned_at = now
        toast = rx.toast.warning("That was a lot at once. Please wait a moment.")
        return StateUpdate(events=Event.from_event_type(toast))


async def _principal(cookie_header: str) -> Principal | None:
    token = cookies.session_token(cookie_header)
    if token is None:
        return None
    async with session_scope() as session:
        return await accounts.find_principal(session, token)


def _refused_to(event: Event, principal: Principal | None, here: str) -> str | None:
    """Return where to send the browser instead of running the event, or `None` to run it."""
    wanted = _requirement(event)
    if wanted == PUBLIC:
        return None
    if principal is None:
        return origins.with_query(LOGIN_PAGE, next=here)
    if wanted == CUSTOMER or (wanted == STAFF and principal.is_staff):
        return None
    logger.warning("%s was refused.", event.name, extra={"customer_id": principal.customer_id})
    return HOME_PAGE


def _requirement(event: Event) -> str:
    """Return who may call an event's handler; a word that we do not know lets nobody in."""
    registered = RegistrationContext.get().event_handlers.get(event.name)
    state = registered.states[0] if registered else AuthState
    if not issubclass(state, AuthState):
        return PUBLIC
    # What AuthState itself offers is for our own code, not for browsers.
    return "nobody" if state is AuthState else state.requires


def _here(auth: AuthState) -> str:
    """Return the page that the browser shows, to come back to after signing in."""
    url = auth.router.url
    return origins.local_path(f"{url.path}?{url.query}" if url.query else url.path, default="")
