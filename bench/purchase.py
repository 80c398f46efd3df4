"""`python -m bench.purchase --purchases 20`: how long a customer waits who has just paid.

The whole local stack runs, as `make run` starts it, in a folder of its own. Customers come one
after the other: each has chatted (the rows that a chat leaves are written here), opens Stripe's
page through our own code and pays there; from then on nothing is helped along. Stripe's signed
webhook, our inbox, the sync, the job, the cluster and the box do the rest, and as soon as the box
is up, as the page would say, its person writes on Telegram. The clock runs from the click that
pays to the model's whole answer. `--real` has boxes run the real OpenClaw that `make openclaw`
installed, and pauses each one after its answer, so that the next starts alone. `--sabotage` pauses
the worker, and must end red.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import psutil
import sqlalchemy as sa
from sqlmodel import col, select

from bench import machine
from bench.checks import Outcome
from bench.whole import Whole, whole_stack
from openclaw_web import tables
from openclaw_web.billing import checkouts
from openclaw_web.billing.checkouts import Sale
from openclaw_web.billing.models import Subscription, Tier
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.core import secrets
from openclaw_web.core.database import close_database, open_database, session_scope
from openclaw_web.core.settings import settings
from openclaw_web.integrations import payment_client
from openclaw_web.integrations.redis import close_redis, open_redis
from openclaw_web.onboarding.models import OnboardingSecret, OnboardingState
from openclaw_web.onboarding.service import BOT_TOKEN_PURPOSE
from tests.factories import make_customer, make_onboarding

GOAL_SECONDS, REAL_GOAL_SECONDS = 8.0, 60.0
PATIENCE_SECONDS, REAL_PATIENCE_SECONDS = 60.0, 600.0
LOOK_SECONDS = 0.05
FIRST_PERSON = 500_000_000
CARD = "4242424242424242"
STEPS = ("subscription", "box", "answer")
ANSWER_END = "this answer came back."  # how the simulated Kimi ends what it makes up
ENOUGH = 20  # purchases for a result that is published


@dataclass
class Waiting:
    """How long one customer waited, in seconds after the payment, for each of the steps."""

    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def is_answered(self) -> bool:
        return STEPS[-1] in self.seconds

    @property
    def answer(self) -> float:
        return self.seconds[STEPS[-1]]


@dataclass(frozen=True, kw_only=True)
class Buyer:
    """Somebody whose chat lacks nothing but the payment."""

    customer_id: Any
    page: str
    person: int
    bot: str


def main() -> int:
    chosen = _parser().parse_args()
    outcome = Outcome(_name(chosen), chosen.sabotage)
    machine.hurry(chosen.nice)
    with whole_stack(is_real=chosen.real) as stack:
        os.environ.update(stack.environment)
        settings.cache_clear()
        if chosen.sabotage:
            chosen.purchases = 1
            for one in psutil.Process(stack.worker_pid).children(recursive=True):
                one.suspend()
        waits = asyncio.run(_buy(stack, chosen))
    _judge(waits, chosen, outcome)
    print(f"  written: {outcome.write()}")
    print(f"{'PASS' if outcome.holds else 'FAIL'}  {outcome.name}")
    return 0 if outcome.holds else 1


def _name(chosen: argparse.Namespace) -> str:
    if chosen.real:
        return "purchase-real"
    return "purchase" if chosen.purchases >= ENOUGH else "purchase-part"


async def _buy(stack: Whole, chosen: argparse.Namespace) -> list[Waiting]:
    tables.resolve()
    known = settings()
    open_database(known.database_url)
    open_redis(known.redis_url)
    payment_client.open_payments(known.stripe_secret_key, known.stripe_api_url)
    hurrying = asyncio.create_task(stack.hurry())
    try:
        waits = []
        for number in range(chosen.purchases):
            buyer = await _come_to_pay(stack, number)
            waits.append(await _wait_for_answer(stack, buyer, is_real=chosen.real))
            print(f"  {number + 1}: {_text(waits[-1].seconds)}", flush=True)
            if chosen.real:
                await _pause(buyer)
        return waits
    finally:
        hurrying.cancel()
        await payment_client.close_payments()
        await close_redis()
        await close_database()


async def _come_to_pay(stack: Whole, number: int) -> Buyer:
    """Leave behind what a finished chat does, and open Stripe's page as its button does."""
    name, person = f"bench_{uuid4().hex[:10]}_bot", FIRST_PERSON + number
    made = stack.ask("phone", "/_control/bots", {"name": "Bench", "username": name})
    async with session_scope() as session:
        customer = await make_customer(session)
        chat = await make_onboarding(
            session,
            state=OnboardingState.AWAITING_PAYMENT,
            customer_id=customer.id,
            telegram_user_id=person,
        )
        session.add(
            OnboardingSecret(
                session_id=chat.id,
                telegram_token_ct=secrets.encrypt(BOT_TOKEN_PURPOSE, made["token"]),
                token_fingerprint=boxes.bot_fingerprint(made["token"]),
                bot_id=made["id"],
                bot_username=name,
                key_id=secrets.KEY_ID,
            )
        )
    start = f"{settings().public_url}/start"
    page = await checkouts.start_checkout(
        Sale(
            customer_id=customer.id,
            tier=Tier.STARTER,
            onboarding_session_id=chat.id,
            success_url=f"{start}?checkout={{CHECKOUT_SESSION_ID}}",
            cancel_url=start,
        )
    )
    return Buyer(
        customer_id=customer.id, page=page.stripe_session_id or "", person=person, bot=name
    )


