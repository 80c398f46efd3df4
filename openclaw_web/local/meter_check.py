"""`admin invariants`: is the meter true, and would we notice if it were not."""

import os
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web import tables
from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.models import Customer
from openclaw_web.billing.models import Subscription, SubscriptionStatus, Tier
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.core.clock import business_now, real_now
from openclaw_web.core.database import close_database, engine, open_database, session_scope
from openclaw_web.core.errors import NotFoundError, OpenClawError
from openclaw_web.core.settings import Settings
from openclaw_web.integrations import redis
from openclaw_web.metering import checking, counters, invariants, repairing, sabotage
from openclaw_web.metering import service as metering
from openclaw_web.metering.invariants import Finding
from openclaw_web.metering.ledger import Event
from openclaw_web.metering.models import UsageMonthly
from openclaw_web.metering.repairing import Repair
from openclaw_web.metering.sharing import EPOCH_KEY

PAGE = 500
TOKENS = 1_000_000
OLD_SECONDS = 3_600
NEVER_COMMITTED = "nobody@sabotage.invalid"


@dataclass
class Verdict:
    """What a check of the meter came to."""

    customers: int = 0
    findings: list[Finding] = field(default_factory=list)
    repairs: list[Repair] = field(default_factory=list)

    @property
    def is_green(self) -> bool:
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        return {
            "verdict": "green" if self.is_green else "red",
            "customers": self.customers,
            "findings": [finding.as_dict() for finding in self.findings],
            "repairs": [repair.as_dict() for repair in self.repairs],
        }


async def check(chosen: Settings, *, email: str = "", repair: bool = False) -> Verdict:
    """Check one customer's whole history, or everybody's periods that still change.

    Raises:
        NotFoundError: nobody has this address.
    """
    verdict = Verdict(findings=invariants.judge_spool(chosen.home / "spool"))
    async with _servers(chosen):
        if email:
            await _check_one(await _customer_id(email), verdict, repair=repair)
        else:
            await _check_all(verdict, repair=repair)
        if any(one.is_lower_total for one in verdict.repairs):
            await repairing.forget_totals()
    return verdict


async def _check_all(verdict: Verdict, *, repair: bool) -> None:
    after: UUID | None = None
    while page := await _page(after):
        for customer_id in page:
            await _check_one(customer_id, verdict, repair=repair, has_history=False)
        after = page[-1]


async def check_sabotaged(chosen: Settings, name: str) -> Verdict:
    """Break one invariant of somebody made up, check, and roll everything back.

    Raises:
        NotFoundError: nobody knows this sabotage.
        OpenClawError: the check was red before anything was broken.
    """
    if name not in sabotage.NAMES:
        raise NotFoundError(
            f"There is no sabotage {name!r}; there are: {', '.join(sabotage.NAMES)}."
        )
    if name == sabotage.SPOOL:
        return _check_old_spool()
    async with _servers(chosen), AsyncSession(engine()) as session:
        try:
            customer_id, now = await _make_up_somebody(session)
            before = await checking.check(session, customer_id, now)
            if not before.is_green:
                raise OpenClawError(f"Red before the sabotage: {before.findings[0].sentence}")
            if name == sabotage.COUNTER:
                async with _counter_ahead(session, customer_id):
                    after = await checking.check(session, customer_id, now, is_thorough=True)
            else:
                await sabotage.break_it(session, name, customer_id)
                after = await checking.check(session, customer_id, now, is_thorough=True)
            return Verdict(1, after.findings)
        finally:
            await session.rollback()


async def _check_one(
    customer_id: UUID, verdict: Verdict, *, repair: bool, has_history: bool = True
) -> None:
    verdict.customers += 1
    async with session_scope() as session:
        now = await business_now(session)
        checked = (
            await checking.check_history(session, customer_id)
            if has_history
            else await checking.check(session, customer_id, now, is_thorough=True)
        )
    findings = checked.findings
    if findings and repair:
        async with session_scope() as session:
            months = await checking.months_of(session, customer_id) if has_history else ()
            mended = await repairing.mend(session, customer_id, now, months=months)
        verdict.repairs += mended.repairs
        findings = mended.left
    verdict.findings += findings


