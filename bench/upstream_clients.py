"""`python -m bench.upstream_clients`: what our HTTP client costs, beside two general ones.

CPU time of this process for a request and its answer, the parser's and the kernel's share in it
included; the fake provider is a process of its own. Rounds are interleaved, so that a machine that
is slow for a while is slow for all of them; the median is shown, and the quietest round.
"""

import argparse
import asyncio
import gc
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import httpx
import uvloop

from openclaw_web.integrations.upstream import Upstream
from openclaw_web.local import ports

Ask = Callable[[bytes], Awaitable[int]]

PATH = "/v1/chat/completions"
PROMPT = b'"model":"kimi-for-coding","messages":[{"role":"user","content":"%b"}]' % (b"y" * 900)
WHOLE = b"{" + PROMPT + b"}"
STREAM = b"{" + PROMPT + b',"stream":true}'
CASES = {"1 at a time": (WHOLE, 1), "64 at a time": (WHOLE, 64), "50 chunks, 64": (STREAM, 64)}
HEADERS = {
    "authorization": "Bearer sk-x",
    "user-agent": "OpenAI/JS",
    "accept-encoding": "identity",
    "content-type": "application/json",
}
REQUESTS = {"ours": 6_400, "aiohttp": 3_200, "httpx": 320}
MICROSECONDS = 1_000_000


@asynccontextmanager
async def ours(address: str) -> AsyncGenerator[Ask]:
    pool = Upstream(address)
    prepared = pool.prepare(PATH, ((b"authorization", b"Bearer sk-x"),))
    said = ((b"user-agent", b"OpenAI/JS"),)

    async def ask(body: bytes) -> int:
        answer = await pool.post(prepared, body, said)
        return sum([len(part) async for part in answer.parts()])

    yield ask
    await pool.close()


@asynccontextmanager
async def with_aiohttp(address: str) -> AsyncGenerator[Ask]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(body: bytes) -> int:
            async with session.post(address + PATH, data=body, headers=HEADERS) as answer:
                return sum([len(part) async for part in answer.content.iter_any()])

        yield ask


@asynccontextmanager
async def with_httpx(address: str) -> AsyncGenerator[Ask]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, trust_env=False) as session:

        async def ask(body: bytes) -> int:
            async with session.stream("POST", address + PATH, content=body, headers=HEADERS) as got:
                return sum([len(part) async for part in got.aiter_raw()])

        yield ask


CLIENTS = {"ours": ours, "aiohttp": with_aiohttp, "httpx": with_httpx}


async def measure(ask: Ask, body: bytes, at_once: int, requests: int) -> float:
    """Return CPU microseconds a request."""

    async def work(count: int) -> None:
        for _ in range(count):
            assert await ask(body) > 0  # noqa: S101 - a bench that measures nothing must fail

    await asyncio.gather(*(work(2) for _ in range(at_once)))
    each = requests // at_once
    began = time.process_time()
    await asyncio.gather(*(work(each) for _ in range(at_once)))
    return (time.process_time() - began) / (each * at_once) * MICROSECONDS


async def run(address: str, rounds: int) -> None:
    found: dict[tuple[str, str], list[float]] = {}
    async with AsyncExitStack() as stack:
        asking = {
            name: await stack.enter_async_context(make(address)) for name, make in CLIENTS.items()
        }
        gc.collect()
        gc.freeze()
        for _ in range(rounds):
            for case, (body, at_once) in CASES.items():
                for name, ask in asking.items():
                    spent = await measure(ask, body, at_once, REQUESTS[name])
                    found.setdefault((name, case), []).append(spent)
    print("| client, CPU µs a request | " + " | ".join(CASES) + " |")
    for name in CLIENTS:
        cells = [found[name, case] for case in CASES]
        shown = [f"{statistics.median(cell):.0f} ({min(cell):.0f})" for cell in cells]
        print(f"| {name} | " + " | ".join(shown) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    port = ports.free_port()
    provider = subprocess.Popen([sys.executable, "-m", "bench.upstream", "--port", str(port)])  # noqa: S603 - ours
    try:
        time.sleep(1)
        uvloop.run(run(f"http://127.0.0.1:{port}", parser.parse_args().rounds))
    finally:
        provider.terminate()
        provider.wait()


if __name__ == "__main__":
    main()
