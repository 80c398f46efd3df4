"""The model API: who may ask, what is asked, what is answered, and a record of it."""

import asyncio
import hmac
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from simulators.kimi import anthropic_form, openai_form
from simulators.kimi.answers import Answer, Answers
from simulators.kimi.errors import VendorError, no_such_path
from simulators.kimi.events import Event
from simulators.kimi.reading import MODELS
from simulators.kimi.replies import Question, Reply, compose
from simulators.kimi.store import Store
from simulators.kimi.streaming import EventStream, Sent, Silence, WholeAnswer

OK = 200
SERVER_ERROR = 500
MODEL_NAME_SHOWN = 80
HEADERS_SHOWN = ("user-agent", "anthropic-version", "anthropic-beta", "accept-encoding")
MODELS_CREATED = 1_790_000_000


class Form(Protocol):
    """A wire form: how it asks, answers, streams and refuses."""

    def read(self, body: dict[str, Any]) -> Question: ...

    def error_body(self, error: VendorError) -> dict[str, Any]: ...

    def error_event(self, error: VendorError) -> Event: ...

    def whole(self, question: Question, reply: Reply) -> dict[str, Any]: ...

    def chunks(self, question: Question, reply: Reply) -> Iterator[Event]: ...


@dataclass(kw_only=True)
class Exchange:
    """One request on its way, and what the record will say of it."""

    form: Form
    request: Request
    started_at: float
    request_bytes: int = 0
    model: str | None = None
    is_stream: bool = False
    status: int = OK
    usage: dict[str, int] | None = None
    fields: tuple[str, ...] = ()
    tools: int = 0
    images: int = 0
    fault: str | None = None


class ModelApi:
    def __init__(self, store: Store, answers: Answers, key: str) -> None:
        self._store = store
        self._answers = answers
        self._key = key.encode()

    async def complete(self, request: Request) -> Response:
        return await self._answer(request, openai_form)

    async def message(self, request: Request) -> Response:
        return await self._answer(request, anthropic_form)

    async def models(self, request: Request) -> Response:
        try:
            self._check_key(request)
        except VendorError as error:
            return JSONResponse(error.openai_body(), status_code=error.status)
        data = [
            {
                "id": name,
                "object": "model",
                "created": MODELS_CREATED,
                "owned_by": "moonshot",
                "context_length": context_tokens,
                "supports_image_in": True,
                "supports_reasoning": True,
            }
            for name, context_tokens in MODELS.items()
        ]
        return JSONResponse({"object": "list", "data": data})

    async def unknown(self, request: Request) -> Response:
        agent = request.headers.get("user-agent", "")
        return JSONResponse(no_such_path(request.method, request.url.path, agent), status_code=404)

    async def _answer(self, request: Request, form: Form) -> Response:
        exchange = Exchange(form=form, request=request, started_at=time.monotonic())
        sent = Sent()
        try:
            answer = await self._made(exchange, sent)
        except VendorError as error:
            exchange.status = error.status
            answer = WholeAnswer(
                error.status, form.error_body(error), headers=error.headers(), sent=sent
            )
        return Recorded(answer, lambda: self._record(exchange, sent))

    async def _made(self, exchange: Exchange, sent: Sent) -> ASGIApp:
        self._check_key(exchange.request)
        raw = await exchange.request.body()
        exchange.request_bytes = len(raw)
        body = _object(raw)
        exchange.model = str(body.get("model") or "")[:MODEL_NAME_SHOWN]
        exchange.fields = tuple(sorted(body))
        question = exchange.form.read(body)
        exchange.is_stream = question.is_stream
        exchange.tools, exchange.images = len(question.tools), question.images
        answer = self._answers.take()
        exchange.fault = answer.fault
        await asyncio.sleep(answer.delay_seconds)
        if answer.error is not None or (answer.status or OK) != OK:
            raise VendorError(
                answer.status or SERVER_ERROR, answer.error, answer.retry_after_seconds
            )
        reply = compose(question, answer)
        exchange.usage = reply.usage.as_json() if reply.usage else None
        return _respond(exchange.form, question, reply, answer, sent)

    def _check_key(self, request: Request) -> None:
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        given = request.headers.get("x-api-key") or bearer
        if not hmac.compare_digest(given.encode(), self._key):
            raise VendorError(401)

    def _record(self, exchange: Exchange, sent: Sent) -> None:
        request = exchange.request
        self._store.add_request(
            {
                "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "path": request.url.path,
                "model": exchange.model,
                "stream": exchange.is_stream,
                "status": exchange.status,
                "header_names": sorted(set(request.headers)),
                "headers": {
                    name: request.headers[name] for name in HEADERS_SHOWN if name in request.headers
                },
                "fields": exchange.fields,
                "tools": exchange.tools,
                "images": exchange.images,
                "fault": exchange.fault,
                "request_bytes": exchange.request_bytes,
                "response_bytes": sent.size_bytes,
                "was_cut": sent.is_cut,
                "usage": None if sent.is_cut else exchange.usage,
                "duration_ms": round((time.monotonic() - exchange.started_at) * 1000, 1),
            }
        )


class Recorded(Response):
    """An answer that is written down when it has been sent, also when the client left."""

    def __init__(self, answer: ASGIApp, record: Callable[[], None]) -> None:
        super().__init__()
        self._answer = answer
        self._record = record

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self._answer(scope, receive, send)
        finally:
            self._record()


def _respond(form: Form, question: Question, reply: Reply, answer: Answer, sent: Sent) -> ASGIApp:
    headers = {"x-request-id": f"req_{uuid.uuid4().hex}"}
    delivery = answer.delivery()
    if delivery.fault is not None and delivery.fault.is_before_the_head:
        return Silence(delivery.fault.kind, sent)
    if question.is_stream:
        return EventStream(
            form.chunks(question, reply),
            headers=headers,
            delivery=delivery,
            failure=form.error_event(VendorError(SERVER_ERROR)),
            sent=sent,
        )
    body = form.whole(question, reply)
    return WholeAnswer(OK, body, headers=headers, sent=sent, delivery=delivery)


def _object(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError:
        raise VendorError(400, "Invalid request: the body is not valid JSON") from None
    if not isinstance(body, dict):
        raise VendorError(400, "Invalid request: the body must be a JSON object")
    return body
