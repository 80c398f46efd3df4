"""What runs before every event of every page: who is asking, and may they.

The browser holds nothing but a tab token and a cookie, and may call any handler. So before each event
the session is looked up in the database, a tab that changed hands is wiped, and handlers of states
that are not public are refused unless the session allows them.
"""

import logging
from collections import OrderedDict
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
from openclaw_web.core.security import token_hash

logger = logging.getLogger(__name__)

EVENTS_PER_SECOND = 20.0
BURST = 60.0
WARN_EVERY_SECONDS = 10.0
MOST_BUCKETS = 20_000  # tabs remembered; the oldest is forgotten first
LOGIN_PAGE = "/login"
HOME_PAGE = "/home"


@dataclass(slots=True)
class Bucket:
    """How many events a tab may still send now; refilled as time goes by."""

    left: float
    at: float
    warned_at: float = float("-inf")


class SessionGuard(rx.Middleware):
    """Binds each tab's state to one session, and lets through what that session may call."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    async def preprocess(self, app: rx.App, state: BaseState, event: Event) -> StateUpdate | None:  # noqa: ARG002 - Reflex's signature
        """Return `None` to let the event run, or what to tell the browser instead."""
        if (refusal := self._limited(state.router.session.client_token)) is not None:
            return refusal
        auth = await state.get_state(AuthState)
        header = state.router.headers.cookie
        principal = await _principal(header)
        _hand_over(auth, principal, cookies.visitor_token(header))
        target = _refused_to(event, principal, _here(auth))
        if target is None:
            return None
        return await _sent_away(auth, target)

    def _limited(self, tab: str) -> StateUpdate | None:
        """Take one event out of the tab's bucket; when it is empty, drop the event."""
        now = monotonic()
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


def _hand_over(auth: AuthState, principal: Principal | None, visitor: str | None) -> None:
    """Wipe the tab when it belonged to another session or visitor, and note whose it is now.

    A tab that belonged to nobody keeps its public state: the onboarding chat goes on after signing in.
    """
    owner = str(principal.session_id) if principal else ""
    mark = token_hash(visitor) if visitor else ""
    if auth._owner not in {"", owner} or auth._visitor not in {"", mark}:
        root = auth._get_root_state()
        for substate in root.substates.values():
            substate.reset()
    auth._owner, auth._visitor = owner, mark
    shown = {
        "email": principal.email if principal else "",
        "role": principal.role if principal else "",
        "is_signed_in": principal is not None,
        "is_admin": principal is not None and principal.is_staff,
    }
    for name, value in shown.items():
        if getattr(auth, name) != value:  # an unchanged value is not sent again
            setattr(auth, name, value)


def _refused_to(event: Event, principal: Principal | None, here: str) -> str | None:
    """Return where to send the browser instead of running the event, or `None` to run it."""
    registered = RegistrationContext.get().event_handlers.get(event.name)
    if registered is None:
        return HOME_PAGE
    wanted = _requirement(registered.states[0])
    if wanted is None or (wanted == CUSTOMER and principal is not None):
        return None
    if principal is None:
        return origins.with_query(LOGIN_PAGE, next=here)
    if wanted == STAFF and principal.is_staff:
        return None
    logger.warning("%s was refused.", event.name, extra={"customer_id": principal.customer_id})
    return HOME_PAGE


def _requirement(state: type[BaseState]) -> str | None:
    """Return what a state asks for; public states ask for nothing, unknown words let nobody in."""
    if not issubclass(state, AuthState) or state is AuthState:
        return None
    return state.requires


def _here(auth: AuthState) -> str:
    url = auth.router.url
    return origins.local_path(f"{url.path}?{url.query}" if url.query else url.path, default="")


async def _sent_away(auth: AuthState, target: str) -> StateUpdate:
    root = auth._get_root_state()
    delta = await root._get_resolved_delta()
    root._clean()
    return StateUpdate(delta=delta, events=Event.from_event_type(rx.redirect(target)))
