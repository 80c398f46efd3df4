"""`python -m bench.webhooks`: 200 webhooks a second for 30 seconds, each kept and applied once.

The real web process takes them, a real worker applies them and asks Stripe's simulator; PostgreSQL
is durable, as in production. Sent on time whatever the answers do, so that a slow answer does not
make the load smaller; one in twenty comes twice. What is not acknowledged is sent again, as Stripe
does. `--kill` kills the web process in the middle, with kill -9. `--sabotage` takes an event out of
what is compared, and the run must end red.
"""

import argparse
import asyncio
import contextlib
import json
import random
import secrets
import statistics
import sys
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import psycopg

from bench import machine
from bench.checks import Outcome
from bench.stack import Server, Stack, stack, wait_until_answers
from simulators.stripe.courier import sign
from simulators.stripe.posting import Poster, PostError

PER_SECOND, SECONDS = 200, 30
CUSTOMERS = 200
TWICE = 0.05
PAUSE_SECONDS = 1.0  # before an event is sent again; it grows, as Stripe's does
MOST_TRIES = 120
APPLIED_SECONDS = 900.0  # the worker shares two cores with all the rest; applied late is no harm
P99_MS = 1_000.0  # Stripe waits ten seconds and more, but its patience is not for every day
OK = 200
KINDS = ("customer.subscription.updated", "invoice.paid", "customer.subscription.created")
_STORED = """
SELECT count(*), count(*) FILTER (WHERE processed AND outcome = 'applied'),
       count(*) FILTER (WHERE NOT processed), coalesce(max(attempt), 0)
FROM webhook_events
"""


@dataclass
class Sent:
    """What came of the sending, by event."""

    acknowledged: set[str] = field(default_factory=set)
    given_up: set[str] = field(default_factory=set)
    milliseconds: list[float] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)
    tries: int = 0


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One event on its way; `due` is when it was to be sent."""

    url: str
    secret: str
    event: dict[str, Any]
    due: float


def main() -> int:
    chosen = _parser().parse_args()
    outcome = Outcome("webhooks-killed" if chosen.kill else "webhooks", chosen.sabotage)
    machine.hurry(chosen.nice)
    with stack() as opened:
        asyncio.run(_prove(opened, chosen, outcome))
    print(f"  written: {outcome.write()}")
    print(f"{'PASS' if outcome.holds else 'FAIL'}  {outcome.name}")
    return 0 if outcome.holds else 1


async def _prove(opened: Stack, chosen: argparse.Namespace, outcome: Outcome) -> None:
    secret, key = f"whsec_{secrets.token_hex(16)}", f"sk_test_{secrets.token_hex(12)}"
    stripe = opened.start_stripe(key)
    known = _make_customers(opened, stripe.url, key)
    settings = {
        "STRIPE_WEBHOOK_SECRET": secret,
        "STRIPE_SECRET_KEY": key,
        "STRIPE_API_URL": stripe.url,
        "KUBECONFIG": str(_no_cluster(opened)),
    }
    web = await asyncio.to_thread(opened.start_web, **settings)
    opened.start_worker(**settings)
    url = web.url.removesuffix("/proxy") + "/webhooks/stripe"
    events = [_event(known) for _ in range(chosen.per_second * chosen.seconds)]
    killing = asyncio.create_task(_kill(web, chosen.seconds / 2)) if chosen.kill else None
    began = time.monotonic()
    sent = await _send(url, secret, events, chosen.per_second)
    took = time.monotonic() - began
    if killing:
        await killing
    await _wait_until_applied(opened)
    outcome.figures["applied_seconds"] = round(time.monotonic() - began, 1)
    if chosen.sabotage:
        _lose_one(opened)
    _judge(opened, chosen, outcome, events, sent)
    quantiles = statistics.quantiles(sent.milliseconds, n=100)
    outcome.figures |= {
        "events": len(events),
        "seconds": round(took, 1),
        "per_second": round(len(sent.milliseconds) / took, 1),
        "p50_ms": round(quantiles[49], 1),
        "p99_ms": round(quantiles[98], 1),
        "max_ms": round(max(sent.milliseconds), 1),
        "generator_late_p99_ms": round(statistics.quantiles(sent.late_ms, n=100)[98], 1),
        "tries": sent.tries,
    }
    print(f"  {outcome.figures}")


def _judge(
    opened: Stack,
    chosen: argparse.Namespace,
    outcome: Outcome,
    events: list[dict[str, Any]],
    sent: Sent,
) -> None:
    with psycopg.connect(opened.database_url) as connection:
        stored = {row[0] for row in connection.execute("SELECT event_id FROM webhook_events")}
        total, applied, waiting, attempts = connection.execute(_STORED).fetchone() or (0, 0, 0, 0)
        (asked,) = connection.execute(
            "SELECT coalesce(sum(requested_seq), 0) FROM billing_syncs"
        ).fetchone() or (0,)
        (unserved,) = connection.execute(
            "SELECT count(*) FROM billing_syncs WHERE requested_seq > synced_seq"
        ).fetchone() or (0,)
    lost = sent.acknowledged - stored
    outcome.check(
        "every event is acknowledged in the end",
        holds=len(sent.acknowledged) == len(events) and not sent.given_up,
        found=f"{len(sent.acknowledged)} of {len(events)}, {sent.tries} tries",
    )
    outcome.check(
        "no acknowledged event is lost, and none is there twice",
        holds=not lost and total == len(stored) == len(events),
        found=f"{len(lost)} lost, {total} stored",
    )
    outcome.check(
        "each is applied exactly once: one request for a sync for each event",
        holds=applied == len(events) and asked == len(events) and not waiting,
        found=f"{applied} applied, {asked} syncs asked for, {waiting} wait, {attempts} tries",
    )
    outcome.check("every sync that was asked for is done", holds=unserved == 0, found=unserved)
    if not chosen.kill:
        p99 = statistics.quantiles(sent.milliseconds, n=100)[98]
        outcome.check(
            f"99 of 100 are acknowledged within {P99_MS:.0f} ms of their time",
            holds=p99 <= P99_MS,
            found=f"{p99:.0f} ms at {chosen.per_second} a second",
        )


async def _send(url: str, secret: str, events: list[dict[str, Any]], per_second: int) -> Sent:
    """Send each event at its time; one in twenty also a second time."""
    chance = random.Random(5)  # noqa: S311 - the same in each run, on purpose
    sent, poster, began = Sent(), Poster(), time.monotonic()
    tasks = []
    for number, event in enumerate(events):
        due = began + number / per_second
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        sent.late_ms.append((time.monotonic() - due) * 1000)
        copies = 2 if chance.random() < TWICE else 1
        one = Delivery(url=url, secret=secret, event=event, due=due)
        tasks += [asyncio.create_task(_deliver(poster, one, sent)) for _ in range(copies)]
    await asyncio.gather(*tasks)
    await poster.close()
    return sent


async def _deliver(poster: Poster, one: Delivery, sent: Sent) -> None:
    """Send one event until it is acknowledged; its time counts from when it was due."""
    payload = json.dumps(one.event)
    for number in range(MOST_TRIES):
        sent.tries += 1
        headers = {
            "Content-Type": "application/json",
            "Stripe-Signature": sign(one.secret, payload, int(time.time())),
        }
        with contextlib.suppress(PostError):
            if await poster.post(one.url, headers, payload.encode()) == OK:
                sent.milliseconds.append((time.monotonic() - one.due) * 1000)
                sent.acknowledged.add(one.event["id"])
                return
        await asyncio.sleep(PAUSE_SECONDS * min(number + 1, 10))
    sent.given_up.add(one.event["id"])


async def _kill(web: Server, after_seconds: float) -> None:
    """Kill the web process as a machine that loses power does, and start it again."""
    await asyncio.sleep(after_seconds)
    print("  kill -9", flush=True)
    await asyncio.to_thread(web.kill)
    web.start_again()
    await asyncio.to_thread(wait_until_answers, f"{web.url}/healthz", web)
    print("  it is back", flush=True)


async def _wait_until_applied(opened: Stack) -> None:
    deadline = time.monotonic() + APPLIED_SECONDS
    question = """SELECT (SELECT count(*) FROM webhook_events WHERE NOT processed)
        + (SELECT count(*) FROM billing_syncs WHERE requested_seq > synced_seq)"""
    while time.monotonic() < deadline:
        with psycopg.connect(opened.database_url) as connection:
            (left,) = connection.execute(question).fetchone() or (0,)
        if left == 0:
            return
        await asyncio.sleep(0.5)


def _make_customers(opened: Stack, stripe_url: str, key: str) -> list[str]:
    """Make customers of ours, and of Stripe's, whom the events are about."""
    headers = {"Authorization": f"Bearer {key}"}
    known = []
    for number in range(CUSTOMERS):
        form = urllib.parse.urlencode({"email": f"{number}@example.com"}).encode()
        asked = urllib.request.Request(f"{stripe_url}/v1/customers", form, headers)  # noqa: S310 - ours
        with urllib.request.urlopen(asked) as answer:  # noqa: S310 - our own address
            known.append(json.load(answer)["id"])
    with psycopg.connect(opened.database_url) as connection:
        connection.cursor().executemany(
            "INSERT INTO customers (id, email, stripe_customer_id) VALUES (%s, %s, %s)",
            [(uuid4(), f"{one}@example.com", one) for one in known],
        )
    return known


