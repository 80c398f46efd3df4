"""A limit while Redis is emptied, and away or not, and PostgreSQL is away: the bound we promise.

Without Redis each process goes on alone, within two percent of the limit (docs/metering.md), and
refuses what is more so that agents come again: nobody can know that the month is used up.
"""

import argparse
import asyncio
import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from bench import asking, counts, limit, metering, outage
from bench.checks import Outcome
from bench.customer import Holder, make_holder
from bench.limit import Granted
from bench.stack import Stack, stack
from openclaw_web.local import postgres, valkey
from openclaw_web.metering.limits import ALONE_PERCENT

LIMIT = 8_000_000
USED = 7_680_000
LEFT = LIMIT - USED
SHARE = LIMIT * ALONE_PERCENT // 100
NOTICED_SECONDS = 1.0  # a proxy gives Redis up after a quarter of a second
AFTERWARDS_SECONDS = 8
APPENDED = "appendonlydir"  # Valkey's own name
OK, AWAY = 200, 503


@dataclass(frozen=True)
class Moments:
    """Of the monotonic clock, which all processes of the machine share."""

    broken: float  # the trouble begins
    away: float  # nothing is left
    mended: float


@dataclass(frozen=True)
class Sample:
    """One request as its client saw it."""

    began: float
    latency_ms: float
    status: int

    @property
    def ended(self) -> float:
        return self.began + self.latency_ms / 1_000


def run(chosen: argparse.Namespace, outcome: Outcome) -> None:
    _run(chosen, outcome, keeps_redis=False)


def run_flushed(chosen: argparse.Namespace, outcome: Outcome) -> None:
    """Empty Redis when PostgreSQL goes, and let it run: what processes tell it is all there is."""
    _run(chosen, outcome, keeps_redis=True)


def _run(chosen: argparse.Namespace, outcome: Outcome, *, keeps_redis: bool) -> None:
    with stack() as opened:
        holder = asyncio.run(make_holder(opened, tokens_limit=LIMIT, tokens_used=USED))
        running = _press(opened, holder, chosen.size)
        limit.wait_for_requests(opened)
        time.sleep(limit.FLUSH_AFTER_SECONDS)
        moments = _make_trouble(opened, chosen.size, keeps_redis=keeps_redis)
        results = [asking.result_of(one) for one in running]
        if chosen.sabotage:
            limit.tamper(opened, holder.token)
        outcome.figures["statuses"] = [result["statuses"] for result in results]
        granted = limit.granted(opened)
        _check_bound(outcome, granted, moments)
        if not keeps_redis:  # which would know, and say, that the limit is reached
            _check_refusals(outcome, opened, granted, moments)
        _check_when(outcome, results)
        served = counts.served(opened)
        counts.wait_until_written(opened, holder.customer_id, at_least=served.requests)
        limit.check_leases(outcome, opened)
        limit.check_books(outcome, opened, holder.customer_id, used_before=USED)


def _press(opened: Stack, holder: Holder, seconds: int) -> list[subprocess.Popen[str]]:
    proxies = [opened.start_proxy(f"proxy-{number}") for number in range(limit.PROXIES)]
    clients = ["-c", str(limit.CLIENTS // limit.PROXIES)]
    script = ["--script", limit.SCRIPT, "--pause", str(limit.PAUSE_SECONDS)]
    time_to_press = ["--seconds", str(seconds + AFTERWARDS_SECONDS)]
    return [
        asking.start_load(
            proxy.url + metering.CHAT,
            holder.token,
            *(*clients, *script, *time_to_press, "--samples", str(_samples_file(opened, number))),
        )
        for number, proxy in enumerate(proxies)
    ]


def _make_trouble(opened: Stack, seconds: int, *, keeps_redis: bool) -> Moments:
    """Take both away; a Redis that comes back has lost all, its disk included."""
    redis, database = opened.servers["valkey"], opened.servers["postgres"]
    broken = time.monotonic()
    if keeps_redis:
        outage.flush(opened)
    else:
        redis.kill()
        shutil.rmtree(opened.redis.folder / APPENDED)
    database.stop()
    away = time.monotonic()
    time.sleep(seconds)
    mended = time.monotonic()
    if not keeps_redis:
        redis.start_again()
    database.start_again()
    valkey.wait_until_ready(opened.redis)
    postgres.wait_until_ready(opened.database)
    return Moments(broken, away, mended)


def _check_bound(outcome: Outcome, granted: list[Granted], moments: Moments) -> None:
    """Compare what was really used with the limit, and with what each process may go beyond."""
    total = sum(one.tokens for one in granted)
    running = [one for one in granted if one.arrived < moments.broken <= one.ended]
    in_flight = sum(one.tokens for one in running)
    before = sum(one.tokens for one in granted if one.ended < moments.broken)
    bound = LEFT + in_flight + limit.PROXIES * SHARE
    outcome.figures |= {
        "limit": LIMIT,
        "left": LEFT,
        "granted": total,
        "granted_before": before,
        "in_flight_when_both_went": in_flight,
        "share_of_each_process": SHARE,
        "bound": bound,
    }
    outcome.check(
        "granted ≤ left + what was in flight + 2 % of the limit for each process",
        holds=total <= bound,
        found=f"{total} of {bound} tokens ({LEFT} left, {in_flight} in flight, "
        f"{limit.PROXIES} times {SHARE}); {before} of them before",
    )
    outcome.check(
        "the trouble came before the limit was reached, and what was left could be used",
        holds=before < LEFT <= total,
        found=f"{before} granted before, {LEFT} left, {total} in the end",
    )


def _check_refusals(
    outcome: Outcome, opened: Stack, granted: list[Granted], moments: Moments
) -> None:
    """Look at what clients were told while both were away: 503, and never that it is the limit.

    A box's token is told of the limit in an answer of status 200 that no provider gave.
    """
    samples = [one for number in range(limit.PROXIES) for one in _samples(opened, number)]
    away = [
        one
        for one in samples
        if moments.away + NOTICED_SECONDS <= one.began and one.ended < moments.mended
    ]
    told = {
        status: sum(one.status == status for one in away)
        for status in sorted({one.status for one in away})
    }
    outcome.figures["told_while_both_were_away"] = told
    outcome.check(
        "who is blocked while both are away gets 503, and never 429",
        holds=told.get(AWAY, 0) > 0 and set(told) <= {OK, AWAY},
        found=f"{told} by status, of {len(away)} requests",
    )
    answered = sum(one.status == OK and one.ended < moments.mended for one in samples)
    given = sum(one.arrived < moments.mended for one in granted)
    outcome.check(
        "nobody is told that the month is used up while both are away",
        holds=0 < answered <= given,
        found=f"{answered} answers, {given} of the provider",
    )


def _check_when(outcome: Outcome, results: list[asking.Result]) -> None:
    silent = sum(result["without_retry_after"] for result in results)
    outcome.check("each refusal says when to come again", holds=silent == 0, found=f"{silent} not")


def _samples_file(opened: Stack, number: int) -> Path:
    return opened.folder / f"proxy-{number}-samples.json"


def _samples(opened: Stack, number: int) -> list[Sample]:
    text = _samples_file(opened, number).read_text(encoding="utf-8")
    return [Sample(*one) for one in json.loads(text)]
