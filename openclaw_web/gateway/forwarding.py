"""Forward and count: bytes go through as they come, and each attempt ends as one usage event."""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from functools import partial

from openclaw_web.core.errors import VendorError
from openclaw_web.gateway import errors
from openclaw_web.gateway.admission import Admission, Admitted
from openclaw_web.gateway.calls import JSON, Call, Receive
from openclaw_web.gateway.errors import (
    BadRequestError,
    RefusalError,
    SlowDownError,
    UnavailableError,
    UnknownTokenError,
)
from openclaw_web.gateway.guessing import CHARACTERS_PER_TOKEN
from openclaw_web.gateway.patience import Patience
from openclaw_web.gateway.providers import ABOUT_THE_REQUEST, NoRouteError, Providers
from openclaw_web.gateway.settling import COMPLETE, Settler
from openclaw_web.gateway.wire import Request, StreamReader, Usage, read_usage
from openclaw_web.integrations.upstream import (
    Answer,
    Headers,
    UnsafeHeaderError,
    UpstreamError,
)
from openclaw_web.metering.ledger import Event

logger = logging.getLogger(__name__)

OK = 200
SLOW_DOWN = 429
DRAIN_SECONDS = 120.0
DEFAULT_RETRY_SECONDS = 2
SECOND_MS = 1_000

# What of a client's request the provider may need; all else stays with us.
_PASSED_ON = frozenset({b"user-agent", b"anthropic-version", b"anthropic-beta"})

FAILED = "failed"  # the provider refused or did not answer
CUT = "cut"  # the answer ended early
ABANDONED = "abandoned"  # the client left, and the provider's count never came


@dataclass(slots=True, eq=False)
class Exchange:
    """One request on its way through us."""

    call: Call
    request: Request
    admitted: Admitted
    generation: int | None
    started: float = field(default_factory=time.monotonic)
    first_byte: float | None = None
    status: int | None = None
    upstream: str = ""
    has_left: bool = False
    is_over: bool = False


