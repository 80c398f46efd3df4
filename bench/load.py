"""`python -m bench.load URL --token T`: ask a proxy many times, and print what came of it as JSON.

Closed loop (`-c` connections for `--seconds`, or `--count` requests), or open loop (`--rate`, the
latency counted from when a request was due). `--leave-after N` leaves a stream at its Nth event.
`--samples FILE` keeps each request: monotonic start in seconds, latency in ms, status.
"""

import argparse
import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from bench.connection import Connection, now

SENTENCE = "Hello, please summarise this. "
FEWEST_SENTENCES = 8
OK = 200
KIB = 1024
SECOND_MS = 1_000
SEED = 7


class RefusedError(Exception):
    """The answer was not the one wanted."""


@dataclass
class Tally:
    """What happened so far; latencies in seconds."""

    latencies: list[float] = field(default_factory=list)
    first_bytes: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    samples: list[tuple[float, float, int]] = field(default_factory=list)
    events: int = 0
    without_retry_after: int = 0  # told that it is not now, and not when


class Load:
    """One run against one address."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self._chosen = chosen
        address = urlsplit(chosen.url)
        self._host, self._port = address.hostname or "", address.port or 80
        self._request = request_of(chosen)
        self._idle: list[Connection] = []
        self._ends_at = 0.0
        self._left = chosen.count
        self.tally = Tally()

    async def run(self) -> dict[str, object]:
        began = now()
        self._ends_at = began + self._chosen.seconds
        await (self._open_loop() if self._chosen.rate else self._closed_loop())
        return self._result(now() - began)

    async def _closed_loop(self) -> None:
        await asyncio.gather(*(self._keep_asking() for _ in range(self._chosen.connections)))

    async def _keep_asking(self) -> None:
        if self._chosen.stream and not self._chosen.count:
            await asyncio.sleep(random.random() / 2)  # noqa: S311 - streams shall not run in step
        while self._left > 0 if self._chosen.count else now() < self._ends_at:
            self._left -= 1
            await self._ask(now())

    async def _open_loop(self) -> None:
        """Ask at random moments of a fixed mean rate, whether earlier answers came or not."""
        moments = random.Random(SEED)  # noqa: S311 - the same moments in each run, on purpose
        running: set[asyncio.Task[None]] = set()
        due = now()
        while (due := due + moments.expovariate(self._chosen.rate)) < self._ends_at:
            await asyncio.sleep(max(0.0, due - now()))
            if len(running) >= self._chosen.connections:
                self.tally.errors["not sent: all connections are busy"] += 1
                continue
            task = asyncio.create_task(self._ask(due))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)

    async def _ask(self, due: float) -> None:
        """Ask once and note what came; an error is a figure too."""
        connection, status, clock = None, 0, time.monotonic()
        try:
            connection = await self._connection()
            asking = connection.ask(
                self._request, is_stream=self._chosen.stream, leave_after=self._chosen.leave_after
            )
            await _within(self._chosen.timeout, asking)
            status = connection.status
            self._check(connection)
            self._note(connection, due)
        except (OSError, TimeoutError, RefusedError) as error:
            self.tally.errors[f"{type(error).__name__}: {error}"[:80]] += 1
            if connection is not None and not (status and not connection.is_closed):
                connection.abort()
            await asyncio.sleep(self._chosen.pause)
        self.tally.statuses[status] += 1
        if self._chosen.samples:
            self.tally.samples.append((clock, (now() - due) * SECOND_MS, status))
        if connection is not None and not connection.is_closed:
            self._idle.append(connection)

    async def _connection(self) -> Connection:
        while self._idle:
            kept = self._idle.pop()
            if not kept.is_closed:
                return kept
        loop = asyncio.get_running_loop()
        _, fresh = await loop.create_connection(Connection, self._host, self._port)
        return fresh

    def _check(self, connection: Connection) -> None:
        if connection.status != OK:
            self.tally.without_retry_after += not connection.has_retry_after
            raise RefusedError(f"status {connection.status}")
        if self._chosen.stream and not (connection.has_ended_well or connection.has_left):
            raise RefusedError("the stream was cut")

    def _note(self, connection: Connection, due: float) -> None:
        self.tally.latencies.append(now() - due)
        self.tally.first_bytes.append((connection.first_byte_at or now()) - due)
        self.tally.events += connection.events

    def _result(self, seconds: float) -> dict[str, object]:
        tally, done = self.tally, len(self.tally.latencies)
        if self._chosen.samples:
            Path(self._chosen.samples).write_text(json.dumps(tally.samples), encoding="utf-8")
        return {
            "n": done,
            "wall_s": round(seconds, 3),
            "per_s": round(done / seconds, 1),
            "events": tally.events,
            **{f"lat_p{rank}": _quantile(tally.latencies, rank) for rank in (50, 95, 99)},
            **{f"ttfb_p{rank}": _quantile(tally.first_bytes, rank) for rank in (50, 95, 99)},
            "errors": sum(tally.errors.values()),
            "error_kinds": dict(tally.errors),
            "without_retry_after": tally.without_retry_after,
            "statuses": {str(status): count for status, count in tally.statuses.items()},
        }


async def _within(seconds: float, asking: Awaitable[None]) -> None:
    async with asyncio.timeout(seconds):
        await asking


def request_of(chosen: argparse.Namespace) -> bytes:
    address = urlsplit(chosen.url)
    script = f"bench[{chosen.script}] " if chosen.script else ""
    content = script + SENTENCE * max(FEWEST_SENTENCES, chosen.prompt_kib * KIB // len(SENTENCE))
    body: dict[str, object] = {
        "model": chosen.model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": chosen.max_tokens,
    }
    is_anthropic = address.path.endswith("/messages")
    if chosen.stream:
        body["stream"] = True
    if chosen.stream and not is_anthropic and not chosen.without_usage:
        body["stream_options"] = {"include_usage": True}
    data = json.dumps(body).encode()
    head = [
        f"POST {address.path} HTTP/1.1",
        f"Host: {address.netloc}",
        "Content-Type: application/json",
        f"x-api-key: {chosen.token}" if is_anthropic else f"Authorization: Bearer {chosen.token}",
        f"Content-Length: {len(data)}",
        *chosen.header,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + data


def quantile(values: Sequence[float], rank: int) -> float:
    """Return the value below which `rank` percent lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * rank // 100)]


