"""One request on its way through us: each time that it reached a provider is one usage event."""

import asyncio
import time
from collections import Counter
from typing import Final, Protocol
from uuid import UUID

from openclaw_web.core.errors import VendorError
from openclaw_web.gateway.admission import Admission, Admitted
from openclaw_web.gateway.callers import BOX
from openclaw_web.gateway.calls import Call
from openclaw_web.gateway.guessing import CHARACTERS_PER_TOKEN
from openclaw_web.gateway.providers import NoRouteError
from openclaw_web.gateway.routes import Route
from openclaw_web.gateway.settling import COMPLETE, Settler
from openclaw_web.gateway.statuses import ABOUT_THE_REQUEST, MAY_BE_WORKING, NOTHING_RAN, OK
from openclaw_web.gateway.streams import StreamReader
from openclaw_web.gateway.usage import Usage, read_usage
from openclaw_web.gateway.wire import Request
from openclaw_web.integrations.upstream import (
    MAX_WHOLE_BYTES,
    Answer,
    UnsafeHeaderError,
    UpstreamError,
    too_large,
)
from openclaw_web.metering.ledger import Event

DRAIN_SECONDS = 120.0
# Of one customer's answers that nobody waits for any more, so many are read on for their count:
# they are at the provider beside what the plan allows at once, and the smallest plan allows two.
MOST_LEFT: Final = 2
SECOND_MS: Final = 1_000

FAILED: Final = "failed"  # the provider refused or did not answer
CUT: Final = "cut"  # the answer ended early
ABANDONED: Final = "abandoned"  # the client left, and the provider's count never came


class Reader(Protocol):
    """Whoever looks for the provider's count in what goes by."""

    usage: Usage
    is_finished: bool
    has_error: bool

    def feed(self, data: bytes) -> bytes: ...

    def close(self) -> bytes: ...

    def estimated_completion(self) -> int: ...


class Exchange:
    """One request on its way through us."""

    __slots__ = (
        "admitted",
        "call",
        "first_byte",
        "generation",
        "has_left",
        "is_over",
        "is_read_on",
        "refused",
        "request",
        "route",
        "started",
        "status",
    )

    def __init__(
        self, call: Call, request: Request, admitted: Admitted, generation: int | None
    ) -> None:
        self.call = call
        self.request = request
        self.admitted = admitted
        self.generation = generation
        self.started = time.monotonic()
        self.first_byte: float | None = None
        self.status: int | None = None
        self.route: Route | None = None  # who has it, or had it last
        self.refused: tuple[tuple[Route, Answer], ...] = ()  # who was asked before
        self.has_left = False
        self.is_read_on = False  # though the client has left
        self.is_over = False

    @property
    def query(self) -> bytes:
        """Return what stood behind the address' question mark; the short way has none."""
        return self.call.head.scope.get("query_string", b"")

    def begin(self, answer: Answer) -> None:
        """Note that the provider's answer has begun."""
        self.status = answer.status
        if self.first_byte is None:
            self.first_byte = time.monotonic()


