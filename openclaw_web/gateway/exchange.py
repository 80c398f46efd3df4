"""One request on its way through us, which ends as exactly one usage event."""

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

import msgspec

from openclaw_web.core.errors import VendorError
from openclaw_web.gateway.admission import Admission, Admitted
from openclaw_web.gateway.calls import Call
from openclaw_web.gateway.guessing import CHARACTERS_PER_TOKEN
from openclaw_web.gateway.settling import COMPLETE, Settler
from openclaw_web.gateway.wire import Request, Usage, read_usage
from openclaw_web.integrations.upstream import Answer
from openclaw_web.metering.ledger import Event
from openclaw_web.metering.models import TokenKind

DRAIN_SECONDS = 120.0
SECOND_MS = 1_000

FAILED = "failed"  # the provider refused or did not answer
CUT = "cut"  # the answer ended early
ABANDONED = "abandoned"  # the client left, and the provider's count never came


class Reader(Protocol):
    """Whoever looks for the provider's count in what goes by."""

    usage: Usage
    is_finished: bool
    has_error: bool

    def feed(self, data: bytes) -> bytes: ...

    def close(self) -> bytes: ...

    def estimated_completion(self) -> int: ...


class Exchange(msgspec.Struct, eq=False):
    """One request on its way through us."""

    call: Call
    request: Request
    admitted: Admitted
    generation: int | None
    started: float = msgspec.field(default_factory=time.monotonic)
    first_byte: float | None = None
    status: int | None = None
    upstream: str = ""
    has_left: bool = False
    is_over: bool = False

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

    def settle(self, exchange: Exchange, usage: Usage, outcome: str, *, guessed: int = 0) -> None:
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
                is_agent=admitted.caller.kind is TokenKind.BOX,
            ),
            admitted.reservation.meter,
        )
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

    def abandon(self, exchange: Exchange, answer: Answer, reader: Reader) -> None:
        """The client left: read on for the provider's count, within bounds."""
        self.leave(exchange)
        if not self._settler.drain(self._drain(exchange, answer, reader)):
            answer.abort()
            self.settle_stream(exchange, reader, ABANDONED)

    def leave(self, exchange: Exchange) -> None:
        """Give the place among the parallel requests back at once; the count comes later."""
        if not exchange.is_over and not exchange.has_left:
            exchange.has_left = True
            self._admission.leave(exchange.admitted.reservation)

    def release(self, exchange: Exchange, tokens: int = 0) -> None:
        """Give back what was held, without an event when there is nothing to count."""
        exchange.is_over = True
        self._admission.end(exchange.admitted.reservation, tokens)

    async def _drain(self, exchange: Exchange, answer: Answer, reader: Reader) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                async for part in answer.parts():
                    reader.feed(part)
            reader.close()
        except (VendorError, TimeoutError):
            answer.abort()
        finally:
            self.settle_stream(exchange, reader, ABANDONED)


class WholeReader:
    """Reads a whole body that nobody waits for, as `StreamReader` reads a stream."""

    def __init__(self, begun: Sequence[bytes] = ()) -> None:
        self.usage = Usage()
        self.is_finished = False
        self.has_error = False
        self._parts: list[bytes] = list(begun)

    def feed(self, data: bytes) -> bytes:
        self._parts.append(data)
        return b""

    def close(self) -> bytes:
        self.is_finished = read_usage(b"".join(self._parts), self.usage) is not None
        return b""

    def estimated_completion(self) -> int:
        return sum(map(len, self._parts)) // CHARACTERS_PER_TOKEN


def _milliseconds(seconds: float) -> int:
    return round(seconds * SECOND_MS)
