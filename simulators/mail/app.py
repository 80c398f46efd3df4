"""The inbox: its page, what the page's script asks for, and the control endpoints."""

import contextlib
import secrets
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from simulators.mail.sink import listening
from simulators.mail.store import Mail, Store

CONTENT_TYPES = frozenset({"application/json"})
SNIPPET_LENGTH = 140
# A mail is shown in a frame of its own that inherits this policy: hence the inline styles.
POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; connect-src 'self';"
    " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


def build(state: Path, smtp_port: int) -> Starlette:
    store = Store(state)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        async with listening(store, smtp_port):
            yield

    return Starlette(routes=Inbox(store).routes(), lifespan=lifespan)


class Inbox:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._page = (Path(__file__).parent / "inbox.html").read_text(encoding="utf-8")

    def routes(self) -> list[Route]:
        return [
            Route("/", self.page),
            Route("/api/mails", self.listing),
            Route("/api/mails/{mail_id:int}", self.mail),
            Route("/_control/messages", self.messages, methods=["GET"]),
            Route("/_control/messages", self.clear, methods=["DELETE"]),
        ]

    async def page(self, _request: Request) -> HTMLResponse:
        nonce = secrets.token_urlsafe(16)
        headers = {
            "content-security-policy": POLICY.format(nonce=nonce),
            "cache-control": "no-store",
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
        }
        return HTMLResponse(self._page.replace("{{nonce}}", nonce), headers=headers)

    async def listing(self, request: Request) -> Response:
        """The list without bodies; only the version when nothing changed since `since`."""
        version = self._store.version
        if request.query_params.get("since") == version:
            return JSONResponse({"version": version})
        mails = self._store.mails(request.query_params.get("to", ""))
        return JSONResponse({"version": version, "mails": [_row(mail) for mail in mails]})

    async def mail(self, request: Request) -> Response:
        mail = self._store.find(request.path_params["mail_id"])
        if mail is None:
            return JSONResponse({"error": "There is no such mail."}, status_code=404)
        return JSONResponse(mail.as_json())

    async def messages(self, request: Request) -> Response:
        """All mails whose recipient contains ?to=, newest first."""
        mails = self._store.mails(request.query_params.get("to", ""))
        return JSONResponse([mail.as_json() for mail in mails])

    async def clear(self, _request: Request) -> Response:
        self._store.clear()
        return JSONResponse({})


def _row(mail: Mail) -> dict[str, Any]:
    snippet = " ".join(mail.text.split())[:SNIPPET_LENGTH]
    body = mail.as_json()
    del body["text"], body["html"]
    return body | {"snippet": snippet}
