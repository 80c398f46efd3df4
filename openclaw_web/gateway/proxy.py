"""The token proxy: a bare ASGI app that speaks the OpenAI and the Anthropic API to boxes."""

import contextlib
import logging
from collections.abc import AsyncGenerator, MutableMapping
from dataclasses import dataclass
from typing import Any

import msgspec

from openclaw_web.billing.tiers import plan_of
from openclaw_web.boxes.openclaw_config import GENERATION_HEADER
from openclaw_web.core import database
from openclaw_web.core.settings import settings
from openclaw_web.gateway import credentials, errors, polite, wire
from openclaw_web.gateway.admission import Admission
from openclaw_web.gateway.credentials import Account, Caller, Directory
from openclaw_web.gateway.errors import (
    BadRequestError,
    Form,
    NotFoundError,
    PoliteError,
    RefusalError,
    TooLargeError,
    UnavailableError,
)
from openclaw_web.gateway.forwarding import Exchange, Forwarder, Receive, Send, new_request_id
from openclaw_web.gateway.settling import Settler
from openclaw_web.integrations import redis
from openclaw_web.integrations.upstream import Upstream
from openclaw_web.metering.models import TokenKind

logger = logging.getLogger(__name__)

MOUNT = "/proxy"
SPOOL = "spool"
MAX_BODY_BYTES = 32 * 1024 * 1024
JSON = b"application/json"

Scope = MutableMapping[str, Any]

_FORMS = {"/v1/chat/completions": Form.OPENAI, "/v1/messages": Form.ANTHROPIC}
_GENERATION = GENERATION_HEADER.lower().encode()


@dataclass(frozen=True)
class _Running:
    """What exists between start and stop."""

    directory: Directory
    settler: Settler
    admission: Admission
    forwarder: Forwarder
    upstream: Upstream


@dataclass(frozen=True)
class _Call:
    """One request as the server hands it over."""

    scope: Scope
    request_id: str
    receive: Receive
    send: Send


class Proxy:
    """The app. It needs an open database and Redis, and `start` before the first request."""

    def __init__(self) -> None:
        self._running: _Running | None = None

    async def start(self) -> None:
        upstream = Upstream(settings().upstream_url)
        directory = Directory()
        settler = Settler(directory, settings().home / SPOOL)
        admission = Admission(directory, settler)
        forwarder = Forwarder(upstream, settler, admission)
        self._running = _Running(directory, settler, admission, forwarder, upstream)

    async def stop(self) -> None:
        """Take no more requests, finish abandoned answers and write the last events."""
        running, self._running = self._running, None
        if running is not None:
            await running.settler.stop()
            await running.upstream.close()

    async def flush(self) -> None:
        """Write all that is settled now, without waiting for the next batch."""
        if self._running is not None:
            await self._running.settler.flush()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; what goes wrong before an answer began is said in the API's form."""
        request_id = new_request_id()
        path = scope["path"].removeprefix(MOUNT)
        form = _FORMS.get(path, Form.OPENAI)
        began = False

        async def noting_send(message: MutableMapping[str, Any]) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            await self._route(scope, path, request_id, receive, noting_send)
        except RefusalError as refusal:
            await _refuse(send, refusal, form, request_id)
        except Exception:
            logger.exception("A proxied request failed.", extra={"request_id": request_id})
            if began:
                raise  # the server cuts the connection: half an answer must not look whole
            failure = UnavailableError("Something went wrong on our side.", status=500)
            await _refuse(send, failure, form, request_id)

    async def _route(
        self, scope: Scope, path: str, request_id: str, receive: Receive, send: Send
    ) -> None:
        running = self._running
        if running is None:
            raise UnavailableError("The proxy is starting or stopping.")
        method = scope["method"]
        if method == "GET" and path == "/healthz":
            await _reply(send, {"status": "ok"}, request_id)
            return
        if (method, path) not in _ROUTES:
            raise NotFoundError(f"There is no {method} {scope['path']}.")
        caller, account = await running.directory.find(credentials.token_of(scope["headers"]))
        peer = scope["client"][0] if scope.get("client") else None
        credentials.check_origin(caller, peer=peer, headers=scope["headers"])
        if path in _FORMS:
            call = _Call(scope, request_id, receive, send)
            await _complete(running, caller, account, call)
        elif path == "/v1/models":
            await _reply(send, _models(account), request_id)
        else:
            await _reply(send, _key(running, caller, account), request_id)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Serve alone: open what the web process opens otherwise."""
        await receive()
        database.open_database(settings().database_url)
        redis.open_redis(settings().redis_url)
        await self.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await redis.close_redis()
        await database.close_database()
        await send({"type": "lifespan.shutdown.complete"})


_ROUTES = frozenset(
    {
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/messages"),
        ("GET", "/v1/models"),
        ("GET", "/v1/key"),
    }
)

proxy = Proxy()


@contextlib.asynccontextmanager
async def lifespan() -> AsyncGenerator[None]:
    """Run this process's proxy; the database and Redis are open already."""
    await proxy.start()
    try:
        yield
    finally:
        await proxy.stop()