def _event(known: list[str]) -> dict[str, Any]:
    """Return an event of the size that Stripe's have, about somebody we know."""
    chance = secrets.choice
    thing = {
        "id": f"sub_{secrets.token_hex(12)}",
        "object": "subscription",
        "customer": chance(known),
        "metadata": {f"key{number}": secrets.token_hex(32) for number in range(40)},
    }
    return {
        "id": f"evt_{secrets.token_hex(12)}",
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": int(time.time()),
        "livemode": False,
        "type": chance(KINDS),
        "data": {"object": thing},
    }


def _no_cluster(opened: Stack) -> Any:
    """Write a kubeconfig of a cluster that is away: nothing here needs one."""
    path = opened.folder / "kubeconfig"
    cluster = {"name": "none", "cluster": {"server": "http://127.0.0.1:9"}}
    context = {"name": "none", "context": {"cluster": "none", "user": "none"}}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [cluster],
        "users": [{"name": "none", "user": {}}],
        "contexts": [context],
        "current-context": "none",
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def _lose_one(opened: Stack) -> None:
    with psycopg.connect(opened.database_url) as connection:
        connection.execute(
            "DELETE FROM webhook_events WHERE id = (SELECT id FROM webhook_events LIMIT 1)"
        )


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--seconds", type=int, default=SECONDS)
    made.add_argument("--per-second", type=int, default=PER_SECOND)
    made.add_argument("--kill", action="store_true", help="kill -9 of the web process in between")
    made.add_argument("--nice", type=int, default=0, help="-10 on a machine that is not idle")
    made.add_argument("--sabotage", action="store_true", help="must end red")
    return made


if __name__ == "__main__":
    sys.exit(main())