class Forwarder:
    def __init__(
        self, providers: Providers, settler: Settler, admission: Admission, patience: Patience
    ) -> None:
        self._patience = patience
        self._providers = providers
        self._settler = settler
        self._admission = admission

    async def forward(self, exchange: Exchange) -> None:
        """Ask the provider and pass its answer on.

        Raises:
            RefusalError: the provider refused or failed before the answer began.
        """
        try:
            answer = await self._ask(exchange)
            if exchange.request.is_stream and answer.status == OK:
                await self._pass_stream(exchange, answer)
            else:
                await self._pass_whole(exchange, answer)
        except RefusalError:
            raise
        except Exception:
            self._settle(exchange, Usage(), CUT)
            raise

    async def _ask(self, exchange: Exchange) -> Answer:
        passed = _passed_on(exchange.call)
        customer = exchange.admitted.caller.customer_id
        try:
            answer = await self._providers.ask(exchange.request, passed, customer, exchange)
        except UpstreamError as error:
            if error.was_sent:
                self._settle(exchange, Usage(prompt=0, completion=0), FAILED)
            else:  # there is nothing to count
                self._release(exchange)
            raise _unavailable(error) from error
        except (NoRouteError, UnsafeHeaderError) as error:
            self._release(exchange)
            raise BadRequestError(str(error)) from error
        except asyncio.CancelledError:
            self._settle(exchange, Usage(), ABANDONED)
            raise
        exchange.first_byte = time.monotonic()
        exchange.status = answer.status
        return answer

    async def _pass_whole(self, exchange: Exchange, answer: Answer) -> None:
        body = await self._read_whole(exchange, answer)
        if answer.status != OK and answer.status not in ABOUT_THE_REQUEST:
            raise _refusal(answer)
        await exchange.call.begin(answer.status, _head(answer, length=len(body)))
        await exchange.call.end(body)

    async def _read_whole(self, exchange: Exchange, answer: Answer) -> bytes:
        """Read and count a body that is not streamed, also when nobody waits for it any more."""
        usage = Usage()
        try:
            body = await answer.read()
        except VendorError as error:
            self._settle(exchange, usage, CUT)
            raise _unavailable(error) from error
        except asyncio.CancelledError:
            self._abandon(exchange, answer, _Whole(usage))
            raise
        if answer.status == OK:
            read_usage(body, usage)
            self._settle(exchange, usage, COMPLETE, guessed=len(body) // CHARACTERS_PER_TOKEN)
        else:
            self._settle(exchange, Usage(prompt=0, completion=0), FAILED)
        return body

    async def _pass_stream(self, exchange: Exchange, answer: Answer) -> None:
        reader, task = StreamReader(exchange.request), exchange.call.task
        ending, stop = exchange.admitted.caller.ending, partial(_cut, answer)
        ending.watch(stop)
        leaving = asyncio.ensure_future(_until_gone(exchange.call.receive))
        leaving.add_done_callback(lambda gone: gone.cancelled() or self._leave(exchange))
        try:
            await self._pump(exchange, answer, reader, leaving)
        except VendorError as error:
            self._settle_stream(exchange, reader, CUT)
            refusal = UnknownTokenError() if ending.has_come else _unavailable(error)
            await exchange.call.end(errors.event_of(refusal, exchange.request.form))
        except (OSError, RuntimeError):  # what servers raise when the client has gone
            self._abandon(exchange, answer, reader)
        except asyncio.CancelledError:
            self._abandon(exchange, answer, reader)
            if not self._patience.was_lost(task):
                raise
        finally:
            self._patience.end(task)
            ending.forget(stop)
            leaving.cancel()

    async def _pump(
        self,
        exchange: Exchange,
        answer: Answer,
        reader: StreamReader,
        leaving: asyncio.Future[None],
    ) -> None:
        call, task, patience = exchange.call, exchange.call.task, self._patience
        await call.begin(answer.status, _head(answer, length=None))
        async for part in answer.parts():
            passed = reader.feed(part)
            if leaving.done():
                self._abandon(exchange, answer, reader)
                return
            if passed:
                patience.begin(task)
                await call.go_on(passed)
                patience.end(task)
        rest = reader.close()
        self._settle_stream(exchange, reader, CUT)
        await call.end(rest)

    def _abandon(self, exchange: Exchange, answer: Answer, reader: "StreamReader | _Whole") -> None:
        """The client left: read on for the provider's count, within bounds."""
        self._leave(exchange)
        if not self._settler.drain(self._drain(exchange, answer, reader)):
            answer.abort()
            self._settle_stream(exchange, reader, ABANDONED)

    async def _drain(
        self, exchange: Exchange, answer: Answer, reader: "StreamReader | _Whole"
    ) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                async for part in answer.parts():
                    reader.feed(part)
            reader.close()
        except (VendorError, TimeoutError):
            answer.abort()
        finally:
            self._settle_stream(exchange, reader, ABANDONED)

    def _settle_stream(
        self, exchange: Exchange, reader: "StreamReader | _Whole", otherwise: str
    ) -> None:
        is_complete = reader.is_finished and not reader.has_error
        outcome = COMPLETE if is_complete else FAILED if reader.has_error else otherwise
        self._settle(exchange, reader.usage, outcome, guessed=reader.estimated_completion())

    def _settle(self, exchange: Exchange, usage: Usage, outcome: str, *, guessed: int = 0) -> None:
        """Write the event and give the reservation back, once."""
        if exchange.is_over:
            return
        request, admitted = exchange.request, exchange.admitted
        ended = time.monotonic()
        first = exchange.first_byte
        prompt = len(request.body) // CHARACTERS_PER_TOKEN if usage.prompt is None else usage.prompt
        completion = guessed if usage.completion is None else usage.completion
        self._settler.settle(
            Event(
                request_id=exchange.call.request_id,
                customer_id=admitted.caller.customer_id,
                box_id=admitted.caller.box_id,
                period_start=admitted.period_start,
                timestamp=admitted.timestamp,
                model=request.model,
                prompt_tokens=prompt,
                completion_tokens=completion,
                cached_tokens=usage.cached,
                reasoning_tokens=usage.reasoning,
                provider_request_id=usage.provider_id,
                status_code=exchange.status,
                latency_ms=_milliseconds(ended - exchange.started),
                ttfb_ms=None if first is None else _milliseconds(first - exchange.started),
                streamed=request.is_stream,
                estimated=usage.prompt is None or usage.completion is None,
                outcome=outcome,
                upstream=exchange.upstream,
                generation=exchange.generation,
            )
        )
        self._release(exchange, prompt + completion)

    def _leave(self, exchange: Exchange) -> None:
        """Give the place among the parallel requests back at once; the count comes later."""
        if not exchange.is_over and not exchange.has_left:
            exchange.has_left = True
            self._admission.leave(exchange.admitted.reservation)

    def _release(self, exchange: Exchange, tokens: int = 0) -> None:
        exchange.is_over = True
        self._admission.end(exchange.admitted.reservation, tokens)


class _Whole:
    """Reads a whole body that nobody waits for, as `StreamReader` reads a stream."""

    def __init__(self, usage: Usage) -> None:
        self.usage = usage
        self.is_finished = False
        self.has_error = False
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        self._parts.append(data)
        return b""

    def close(self) -> bytes:
        self.is_finished = read_usage(b"".join(self._parts), self.usage) is not None
        return b""

    def estimated_completion(self) -> int:
        return sum(map(len, self._parts)) // CHARACTERS_PER_TOKEN


def _cut(answer: Answer) -> None:
    """The caller's token has ended: so does the answer, as if the provider had failed."""
    answer.abort()
    answer.fail(UpstreamError("The token was revoked or has expired.", code="token_ended"))


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _passed_on(call: Call) -> Headers:
    return tuple(header for header in call.scope["headers"] if header[0] in _PASSED_ON)


def _head(answer: Answer, *, length: int | None) -> list[tuple[bytes, bytes]]:
    headers = [(b"content-type", answer.header(b"content-type") or JSON)]
    if length is None:
        headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
    else:
        headers.append((b"content-length", b"%d" % length))
    if (encoding := answer.header(b"content-encoding")) is not None:
        headers.append((b"content-encoding", encoding))
    return headers


def _unavailable(error: VendorError) -> RefusalError:
    return UnavailableError(str(error), status=502, code=f"upstream_{error.code or 'failed'}")


def _refusal(answer: Answer) -> RefusalError:
    """Say the provider's refusal in our words: its own may speak of our bill, or of our key."""
    given = answer.header(b"retry-after") or b""
    seconds = int(given) if given.isdigit() else DEFAULT_RETRY_SECONDS
    if answer.status == SLOW_DOWN:
        return SlowDownError("The model is busy; try again in a moment.", retry_after=seconds)
    logger.warning("The model provider answered %d.", answer.status)
    return UnavailableError(
        "The model is not available at the moment.",
        code="upstream_failed",
        retry_after=seconds,
    )


def _milliseconds(seconds: float) -> int:
    return round(seconds * SECOND_MS)