def _quantile(seconds: list[float], rank: int) -> float | None:
    return round(quantile(seconds, rank) * SECOND_MS, 3) if seconds else None


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("url")
    made.add_argument("--token", required=True)
    made.add_argument("--model", default="k2p5")
    made.add_argument("--stream", action="store_true")
    made.add_argument("--without-usage", action="store_true", help="do not ask for a usage chunk")
    made.add_argument("-c", "--connections", type=int, default=64)
    made.add_argument("--seconds", type=float, default=3)
    made.add_argument("--count", type=int, default=0, help="so many requests, however long")
    made.add_argument("--rate", type=float, default=0, help="requests a second, open loop")
    made.add_argument("--leave-after", type=int, default=0, help="events")
    made.add_argument("--timeout", type=float, default=60, help="seconds for one answer")
    made.add_argument("--pause", type=float, default=0.005, help="seconds after a refusal")
    made.add_argument("--prompt-kib", type=int, default=0)
    made.add_argument("--max-tokens", type=int, default=256)
    made.add_argument("--script", default="", help="what the fake provider shall do")
    made.add_argument("--header", action="append", default=[])
    made.add_argument("--samples", default="", help="file for each request's figures")
    return made


def main() -> None:
    print(json.dumps(uvloop.run(Load(parser().parse_args()).run())))


if __name__ == "__main__":
    main()