async def _complete(running: _Running, caller: Caller, account: Account, call: _Call) -> None:
    """Read, admit and forward one completion."""
    form = _FORMS[call.scope["path"].removeprefix(MOUNT)]
    body = await _read_body(call.scope, call.receive)
    request = wire.read_request(body, form, current_model=settings().upstream_model)
    try:
        admitted = running.admission.admit(caller, account, request)
    except PoliteError as refusal:
        if caller.kind is TokenKind.BOX and caller.is_polite and request.is_stream:
            await _say(call.send, polite.stream(refusal.polite_text, request), call.request_id)
            return
        raise
    exchange = Exchange(call.request_id, request, admitted, _generation(call.scope))
    await running.forwarder.forward(exchange, call.scope["headers"], call.receive, call.send)


async def _read_body(scope: Scope, receive: Receive) -> bytes:
    length = _header(scope, b"content-length") or b"0"
    if not length.isdigit() or int(length) > MAX_BODY_BYTES:
        raise TooLargeError("The body may have 32 MB.")
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequestError("The request ended early.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            raise TooLargeError("The body may have 32 MB.")
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _models(account: Account) -> dict[str, Any]:
    """List the tier's models, in OpenAI's form with the names that Anthropic's form needs."""
    names = plan_of(account.plan.tier).models if account.plan is not None else ()
    listed = [
        {"id": name, "object": "model", "type": "model", "display_name": name, "owned_by": "kimi"}
        for name in names
    ]
    return {"object": "list", "data": listed, "has_more": False}


def _key(running: _Running, caller: Caller, account: Account) -> dict[str, Any]:
    """Tell an agent what it has used (tokens), may use, and when that starts anew."""
    used = account.used + running.settler.unwritten(caller.customer_id, account.period_start)
    return {
        "used": used,
        "limit": account.limit,
        "left": max(0, account.limit - used),
        "resets_at": account.period_end.isoformat() if account.period_end else None,
        "tier": account.plan.tier if account.plan is not None else None,
        "is_active": account.is_entitled,
    }


def _generation(scope: Scope) -> int | None:
    value = _header(scope, _GENERATION) or b""
    return int(value) if value.isdigit() and len(value) < len(str(2**63)) else None


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    return next((value for name, value in scope["headers"] if name == wanted), None)


async def _reply(send: Send, content: dict[str, Any], request_id: str) -> None:
    await _send_whole(send, 200, msgspec.json.encode(content), request_id)


async def _say(send: Send, stream: bytes, request_id: str) -> None:
    await _send_whole(send, 200, stream, request_id, content_type=b"text/event-stream")


async def _refuse(send: Send, refusal: RefusalError, form: Form, request_id: str) -> None:
    retry = refusal.retry_after
    extra = [] if retry is None else [(b"retry-after", str(retry).encode())]
    body = errors.body_of(refusal, form)
    await _send_whole(send, refusal.status, body, request_id, extra=extra)


async def _send_whole(
    send: Send,
    status: int,
    body: bytes,
    request_id: str,
    *,
    content_type: bytes = JSON,
    extra: list[tuple[bytes, bytes]] | None = None,
) -> None:
    headers = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
        *(extra or []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
