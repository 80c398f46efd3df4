"""The proxy killed like a machine that loses power: no event is lost, and none is there twice."""

import argparse
import asyncio
import random
import signal
import time

from bench import asking, counts, metering, outage
from bench.checks import Outcome
from bench.customer import Holder, make_holder
from bench.stack import Stack, stack, wait_until_answers
from openclaw_web.local import postgres

CONNECTIONS = 32
KNOWN_REQUESTS = 20  # before the trouble: the proxy knows the token then
LOAD_SECONDS = 30
SHORTEST_LIFE_SECONDS = 1.0
LONGEST_LIFE_SECONDS = 3.0
SEED = 11


def run_spooled(chosen: argparse.Namespace, outcome: Outcome) -> None:
    """Kill it while every event is in the spool and none in the database."""
    for name, stop in (("paused", _pause), ("stopped", _stop)):
        with stack() as opened:
            holder = asyncio.run(make_holder(opened))
            proxy = opened.start_proxy()
            _ask(opened, holder, KNOWN_REQUESTS)
            known = counts.wait_until_written(opened, holder.customer_id, at_least=KNOWN_REQUESTS)
            stop(opened)
            result = _ask(opened, holder, chosen.size)
            proxy.kill()
            _start_database(opened)
            written = counts.metered(opened, holder.customer_id).since(known)
            outcome.check(
                f"PostgreSQL {name}: all requests are answered, and nothing is written yet",
                holds=result["n"] == chosen.size and written.events == 0,
                found=f"{result['n']} answered, {written.events} written {result['error_kinds']}",
            )
            proxy.start_again()
            wait_until_answers(f"{proxy.url}/healthz", proxy)
            outage.check_counts(opened, holder, outcome, sabotage=chosen.sabotage)


def run_loaded(chosen: argparse.Namespace, outcome: Outcome) -> None:
    """Kill it again and again under load, at moments that nobody chose.

    An answer that a client got whole was on disk before; what was under way at a kill may have
    been served for nobody, but is counted once at most.
    """
    moments = random.Random(SEED)  # noqa: S311 - the same moments in each run, on purpose
    with stack() as opened:
        holder = asyncio.run(make_holder(opened))
        proxy = opened.start_proxy()
        answered = 0
        for _ in range(chosen.size):
            running = asking.start_load(
                proxy.url + metering.CHAT,
                holder.token,
                *("-c", str(CONNECTIONS), "--seconds", str(LONGEST_LIFE_SECONDS + 1)),
            )
            time.sleep(moments.uniform(SHORTEST_LIFE_SECONDS, LONGEST_LIFE_SECONDS))
            proxy.kill()
            answered += asking.result_of(running)["n"]
            proxy.start_again()
            wait_until_answers(f"{proxy.url}/healthz", proxy)
        _check_bounds(opened, holder, outcome, answered, sabotage=chosen.sabotage)


def _check_bounds(
    opened: Stack, holder: Holder, outcome: Outcome, answered: int, *, sabotage: bool
) -> None:
    counts.wait_until_written(opened, holder.customer_id, at_least=answered)
    served = counts.served(opened)
    if sabotage:
        counts.lose_an_event(opened, holder.customer_id)
    found = counts.metered(opened, holder.customer_id)
    wrong = found.contradictions()
    outcome.figures |= {"answered": answered, "served": vars(served), "metered": vars(found)}
    outcome.check(
        "answered ≤ metered ≤ served, and our books balance",
        holds=answered <= found.events <= served.requests and not wrong,
        found="; ".join(
            [f"{answered} answered, {found.events} metered, {served.requests} served", *wrong]
        ),
    )


def _ask(opened: Stack, holder: Holder, count: int) -> asking.Result:
    url = opened.servers["alone"].url + metering.CHAT
    return asking.load(url, holder.token, "--count", str(count), "-c", str(CONNECTIONS))


def _pause(opened: Stack) -> None:
    opened.servers["postgres"].signal(signal.SIGSTOP)


def _stop(opened: Stack) -> None:
    opened.servers["postgres"].stop()


def _start_database(opened: Stack) -> None:
    server = opened.servers["postgres"]
    if server.processes():
        server.signal(signal.SIGCONT)
    else:
        server.start_again()
    postgres.wait_until_ready(opened.database)
