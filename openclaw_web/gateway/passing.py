"""The short way through: what arrives from the provider is written to the client, with no task.

Each exchange here is moved on by its two connections. Whatever needs to wait for something else
(another provider, a new connection, a refusal) goes on in `forwarding.py`.
"""

import logging

from openclaw_web.gateway import errors
from openclaw_web.gateway.calls import JSON
from openclaw_web.gateway.direct import DirectCall
from openclaw_web.gateway.errors import UnknownTokenError
from openclaw_web.gateway.exchange import (
    ABANDONED,
    CUT,
    Exchange,
    Tally,
    WholeReader,
    reader_for,
)
from openclaw_web.gateway.forwarding import Forwarder, cut, unavailable
from openclaw_web.gateway.patience import Patience
from openclaw_web.gateway.providers import Providers, Sent
from openclaw_web.gateway.statuses import OK
from openclaw_web.gateway.stopping import stopping
from openclaw_web.gateway.streams import StreamReader
from openclaw_web.gateway.usage import Usage
from openclaw_web.integrations.upstream import UpstreamError

logger = logging.getLogger(__name__)


class Passing:
    """All exchanges of this process that go the short way."""

    def __init__(
        self, providers: Providers, tally: Tally, patience: Patience, forwarder: Forwarder
    ) -> None:
        self.providers = providers
        self.tally = tally
        self.patience = patience
        self.forwarder = forwarder
        self.running: set[Passage] = set()

    def begin(self, call: DirectCall, exchange: Exchange) -> bool:
        """Ask the provider if that can be done at once; `False` when it cannot.

        Raises:
            NoRouteError: there is nobody to ask.
            UnsafeHeaderError: a header holds a line break.
        """
        if call.disconnected:  # while the other processes were asked
            self.tally.release(exchange)
            return True
        customer = exchange.admitted.caller.customer_id
        sent = self.providers.ask_now(exchange.request, call.head.passed_on, customer, exchange)
        if sent is None:
            return False
        self.running.add(Passage(self, call, exchange, sent))
        return True

    def stop(self) -> None:
        """Tell all clients to come again; answers that have begun are read on for their count."""
        for passage in tuple(self.running):
            passage.stop()