class Tally:
    """Writes the event and gives back what was held, once for each exchange."""

    def __init__(self, settler: Settler, admission: Admission) -> None:
        self._settler = settler
        self._admission = admission
        self._read_on: Counter[UUID] = Counter()  # by customer; those that have none are left out

    def settle(
        self,
        exchange: Exchange,
        usage: Usage,
        outcome: str,
        *,
        guessed: int = 0,
        is_unsure: bool = False,
    ) -> None:
        """Write the event and give the reservation back, once."""
        if exchange.is_over:
            return
        request, admitted, route = exchange.request, exchange.admitted, exchange.route
        if route is None:  # nobody was asked
            self.release(exchange)
            return
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
                model=route.model,
                prompt_tokens=prompt,
                completion_tokens=completion,
                cached_tokens=usage.cached,
                reasoning_tokens=usage.reasoning,
                provider_request_id=usage.provider_id,
                status_code=exchange.status,
                latency_ms=_milliseconds(ended - exchange.started),
                ttfb_ms=None if first is None else _milliseconds(first - exchange.started),
                streamed=request.is_stream,
                estimated=is_unsure or usage.prompt is None or usage.completion is None,
                outcome=outcome,
                upstream=route.upstream,
                generation=exchange.generation,
                is_agent=admitted.caller.kind is BOX,
            ),
            admitted.reservation.meter,
        )
        if exchange.refused:
            self._settle_earlier(exchange)
        self.release(exchange, prompt + completion)

    def settle_whole(self, exchange: Exchange, body: bytes) -> None:
        """Count a body that came in one piece."""
        usage = Usage()
        read_usage(body, usage)
        self.settle(exchange, usage, COMPLETE, guessed=len(body) // CHARACTERS_PER_TOKEN)

    def settle_stream(self, exchange: Exchange, reader: Reader, otherwise: str) -> None:
        """Count what a reader has seen; `otherwise` says how a stream ended that was not whole."""
        is_complete = reader.is_finished and not reader.has_error
        outcome = COMPLETE if is_complete else FAILED if reader.has_error else otherwise
        usage = reader.usage
        guessed = reader.estimated_completion() if usage.completion is None else 0
        self.settle(exchange, usage, outcome, guessed=guessed)

    def settle_early(self, exchange: Exchange, answer: Answer, reader: Reader) -> None:
        """Count what came of an answer that is not passed on to its end, if it began at all."""
        exchange.status = answer.status or None
        if answer.error is not None and not answer.status:
            self.fail(exchange, answer.error)
        elif answer.status in {0, OK}:
            self.settle_stream(exchange, reader, ABANDONED if exchange.has_left else CUT)
        else:
            self.settle_refused(exchange, answer.status)

    def settle_refused(self, exchange: Exchange, status: int) -> None:
        """Count a refusal or a failure by its status: docs/upstreams.md has the rule."""
        is_sure = status in NOTHING_RAN or status in ABOUT_THE_REQUEST
        prompt = None if status in MAY_BE_WORKING else 0
        self.settle(exchange, Usage(prompt, completion=0), FAILED, is_unsure=not is_sure)

    def fail(self, exchange: Exchange, error: UpstreamError) -> None:
        """Count a request that had no answer; there is nothing to count if nobody took it."""
        if error.was_sent:
            self.settle(exchange, Usage(completion=0), FAILED)
        else:
            self.release(exchange)

    def abandon(self, exchange: Exchange, answer: Answer, reader: Reader) -> None:
        """The client left: read on for the provider's count, within bounds."""
        if not self.leave(exchange) or not self._settler.drain(
            self._drain(exchange, answer, reader)
        ):
            answer.abort()
            self.settle_early(exchange, answer, reader)

    def abandon_asked(self, exchange: Exchange, asking: asyncio.Task[Answer]) -> None:
        """The client left before there was an answer: wait for it and its count, within bounds."""
        if not self.leave(exchange) or not self._settler.drain(self._wait(exchange, asking)):
            asking.cancel()
            self.settle(exchange, Usage(completion=0), ABANDONED)

    def leave(self, exchange: Exchange) -> bool:
        """Give the place among the parallel requests back at once; the count comes later.

        Say whether the answer may be read on for it: few of one customer may.
        """
        if not exchange.is_over and not exchange.has_left:
            exchange.has_left = True
            self._admission.leave(exchange.admitted.reservation)
            caller = exchange.admitted.caller
            held = self._read_on[caller.customer_id]
            exchange.is_read_on = held < MOST_LEFT or caller.is_unthrottled
            self._read_on[caller.customer_id] = held + exchange.is_read_on
        return exchange.is_read_on

    def release(self, exchange: Exchange, tokens: int = 0) -> None:
        """Give back what was held, without an event when there is nothing to count."""
        exchange.is_over = True
        self._admission.end(exchange.admitted.reservation, tokens)
        if exchange.is_read_on:
            exchange.is_read_on = False
            customer = exchange.admitted.caller.customer_id
            self._read_on[customer] -= 1
            if not self._read_on[customer]:
                del self._read_on[customer]

    def _settle_earlier(self, exchange: Exchange) -> None:
        """Write an event for each time that the request was refused before, without a token."""
        admitted = exchange.admitted
        for number, (route, answer) in enumerate(exchange.refused, 1):
            event = Event(
                request_id=f"{exchange.call.request_id}-{number}",
                customer_id=admitted.caller.customer_id,
                box_id=admitted.caller.box_id,
                period_start=admitted.period_start,
                timestamp=admitted.timestamp,
                model=route.model,
                prompt_tokens=0,
                completion_tokens=0,
                status_code=answer.status,
                streamed=exchange.request.is_stream,
                outcome=FAILED,
                upstream=route.upstream,
            )
            self._settler.settle(event, admitted.reservation.meter)

    async def _wait(self, exchange: Exchange, asking: asyncio.Task[Answer]) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._drain(exchange, await asking, reader_for(exchange.request))
        except UpstreamError as error:
            self.fail(exchange, error)
        except (NoRouteError, UnsafeHeaderError):
            self.release(exchange)
        except TimeoutError:
            pass  # what has come by now is all that is counted
        finally:
            self.settle(exchange, Usage(completion=0), ABANDONED)  # unless that is done

    async def _drain(self, exchange: Exchange, answer: Answer, reader: Reader) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                async for part in answer.parts():
                    reader.feed(part)
            reader.close()
        except (VendorError, TimeoutError):
            answer.abort()
        finally:
            self.settle_early(exchange, answer, reader)


class WholeReader:
    """Gathers a whole body, and reads it as `StreamReader` reads a stream."""

    def __init__(self) -> None:
        self.usage = Usage()
        self.is_finished = False
        self.has_error = False
        self._parts: list[bytes] = []
        self._bytes = 0

    def feed(self, data: bytes) -> bytes:
        """Take over a part; nothing is passed on.

        Raises:
            UpstreamError: there is no end of it.
        """
        self._bytes += len(data)
        if self._bytes > MAX_WHOLE_BYTES:
            raise too_large()
        self._parts.append(data)
        return b""

    def close(self) -> bytes:
        self.is_finished = read_usage(self.body(), self.usage) is not None
        return b""

    def body(self) -> bytes:
        """Return what has come."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    def estimated_completion(self) -> int:
        return self._bytes // CHARACTERS_PER_TOKEN


def reader_for(request: Request) -> StreamReader | WholeReader:
    return StreamReader(request) if request.is_stream else WholeReader()


def _milliseconds(seconds: float) -> int:
    return int(seconds * SECOND_MS + 0.5)
