"""Forward and count, waiting where something is to be waited for; bytes go through as they come.

`passing.py` has the short way, for requests that need not wait for anything but the provider.
"""

import asyncio
import logging
from functools import partial

from openclaw_web.core.errors import VendorError
from openclaw_web.gateway import errors
from openclaw_web.gateway.calls import JSON
from openclaw_web.gateway.errors import (
    BadRequestError,
    RefusalError,
    SlowDownError,
    UnavailableError,
    UnknownTokenError,
)
from openclaw_web.gateway.exchange import ABANDONED, CUT, Exchange, Tally, WholeReader
from openclaw_web.gateway.patience import Patience
from openclaw_web.gateway.providers import NoRouteError, Providers, Sent
from openclaw_web.gateway.statuses import ABOUT_THE_REQUEST, OK, SLOW_DOWN
from openclaw_web.gateway.stopping import stopping
from openclaw_web.gateway.streams import StreamReader
from openclaw_web.gateway.usage import Usage
from openclaw_web.integrations.upstream import (
    Answer,
    UnsafeHeaderError,
    UpstreamError,
)

logger = logging.getLogger(__name__)

DEFAULT_RETRY_SECONDS = 2
LAST_WORD_SECONDS = 0.5


class Forwarder:
    def __init__(self, providers: Providers, tally: Tally, patience: Patience) -> None:
        self._patience = patience
        self._providers = providers
        self._tally = tally

    async def forward(self, exchange: Exchange, sent: Sent | None = None) -> None:
        """Ask the provider, unless that was `sent` already, and pass its answer on.

        Raises:
            RefusalError: the provider refused or failed before the answer began.
        """
        leaving = asyncio.ensure_future(exchange.call.gone())
        try:
            answer = await self._ask(exchange, sent, leaving)
            if answer is None:
                return
            leaving.add_done_callback(partial(self._leave, exchange, answer))
            if exchange.request.is_stream and answer.status == OK:
                await self._pass_stream(exchange, answer)
            else:
                await self._pass_whole(exchange, answer)
        except RefusalError:
            raise
        except Exception:
            self._tally.settle(exchange, Usage(), CUT)
            raise
        finally:
            leaving.cancel()

    async def _ask(
        self, exchange: Exchange, sent: Sent | None, leaving: asyncio.Future[None]
    ) -> Answer | None:
        """Return the answer's beginning; `None` when the client did not wait for it."""
        passed = exchange.call.head.passed_on
        customer = exchange.admitted.caller.customer_id
        asking = asyncio.ensure_future(
            self._providers.ask(exchange.request, passed, customer, exchange, sent)
        )
        try:
            await asyncio.wait((asking, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                self._tally.abandon_asked(exchange, asking)
                return None
            answer = asking.result()
        except UpstreamError as error:
            self._tally.fail(exchange, error)
            raise unavailable(error) from error
        except (NoRouteError, UnsafeHeaderError) as error:
            self._tally.release(exchange)
            raise BadRequestError(str(error)) from error
        except asyncio.CancelledError:
            asking.cancel()
            self._tally.settle(exchange, Usage(completion=0), ABANDONED)
            raise
        exchange.begin(answer)
        return answer

    def _leave(self, exchange: Exchange, answer: Answer, leaving: asyncio.Future[None]) -> None:
        """The client has left an answer that has begun; who passes it on sees that by itself."""
        if leaving.cancelled() or self._tally.leave(exchange):
            return
        if not exchange.is_over and not answer.is_complete:
            answer.fail(UpstreamError("The client has left.", code="left"))

    async def _pass_whole(self, exchange: Exchange, answer: Answer) -> None:
        body = await self._read_whole(exchange, answer)
        if body is None:
            return
        if answer.status != OK and answer.status not in ABOUT_THE_REQUEST:
            raise _refusal(answer)
        call = exchange.call
        self._patience.begin(call.task)
        try:
            await call.begin(answer.status, _head(answer, length=len(body)))
            await call.end(body)
        except asyncio.CancelledError:
            if not self._patience.was_lost(call.task):
                raise
        finally:
            self._patience.end(call.task)

    async def _read_whole(self, exchange: Exchange, answer: Answer) -> bytes | None:
        """Read and count a body that is not streamed; `None` when nobody waits for it any more."""
        reader = WholeReader()
        try:
            async for part in answer.parts():
                reader.feed(part)
                if exchange.has_left:
                    self._tally.abandon(exchange, answer, reader)
                    return None
        except VendorError as error:
            answer.abort()
            self._tally.settle_early(exchange, answer, reader)
            raise unavailable(error) from error
        except asyncio.CancelledError:
            self._tally.abandon(exchange, answer, reader)
            raise
        body = reader.body()
        if answer.status == OK:
            self._tally.settle_whole(exchange, body)
        else:
            self._tally.settle_refused(exchange, answer.status)
        return body

    async def _pass_stream(self, exchange: Exchange, answer: Answer) -> None:
        reader, task = StreamReader(exchange.request), exchange.call.task
        ending, stop = exchange.admitted.caller.ending, partial(cut, answer)
        ending.watch(stop)
        try:
            rest = await self._pump(exchange, answer, reader)
            if rest is not None:
                self._patience.begin(task)
                await exchange.call.end(rest)
        except (OSError, RuntimeError):  # what servers raise when the client has gone
            self._tally.abandon(exchange, answer, reader)
        except asyncio.CancelledError:
            self._tally.abandon(exchange, answer, reader)
            if not self._patience.was_lost(task) and not await _say_last(exchange, reader):
                raise
        finally:
            self._patience.end(task)
            ending.forget(stop)

    async def _pump(self, exchange: Exchange, answer: Answer, reader: StreamReader) -> bytes | None:
        """Pass on and count; return what the client gets at the end, or `None` if it has left."""
        try:
            if not await self._pass_parts(exchange, answer, reader):
                self._tally.abandon(exchange, answer, reader)
                return None
        except VendorError as error:
            self._tally.settle_early(exchange, answer, reader)
            has_ended = exchange.admitted.caller.ending.has_come
            refusal = UnknownTokenError() if has_ended else unavailable(error)
            return reader.separator + errors.event_of(refusal, exchange.request.form)
        rest = reader.close()
        self._tally.settle_stream(exchange, reader, CUT)
        return rest

    async def _pass_parts(self, exchange: Exchange, answer: Answer, reader: StreamReader) -> bool:
        call, task, patience = exchange.call, exchange.call.task, self._patience
        patience.begin(task)
        await call.begin(answer.status, _head(answer, length=None))
        patience.end(task)
        async for part in answer.parts():
            passed = reader.feed(part)
            if exchange.has_left:
                return False
            if passed:
                patience.begin(task)
                await call.go_on(passed)
                patience.end(task)
        return True


def cut(answer: Answer) -> None:
    """The caller's token has ended: so does the answer, as if the provider had failed."""
    answer.abort()
    answer.fail(UpstreamError("The token was revoked or has expired.", code="token_ended"))


async def _say_last(exchange: Exchange, reader: StreamReader) -> bool:
    """Tell the client of a server that stops to come again; `False` when it does not take it."""
    call, event = exchange.call, errors.event_of(stopping(), exchange.request.form)
    if not call.has_begun:
        return False
    try:
        async with asyncio.timeout(LAST_WORD_SECONDS):
            await call.end(reader.separator + event)
    except (OSError, RuntimeError):  # a TimeoutError is one of the first
        return False
    return True


def unavailable(error: VendorError) -> RefusalError:
    return UnavailableError(str(error), status=502, code=f"upstream_{error.code or 'failed'}")


def _head(answer: Answer, *, length: int | None) -> list[tuple[bytes, bytes]]:
    headers = [(b"content-type", answer.header(b"content-type") or JSON)]
    if length is None:
        headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
    else:
        headers.append((b"content-length", b"%d" % length))
    if (encoding := answer.header(b"content-encoding")) is not None:
        headers.append((b"content-encoding", encoding))
    return headers


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
