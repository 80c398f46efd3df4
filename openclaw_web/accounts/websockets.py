"""The outermost check of page connections, before Reflex sees them.

A tab's token finds its state in memory, and the browser makes it up: whoever knows one would get that
state. So a token must look like one a browser makes, belongs to the session that first showed it for
as long as that session lives, and a connection is closed within a second of its session's end.
"""

import asyncio
import re
from collections import OrderedDict
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openclaw_web.accounts import cookies, live, origins, queries
from openclaw_web.accounts.queries import Principal
from openclaw_web.core.database import session_scope

EVENTS_PATH = "/_event"
MOST_TOKENS = 50_000  # tabs remembered; the oldest is forgotten first
RECHECK_SECONDS = 60.0  # how late an ended session is noticed while Redis is away
POLICY_VIOLATION = 1008
SESSION_ENDED = 4401  # 4000-4999 are an application's own

_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


class TokenCheck:
    """Wraps the whole app; looks at page connections and lets everything else pass."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._session_of: OrderedDict[str, str] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"} or not scope["path"].startswith(EVENTS_PATH):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        session_token = cookies.session_token(headers.get("cookie", ""))
        principal = await _principal(session_token)
        if not await self._is_welcome(scope, headers, session_token, principal):
            await _refuse(scope, send)
        elif scope["type"] == "http" or principal is None or session_token is None:
            await self._app(scope, receive, send)
        else:
            await _while_signed_in(
                self._app, scope, receive, send, session_token, principal.customer_id
            )

    async def _is_welcome(
        self,
        scope: Scope,
        headers: Headers,
        session_token: str | None,
        principal: Principal | None,
    ) -> bool:
        origin = headers.get("origin")
        if origin is not None and not origins.is_own_origin(origin):
            return False
        tokens = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        if len(tokens) != 1 or not _UUID4.fullmatch(tokens[0]):
            return False
        return await self._bind(tokens[0], session_token if principal else None)

    async def _bind(self, tab: str, session_token: str | None) -> bool:
        """Bind a tab to a session; refuse if it is another's that still lives."""
        owner = self._session_of.get(tab)
        if owner not in {None, session_token} and await _principal(owner) is not None:
            return False
        if session_token is None:
            self._session_of.pop(tab, None)
            return True
        self._session_of[tab] = session_token
        self._session_of.move_to_end(tab)
        if len(self._session_of) > MOST_TOKENS:
            self._session_of.popitem(last=False)
        return True
