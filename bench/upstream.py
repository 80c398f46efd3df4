"""`python -m bench.upstream --port N`: a fast fake provider that counts what it served.

`GET /__stats` tells the totals, `GET /__timeline` when answers that took time were made. One
process without a framework: it must never be the bottleneck.
"""

import argparse
import asyncio
import json
import re
import secrets
import time
from dataclasses import asdict, dataclass
from typing import cast

import uvloop

from bench import answers
from bench.answers import Case

BACKLOG = 2_048
MILLISECONDS = 1_000
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_RUN = secrets.token_hex(4).encode()
_FAILURE = b'{"error":{"message":"the bench wants this to fail","type":"server_error"}}'


@dataclass
class Served:
    """What the provider would put on its bill."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    streams_done: int = 0
    streams_ended_early: int = 0
    failures: int = 0

    def bill(self, completion_tokens: int) -> None:
        self.prompt_tokens += answers.PROMPT_TOKENS
        self.completion_tokens += completion_tokens


SERVED = Served()
TIMELINE: list[tuple[float, float, int]] = []  # of answers that took time: from, to, tokens


class Provider(asyncio.Protocol):
    """One connection; requests on it are answered one after the other."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        if self._answering is not None:
            self._answering.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._next()

    def _next(self) -> None:
        """Answer what has arrived whole, until an answer takes time."""
        while self._received and self._answering is None and self._transport is not None:
            head_end = self._received.find(b"\r\n\r\n")
            if head_end < 0:
                return
            head = self._received[:head_end]
            length = _LENGTH.search(head)
            end = head_end + 4 + (int(length[1]) if length else 0)
            if len(self._received) < end:
                return
            body, self._received = self._received[head_end + 4 : end], self._received[end:]
            self._serve(self._transport, head.partition(b"\r\n")[0], body)

    def _serve(self, transport: asyncio.Transport, line: bytes, body: bytes) -> None:
        if line.startswith(b"GET"):
            told = TIMELINE if b"/__timeline" in line else asdict(SERVED)
            transport.write(answers.response(json.dumps(told).encode()))
            return
        SERVED.requests += 1
        case = answers.case_of(body, is_anthropic=b"/messages" in line)
        answer_id = b"%s%08x" % (_RUN, SERVED.requests)
        if case.delay_ms or case.is_cut:
            self._answering = asyncio.create_task(self._serve_slowly(transport, case, answer_id))
            return
        transport.write(_quick_answer(case).replace(answers.ID_PLACE, answer_id))

    async def _serve_slowly(
        self, transport: asyncio.Transport, case: Case, answer_id: bytes
    ) -> None:
        """Answer in time; the provider bills what it made, also when nobody waited for it."""
        if not case.is_stream:
            began = time.monotonic()
            await asyncio.sleep(case.delay_ms / MILLISECONDS)
            tokens = answers.PROMPT_TOKENS + case.tokens
            TIMELINE.append((began, time.monotonic(), tokens))
            transport.write(_quick_answer(case).replace(answers.ID_PLACE, answer_id))
        elif not await _stream(transport, case, answer_id):
            transport.abort()
        self._answering = None
        self._next()


def _quick_answer(case: Case) -> bytes:
    """Count and return an answer that is written at once."""
    if case.is_failure:
        SERVED.failures += 1
        return answers.response(_FAILURE, b"500 Internal Server Error")
    SERVED.bill(case.tokens)
    if not case.is_stream:
        return answers.whole(case)
    SERVED.streams_done += 1
    return answers.STREAM_HEAD + b"".join(answers.chunks(case)) + answers.STREAM_END


async def _stream(transport: asyncio.Transport, case: Case, answer_id: bytes) -> bool:
    """Write chunk by chunk; `False` when the script wants the connection to be cut."""
    events = answers.chunks(case)
    written = events[: len(events) // 2] if case.is_cut else events
    said = 0
    try:
        transport.write(answers.STREAM_HEAD)
        for number, event in enumerate(written):
            if number and case.delay_ms:
                await asyncio.sleep(case.delay_ms / MILLISECONDS)
            transport.write(event.replace(answers.ID_PLACE, answer_id))
            said = min(number, case.tokens)
    except asyncio.CancelledError:
        SERVED.streams_ended_early += 1
        raise
    finally:
        SERVED.bill(said)
    if case.is_cut:
        SERVED.streams_ended_early += 1
        await asyncio.sleep(0.02)  # what was written shall arrive before the connection ends
        return False
    transport.write(answers.STREAM_END)
    SERVED.streams_done += 1
    return True


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Provider, "127.0.0.1", port, backlog=BACKLOG)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(_serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