async def _page(after: UUID | None) -> list[UUID]:
    """Return the next customers that have a period, in the order of their ids."""
    statement = sa.select(col(UsageMonthly.customer_id)).distinct()
    if after is not None:
        statement = statement.where(col(UsageMonthly.customer_id) > after)
    async with session_scope() as session:
        ordered = statement.order_by(col(UsageMonthly.customer_id)).limit(PAGE)
        return list((await (await session.connection()).execute(ordered)).scalars())


async def _customer_id(email: str) -> UUID:
    async with session_scope() as session:
        customer = await accounts.find_customer_by_email(session, email)
    if customer is None:
        raise NotFoundError(f"Nobody is known as {email}.")
    return customer.id


async def _make_up_somebody(session: AsyncSession) -> tuple[UUID, Any]:
    """Write a customer with two periods and some requests, by the ways everybody's are written."""
    now = await business_now(session)
    customer = Customer(email=f"{uuid4().hex}-{NEVER_COMMITTED}", created_at=now)
    session.add(customer)
    await session.flush()
    turn = now - timedelta(days=3)
    subscription = Subscription(
        customer_id=customer.id,
        tier=Tier.STARTER,
        status=SubscriptionStatus.ACTIVE,
        tokens_limit=TOKENS,
        current_period_start=turn,
        current_period_end=turn + timedelta(days=30),
    )
    session.add(subscription)
    await session.flush()
    box_id = uuid4()
    box = Box(
        id=box_id,
        customer_id=customer.id,
        subscription_id=subscription.id,
        k8s_namespace=f"customer-{box_id}",
        telegram_user_ids=[1],
        status=BoxStatus.DESTROYED,
        created_at=now,
    )
    session.add(box)
    await session.flush()
    for start in (turn - timedelta(days=30), turn):
        await metering.open_period(
            session,
            customer_id=customer.id,
            period_start=start,
            period_end=start + timedelta(days=30),
            tokens_limit=TOKENS,
        )
        await metering.settle(session, [_event(box, start, hours) for hours in range(6)])
    return customer.id, now


def _event(box: Box, period_start: Any, hours: int) -> Event:
    return Event(
        request_id=f"req_{uuid4()}",
        customer_id=box.customer_id,
        box_id=box.id,
        period_start=period_start,
        timestamp=period_start + timedelta(hours=hours * 7),
        model="made-up" if hours % 2 else "made-up-too",
        prompt_tokens=100,
        completion_tokens=20,
        cached_tokens=50,
        reasoning_tokens=5,
    )


@asynccontextmanager
async def _counter_ahead(session: AsyncSession, customer_id: UUID) -> AsyncGenerator[None]:
    """Let Redis hold a counter that is a token too high, of nobody else."""
    mine = uuid4().hex
    async with redis.client().pipeline() as pipeline:
        pipeline.hsetnx(EPOCH_KEY, "id", mine)  # proxies open an epoch of their own over it
        pipeline.hget(EPOCH_KEY, "id")
        epoch = str((await pipeline.execute())[1])
    month = (await checking.months_of(session, customer_id))[-1]
    key = counters.key_of(epoch, customer_id, month.period_start)
    async with redis.client().pipeline() as pipeline:
        pipeline.hset(key, counters.BASE, str(month.tokens_used + 1))
        await pipeline.execute()
    try:
        yield
    finally:
        async with redis.client().pipeline() as pipeline:
            pipeline.delete(key)
            if epoch == mine:
                pipeline.delete(EPOCH_KEY)
            await pipeline.execute()


def _check_old_spool() -> Verdict:
    """Check a spool of our own that holds an event of an hour ago."""
    with tempfile.TemporaryDirectory(prefix="openclaw-cloud-sabotage-") as folder:
        root = Path(folder)
        if found := invariants.judge_spool(root):
            raise OpenClawError(f"Red before the sabotage: {found[0].sentence}")
        segment = root / "a" / "00000001.jsonl"
        segment.parent.mkdir()
        segment.write_text("{}\n", encoding="utf-8")
        old = real_now().timestamp() - OLD_SECONDS
        os.utime(segment, (old, old))
        return Verdict(0, invariants.judge_spool(root))


@asynccontextmanager
async def _servers(chosen: Settings) -> AsyncGenerator[None]:
    tables.resolve()
    open_database(chosen.database_url)
    redis.open_redis(chosen.redis_url)
    try:
        yield
    finally:
        await redis.close_redis()
        await close_database()