class Passage:
    """One exchange. Its methods are called by the provider's connection and by the client's."""

    __slots__ = ("_all", "_answer", "_call", "_exchange", "_reader", "_sent", "_whole")

    def __init__(
        self, everything: Passing, call: DirectCall, exchange: Exchange, sent: Sent
    ) -> None:
        self._all = everything
        self._call = call
        call.is_passing = True
        self._exchange = exchange
        self._sent = sent
        self._answer = sent.answer
        self._reader: StreamReader | None = None
        self._whole: WholeReader | None = None  # of an answer that does not come in one piece
        self._answer.listener = self._go_on
        call.on_gone = self._leave

    def cancel(self) -> None:
        """Close the client's connection, which does not take what it asked for."""
        self._call.close()
        self._let_go()

    def stop(self) -> None:
        """Tell the client, in its API's form, that it gets no more from this process."""
        call, reader, form = self._call, self._reader, self._exchange.request.form
        self._let_go()
        if reader is None:
            call.run(call.refuse(stopping(), form))
        elif call.is_held_back:
            call.close()
        else:
            call.write_last(reader.separator + errors.event_of(stopping(), form))

    def _go_on(self) -> None:
        """Something has arrived from the provider, or the client can take more."""
        try:
            if self._reader is not None:
                self._pass_on(self._reader)
            elif self._answer.status == OK and self._answer.error is None:
                self._begin()
            elif self._answer.status or self._answer.error is not None:
                self._hand_over()
        except Exception:
            logger.exception(
                "A proxied request failed.", extra={"request_id": self._call.request_id}
            )
            self._call.close()
            self._end()
            self._answer.abort()
            self._all.tally.settle_early(self._exchange, self._answer, self._seen())

    def _begin(self) -> None:
        """The head has arrived, and often everything else with it."""
        exchange, answer = self._exchange, self._answer
        if exchange.first_byte is None:
            exchange.begin(answer)
            self._all.providers.welcome(self._sent)
        if exchange.request.is_stream:
            self._begin_stream()
        elif answer.is_complete:
            self._end()
            body = answer.take()
            if self._whole is not None:
                body = self._whole.body() + body
            self._all.tally.settle_whole(exchange, body)
            self._call.write_whole(*_kind(self._sent), body)
        elif answer.waiting_bytes:
            self._gather(answer.take())

    def _gather(self, part: bytes) -> None:
        if self._whole is None:
            self._whole = WholeReader()
        try:
            self._whole.feed(part)
        except UpstreamError as error:
            self._answer.fail(error)

    def _begin_stream(self) -> None:
        call = self._call
        self._reader = reader = StreamReader(self._exchange.request)
        call.on_drained = self._drained
        call.begin_stream(*_kind(self._sent))
        if call.disconnected:
            self._leave()
            return
        self._exchange.admitted.caller.ending.watch(self._revoke)
        self._pass_on(reader)

    def _pass_on(self, reader: StreamReader) -> None:
        """Write what there is, unless the client is behind: then the provider is held back too."""
        call, answer = self._call, self._answer
        if answer.listener is None:
            return
        if call.is_held_back:
            self._all.patience.begin(self)
            return
        data = answer.take()
        passed = reader.feed(data) if data else b""
        if answer.is_complete or answer.error is not None:
            self._end_stream(reader, passed)
            return
        call.write_part(passed)
        if call.is_held_back:
            self._all.patience.begin(self)

    def _end_stream(self, reader: StreamReader, passed: bytes) -> None:
        self._end()
        exchange, error = self._exchange, self._answer.error
        if error is None:
            passed += reader.close()
        else:
            has_ended = exchange.admitted.caller.ending.has_come
            refusal = UnknownTokenError() if has_ended else unavailable(error)
            passed += reader.separator + errors.event_of(refusal, exchange.request.form)
        self._all.tally.settle_stream(exchange, reader, CUT)
        self._call.write_last(passed)

    def _hand_over(self) -> None:
        """Let the provider's refusal, or its failure, be dealt with by who can try another."""
        self._end()
        if self._whole is None or self._answer.error is None:
            self._call.run(self._all.forwarder.forward(self._exchange, self._sent))
        else:  # of what was gathered here
            self._all.tally.settle_early(self._exchange, self._answer, self._whole)
            self._call.run(_refuse(self._answer.error))

    def _drained(self) -> None:
        self._all.patience.end(self)
        self._go_on()

    def _revoke(self) -> None:
        cut(self._answer)

    def _let_go(self) -> None:
        """Leave the client: what has not begun is not waited for."""
        if self._answer.status:
            self._leave()
        elif self._answer.listener is not None:
            self._end()
            self._answer.abort()
            self._all.tally.settle(self._exchange, Usage(completion=0), ABANDONED)

    def _leave(self) -> None:
        """The client has gone: what has begun is read on for its count."""
        if self._answer.listener is None:
            return
        self._end()
        self._all.tally.abandon(self._exchange, self._answer, self._seen())

    def _seen(self) -> StreamReader | WholeReader:
        """Return who has seen what came until now."""
        return self._reader or self._whole or reader_for(self._exchange.request)

    def _end(self) -> None:
        """Listen to nobody any more."""
        self._answer.listener = self._call.on_gone = None
        self._all.running.discard(self)
        if self._reader is not None:
            self._call.on_drained = None
            self._all.patience.end(self)
            self._exchange.admitted.caller.ending.forget(self._revoke)


async def _refuse(error: UpstreamError) -> None:
    raise unavailable(error)


def _kind(sent: Sent) -> tuple[bytes, bytes | None]:
    header = sent.answer.header
    return header(b"content-type") or JSON, header(b"content-encoding")
