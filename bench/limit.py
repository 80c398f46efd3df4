"""A limit under concurrency: many clients of one customer, several proxies, little left."""

import argparse
import asyncio
import json
import time
import urllib.request
from dataclasses import dataclass
from uuid import UUID

import redis

from bench import asking, counts, metering, outage
from bench.checks import Outcome
from bench.customer import make_holder
from bench.stack import Stack, stack

LIMIT = 1_000_000
USED = 990_000
LEFT = LIMIT - USED
PROXIES = 4
CLIENTS = 200
ANSWER_TOKENS = 63
SCRIPT = f"c{ANSWER_TOKENS},d200"
PAUSE_SECONDS = 0.2  # a client that was refused comes again
FLUSH_AFTER_SECONDS = 0.3  # with the first requests under way
LEASES_SECONDS = 10.0
LEASES = "meter:*"
LEASE = b"l:"


@dataclass(frozen=True)
class Granted:
    """One request as the provider saw it; times of the monotonic clock."""

    arrived: float
    ended: float
    tokens: int


def run(chosen: argparse.Namespace, outcome: Outcome) -> None:
    _run(chosen, outcome, flushes=False)


def run_flushed(chosen: argparse.Namespace, outcome: Outcome) -> None:
    """Empty Redis while clients press: no lease, no counter is left there."""
    _run(chosen, outcome, flushes=True)


def _run(chosen: argparse.Namespace, outcome: Outcome, *, flushes: bool) -> None:
    with stack() as opened:
        holder = asyncio.run(make_holder(opened, tokens_limit=LIMIT, tokens_used=USED))
        proxies = [opened.start_proxy(f"proxy-{number}") for number in range(PROXIES)]
        sizes = ["-c", str(CLIENTS // PROXIES), "--seconds", str(chosen.size)]
        script = ["--script", SCRIPT, "--pause", str(PAUSE_SECONDS)]
        running = [
            asking.start_load(proxy.url + metering.CHAT, holder.token, *sizes, *script)
            for proxy in proxies
        ]
        if flushes:
            wait_for_requests(opened)
            time.sleep(FLUSH_AFTER_SECONDS)
            outage.flush(opened)
        results = [asking.result_of(one) for one in running]
        if chosen.sabotage:
            tamper(opened, holder.token)
        outcome.figures["statuses"] = [result["statuses"] for result in results]
        _check_overshoot(outcome, granted(opened))
        check_leases(outcome, opened)
        served = counts.served(opened)
        counts.wait_until_written(opened, holder.customer_id, at_least=served.requests)
        check_books(outcome, opened, holder.customer_id, used_before=USED)


def _check_overshoot(outcome: Outcome, granted: list[Granted]) -> None:
    """Compare what was granted with what was left, and what was in flight when that was used up."""
    total = sum(one.tokens for one in granted)
    reached = _moment_of(granted, LEFT)
    in_flight = [one for one in granted if one.arrived < reached <= one.ended]
    late = [one for one in granted if one.arrived > reached]
    outcome.figures |= {
        "left": LEFT,
        "granted": total,
        "requests": len(granted),
        "in_flight_when_reached": sum(one.tokens for one in in_flight),
        "granted_after_it_was_reached": sum(one.tokens for one in late),
    }
    outcome.check(
        "granted ≤ left + what was in flight when that was used up",
        holds=total <= LEFT + sum(one.tokens for one in in_flight),
        found=f"{total} of {LEFT} tokens in {len(granted)} requests, "
        f"{len(in_flight)} in flight then, {len(late)} granted later",
    )
    outcome.check(
        "what was left could be used to the end",
        holds=total >= LEFT,
        found=f"{total} of {LEFT} tokens",
    )


def _moment_of(granted: list[Granted], tokens: int) -> float:
    """Return when requests that had ended had used so many tokens."""
    used = 0
    for one in sorted(granted, key=lambda one: one.ended):
        used += one.tokens
        if used >= tokens:
            return one.ended
    return float("inf")


def check_leases(outcome: Outcome, opened: Stack) -> None:
    deadline = time.monotonic() + LEASES_SECONDS
    while (left := _leases(opened)) and time.monotonic() < deadline:
        time.sleep(0.2)
    outcome.check("no lease is left", holds=not left, found=f"{len(left)} leases")


def _leases(opened: Stack) -> list[bytes]:
    with redis.Redis.from_url(opened.redis.url) as client:
        meters = [key for key in client.scan_iter(LEASES) if client.type(key) == b"hash"]
        return [field for key in meters for field in client.hkeys(key) if field.startswith(LEASE)]


def check_books(outcome: Outcome, opened: Stack, customer_id: UUID, *, used_before: int) -> None:
    served, found = counts.served(opened), counts.metered(opened, customer_id)
    month = found.month_tokens - used_before
    outcome.figures |= {"served": vars(served), "metered": vars(found)}
    outcome.check(
        "served = metered, also in the period's total",
        holds=metering.equal(served, found) and month == served.tokens,
        found=f"{metering.sentence(served, found, [])}, {month} in the period",
    )


def granted(opened: Stack) -> list[Granted]:
    url = f"{opened.upstream_url}/__timeline"
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own address
        return [Granted(*one) for one in json.load(answer)]


def wait_for_requests(opened: Stack) -> None:
    while not counts.served(opened).requests:
        time.sleep(0.02)


def tamper(opened: Stack, token: str) -> None:
    """Sabotage: ask the provider behind the proxies' back, and leave a lease behind."""
    asking.load(
        opened.upstream_url + metering.CHAT,
        token,
        *("--count", "50", "-c", "10", "--script", SCRIPT),
    )
    with redis.Redis.from_url(opened.redis.url) as client:
        client.hset("meter:sabotage:0", "l:sabotage:1", "1000 0")