async def _wait_for_answer(stack: Whole, buyer: Buyer, *, is_real: bool) -> Waiting:
    """Pay, and note when there is a subscription, a running box, and an answer to a message."""
    waiting, paid_at = Waiting(), time.monotonic()
    stack.pay(buyer.page, card=CARD)
    deadline = paid_at + (REAL_PATIENCE_SECONDS if is_real else PATIENCE_SECONDS)
    while time.monotonic() < deadline and not waiting.is_answered:
        await asyncio.sleep(LOOK_SECONDS)
        step = STEPS[len(waiting.seconds)]
        if await _has_come(stack, buyer, step):
            waiting.seconds[step] = round(time.monotonic() - paid_at, 2)
            if step == "box":
                said = {"from": buyer.person, "bot": buyer.bot, "text": "Good morning!"}
                stack.ask("phone", "/_control/messages", said)
    return waiting


async def _has_come(stack: Whole, buyer: Buyer, step: str) -> bool:
    if step == "answer":
        chat = urllib.parse.urlencode({"person": buyer.person, "bot": buyer.bot})
        said = stack.ask("phone", f"/_control/messages?{chat}")
        # A box also says when something went wrong; that is no answer.
        return any(one["from"] == "bot" and ANSWER_END in one["text"] for one in said)
    question = sa.select(sa.func.count()).select_from(Subscription)
    question = question.where(col(Subscription.customer_id) == buyer.customer_id)
    if step == "box":
        question = sa.select(sa.func.count()).select_from(Box)
        question = question.where(
            col(Box.customer_id) == buyer.customer_id, col(Box.status) == BoxStatus.ACTIVE
        )
    async with session_scope() as session:
        return bool(await session.scalar(question))


async def _pause(buyer: Buyer) -> None:
    """Let the box sleep, and wait until its processes have ended."""
    question = select(Box).where(col(Box.customer_id) == buyer.customer_id)
    async with session_scope() as session:
        await boxes.pause(session, (await session.exec(question)).one(), requested_by="bench")
    deadline = time.monotonic() + REAL_PATIENCE_SECONDS
    while time.monotonic() < deadline:
        async with session_scope() as session:
            if (await session.exec(question)).one().status is BoxStatus.SUSPENDED:
                return
        await asyncio.sleep(1)
    raise RuntimeError("A box that was to be paused runs on.")


def _judge(waits: list[Waiting], chosen: argparse.Namespace, outcome: Outcome) -> None:
    answered = [one.answer for one in waits if one.is_answered]
    outcome.check(
        "every customer who paid is answered",
        holds=len(answered) == chosen.purchases,
        found=f"{len(answered)} of {chosen.purchases}",
    )
    if not answered:
        return
    goal = REAL_GOAL_SECONDS if chosen.real else GOAL_SECONDS
    slowest = _p95(answered)
    outcome.check(
        f"from the payment to the first answer: 95 of 100 within {goal:.0f} s",
        holds=slowest < goal,
        found=f"{slowest:.1f} s, median {statistics.median(answered):.1f} s",
    )
    whole = [one for one in waits if one.is_answered]
    outcome.figures |= {
        "purchases": len(waits),
        "boxes": "the real OpenClaw" if chosen.real else "the stand-in",
        "p95_seconds": round(slowest, 2),
        "median_seconds": round(statistics.median(answered), 2),
        "median_seconds_until": {
            step: round(statistics.median(one.seconds[step] for one in whole), 2) for step in STEPS
        },
        "each": [one.seconds for one in waits],
    }


def _p95(values: list[float]) -> float:
    """Return the smallest value that 95 of 100 do not exceed; of fewer than 20, the largest."""
    ordered = sorted(values)
    return ordered[-(-95 * len(ordered) // 100) - 1]


def _text(seconds: dict[str, float]) -> str:
    return ", ".join(f"{step} {after:.1f} s" for step, after in seconds.items()) or "nothing came"


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--purchases", type=_at_least_one, default=ENOUGH)
    made.add_argument("--real", action="store_true", help="boxes run the real OpenClaw")
    made.add_argument("--nice", type=int, default=0, help="-10 on a machine that is not idle")
    made.add_argument("--sabotage", action="store_true", help="must end red")
    return made


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("one purchase is the least")
    return number


if __name__ == "__main__":
    sys.exit(main())
