"""The outermost check of page connections, before Reflex sees them.

A tab's token finds its state in memory, and the browser makes it up: whoever knows one would get
that state. So a token must look like one a browser makes, it belongs to the session that showed it
for as long as that session and the state live, and a connection closes as soon as its session ends.
"""

import asyncio
import contextlib
import logging
import re
from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from urllib.parse import parse_qs
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openclaw_web.accounts import cookies, live, origins, queries
from openclaw_web.accounts.queries import Principal
from openclaw_web.core.database import session_scope

logger = logging.getLogger(__name__)

EVENTS_PATH = "/_event"
MOST_TABS = 50_000  # remembered; the one that connected longest ago is forgotten first
STATE_SECONDS = 3_900.0  # Reflex forgets a state after an hour without its tab
RECHECK_SECONDS = 60.0  # how late an ended session is noticed while Redis is away
SESSION_ENDED = 4401  # 4000-4999 are an application's own
FORBIDDEN = 403

_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89a-f][0-9a-f]{3}-[0-9a-f]{12}")


@dataclass(slots=True)
class Binding:
    """Which session a tab's state belongs to, while it is connected and until the state is gone."""

    session_id: UUID
    connections: int = 0
    left_at: float = 0.0

    @property
    def is_over(self) -> bool:
        return self.connections == 0 and monotonic() - self.left_at > STATE_SECONDS


class TokenCheck:
    """Wraps the whole app; looks at page connections and lets everything else pass."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._bindings: OrderedDict[str, Binding] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"} or not scope["path"].startswith(EVENTS_PATH):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        tab = _tab(scope)
        if tab is None or not _is_own_page(headers):
            await _refuse(scope, send)
            return
        principal = await _principal(headers)
        if await self._belongs_to_another(tab, principal):
            await _refuse(scope, send)
        elif principal is None or scope["type"] == "http":
            await self._app(scope, receive, send)
        else:
            with self._bound(tab, principal):
                await _run_while_signed_in(self._app, scope, receive, send, principal)

    async def _belongs_to_another(self, tab: str, principal: Principal | None) -> bool:
        """Say whether this tab is another live session's; a dead one's is left to the guard."""
        known = self._bindings.get(tab)
        if known is None or known.is_over:
            return False
        if principal is not None and known.session_id == principal.session_id:
            return False
        return await _is_live(known.session_id)

    @contextmanager
    def _bound(self, tab: str, principal: Principal) -> Generator[None]:
        binding = self._bindings.get(tab)
        if binding is None or binding.session_id != principal.session_id:
            binding = self._bindings[tab] = Binding(principal.session_id)
        self._bindings.move_to_end(tab)
        if len(self._bindings) > MOST_TABS:
            self._bindings.popitem(last=False)
        binding.connections += 1
        try:
            yield
        finally:
            binding.connections -= 1
            binding.left_at = monotonic()


async def _run_while_signed_in(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, principal: Principal
) -> None:
    """Run a connection; when its session ends, close it towards the browser and the app alike."""
    ended = asyncio.create_task(_until_ended(principal), name="session ended")
    is_closed = False

    async def receive_or_end() -> Message:
        nonlocal is_closed
        if not ended.done():
            message = asyncio.ensure_future(receive())
            await asyncio.wait({message, ended}, return_when=asyncio.FIRST_COMPLETED)
            if message.done():
                is_closed = message.result()["type"] == "websocket.disconnect"
                return message.result()
            message.cancel()
        if not is_closed:  # also when the end came between two messages
            is_closed = True
            await send({"type": "websocket.close", "code": SESSION_ENDED})
        return {"type": "websocket.disconnect", "code": SESSION_ENDED}

    async def send_until_end(message: Message) -> None:
        if not ended.done():
            await send(message)

    try:
        await app(scope, receive_or_end, send_until_end)
    finally:
        ended.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ended


async def _until_ended(principal: Principal) -> None:
    with live.watching(principal.customer_id) as changed:
        while True:
            changed.clear()
            try:
                if not await _is_live(principal.session_id):
                    return
            except (SQLAlchemyError, OSError):
                logger.warning("A session could not be looked up; looking again later.")
            await live.happened(changed, timeout_seconds=RECHECK_SECONDS)


async def _principal(headers: Headers) -> Principal | None:
    token = cookies.session_token(headers.get("cookie", ""))
    if token is None:
        return None
    async with session_scope() as session:
        return await queries.find_principal(session, token)


async def _is_live(session_id: UUID) -> bool:
    async with session_scope() as session:
        return await queries.session_is_live(session, session_id)


def _tab(scope: Scope) -> str | None:
    """Return the tab's token, if there is exactly one and it looks like a browser's."""
    tokens = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
    return tokens[0] if len(tokens) == 1 and _UUID4.fullmatch(tokens[0]) else None


def _is_own_page(headers: Headers) -> bool:
    """Say whether a page of ours connects; without an Origin it is no browser, so no theft."""
    origin = headers.get("origin")
    return origin is None or origins.is_own_origin(origin)


async def _refuse(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": SESSION_ENDED})  # the server answers 403
        return
    plain = [(b"content-type", b"text/plain"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": FORBIDDEN, "headers": plain})
    await send({"type": "http.response.body", "body": b"This connection is not allowed.\n"})
