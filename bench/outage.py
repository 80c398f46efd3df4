"""PostgreSQL away under load: nobody waits for it, and afterwards everything is counted."""

import argparse
import asyncio
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import redis

from bench import asking, counts, latency, machine, metering, targets
from bench.asking import Result
from bench.checks import Outcome
from bench.customer import Holder, make_holder
from bench.latency import Halves, Moments
from bench.machine import Cores
from bench.stack import Server, Stack, stack
from openclaw_web.local import postgres

RATE = 100  # requests a second: far from what a proxy can do, so that waiting shows
MOST_AT_ONCE = 256
STREAMS = 4
WARM_SECONDS = 5
RECOVERY_SECONDS = 10
SABOTAGE_FACTOR = 10.0
PLAIN = "plain"
STREAMED = "streamed"
CONTROL = "control"  # the same requests at the same time, to another provider, without our proxy

Change = Callable[[Stack], None]


def run_paused(chosen: argparse.Namespace, outcome: Outcome) -> None:
    """Freeze every process of PostgreSQL: connections stay open, and nothing answers."""
    _run(chosen, outcome, _pause, _resume)


def run_stopped(chosen: argparse.Namespace, outcome: Outcome) -> None:
    """Stop PostgreSQL as an administrator does, and start it again."""
    _run(chosen, outcome, lambda opened: opened.servers["postgres"].stop(), _start)


def run_flushed(chosen: argparse.Namespace, outcome: Outcome) -> None:
    """Empty Redis in the moment in which PostgreSQL goes away."""

    def flush_and_stop(opened: Stack) -> None:
        flush(opened)
        opened.servers["postgres"].stop()

    _run(chosen, outcome, flush_and_stop, _start)


def flush(opened: Stack) -> None:
    with redis.Redis.from_url(opened.redis.url) as client:
        client.flushall()


def pin(opened: Stack, *proxies: Server) -> None:
    """Give the proxies one core, and everything else with us the other."""
    cores = Cores()
    for server in opened.servers.values():
        machine.pin(server.processes(), cores.proxy if server in proxies else cores.rest)
    machine.pin_self(cores.rest)


def _run(chosen: argparse.Namespace, outcome: Outcome, break_it: Change, mend_it: Change) -> None:
    with stack() as opened:
        holder = asyncio.run(make_holder(opened))
        proxy, control = opened.start_proxy(), _start_control(opened)
        pin(opened, proxy, control)
        asked = {PLAIN: proxy, STREAMED: proxy, CONTROL: control}
        seconds = WARM_SECONDS + 3 * chosen.size + RECOVERY_SECONDS
        running = {kind: _ask(opened, kind, asked[kind], holder, seconds) for kind in asked}
        moments = _make_trouble(opened, chosen.size, break_it, mend_it)
        results = {kind: asking.result_of(one) for kind, one in running.items()}
        outcome.figures |= results
        _check_answers(outcome, results)
        ours = latency.halves(_samples_file(opened, PLAIN), moments)
        factor = SABOTAGE_FACTOR if chosen.sabotage else 1.0
        slowed = Halves(ours.there, [one * factor for one in ours.away])
        _check_latency(outcome, slowed, latency.halves(_samples_file(opened, CONTROL), moments))
        check_counts(opened, holder, outcome, sabotage=chosen.sabotage)


def _start_control(opened: Stack) -> Server:
    """Start what is asked beside our proxy: nginx on its core, else just a provider."""
    bare = opened.start_upstream("control-upstream")
    port = int(bare.url.rpartition(":")[2])
    return targets.start_nginx(opened, port) if shutil.which(targets.NGINX) else bare


def _ask(
    opened: Stack, kind: str, server: Server, holder: Holder, seconds: int
) -> subprocess.Popen[str]:
    """Start a generator: streams one after the other, or whole answers at a fixed rate."""
    options = ["--rate", str(RATE), "-c", str(MOST_AT_ONCE)]
    if kind == STREAMED:
        options = ["--stream", "--script", "d10", "-c", str(STREAMS)]
    kept = ["--samples", str(_samples_file(opened, kind)), "--seconds", str(seconds)]
    return asking.start_load(server.url + metering.CHAT, holder.token, *options, *kept)


def _samples_file(opened: Stack, kind: str) -> Path:
    return opened.folder / f"{kind}-samples.json"


def _make_trouble(opened: Stack, seconds: int, break_it: Change, mend_it: Change) -> Moments:
    time.sleep(WARM_SECONDS)
    measured_from = time.monotonic()
    time.sleep(seconds)
    broken = time.monotonic()
    break_it(opened)
    time.sleep(seconds)
    mended = time.monotonic()
    mend_it(opened)
    machine.pin(opened.servers["postgres"].processes(), Cores().rest)
    return Moments(measured_from, broken, mended, mended + RECOVERY_SECONDS)


def _check_answers(outcome: Outcome, results: Mapping[str, Result]) -> None:
    for kind in (PLAIN, STREAMED):
        found = results[kind]
        outcome.check(
            f"no {kind} request fails",
            holds=found["errors"] == 0 and found["n"] > 0,
            found=f"{found['n']} answered, {found['errors']} failed {found['error_kinds']}",
        )


def _check_latency(outcome: Outcome, ours: Halves, control: Halves) -> None:
    allowed = latency.allowed_ms(ours, control)
    figures = {"ours": ours.figures, "control": control.figures, "allowed_p99_ms": allowed}
    outcome.figures["latency"] = figures
    outcome.check(
        "the 99th percentile without PostgreSQL is at most 1.2 times that with it, and 2 ms",
        holds=ours.figures["without_p99_ms"] <= allowed,
        found=(
            f"{ours.figures} of {len(ours.there)} and {len(ours.away)} requests, "
            f"allowed {allowed:.2f} ms; without our proxy {control.figures}"
        ),
    )


def check_counts(
    opened: Stack, holder: Holder, outcome: Outcome, *, sabotage: bool = False
) -> None:
    """Check that the provider and our books agree about all that ever happened."""
    served = counts.served(opened)
    counts.wait_until_written(opened, holder.customer_id, at_least=served.requests)
    if sabotage:
        counts.lose_an_event(opened, holder.customer_id)
    found = counts.metered(opened, holder.customer_id)
    wrong = found.contradictions()
    outcome.figures |= {"served": vars(served), "metered": vars(found)}
    outcome.check(
        "served = metered",
        holds=metering.equal(served, found) and not wrong,
        found=metering.sentence(served, found, wrong),
    )


def _pause(opened: Stack) -> None:
    opened.servers["postgres"].signal(signal.SIGSTOP)


def _resume(opened: Stack) -> None:
    opened.servers["postgres"].signal(signal.SIGCONT)


def _start(opened: Stack) -> None:
    opened.servers["postgres"].start_again()
    postgres.wait_until_ready(opened.database)
