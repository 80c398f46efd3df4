"""Thousands of live boxes for a benchmark: rows, and objects as the worker makes them."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from openclaw_web.accounts.models import Customer
from openclaw_web.billing.models import Subscription, SubscriptionStatus, Tier
from openclaw_web.boxes import manifests, rendering
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.manifests import Credentials
from openclaw_web.boxes.models import Box, BoxRevision, BoxStatus, RevisionOutcome
from openclaw_web.boxes.service import Bot, BoxSettings
from openclaw_web.core.database import session_scope
from openclaw_web.integrations.cluster import Cluster
from openclaw_web.jobs.models import JobType
from openclaw_web.metering.models import ProxyToken, TokenKind

ROWS_AT_ONCE = 250
BOXES_AT_ONCE = 8
PERIOD = timedelta(days=30)
PERSON = 111_222_333
SPEC = {
    "telegram_user_ids": [PERSON],
    "language": "en",
    "model": "kimi-coding/k2p5",
    "thinking_level": "medium",
    "use_case": "plan",
    "style": "",
}


@dataclass(frozen=True, kw_only=True)
class Made:
    """A box that runs already: its row, its settings and the token of its pod."""

    box: Box
    revision: BoxRevision
    token_id: UUID


async def live_boxes(cluster: Cluster, count: int) -> list[Made]:
    """Make boxes as if the worker had made each of them: it shall find nothing to do."""
    made: list[Made] = []
    for start in range(0, count, ROWS_AT_ONCE):
        made += await _rows(min(ROWS_AT_ONCE, count - start))
    left = iter(made)
    await asyncio.gather(*(_make_objects(cluster, left) for _ in range(BOXES_AT_ONCE)))
    return made


async def ask_for_boxes(count: int) -> list[UUID]:
    """Let customers pay for new boxes: their jobs wait for a worker."""
    asked = []
    for number in range(count):
        async with session_scope() as session:
            customer, subscription = _customer(datetime.now(UTC))
            session.add_all([customer, subscription])
            await session.flush()
            box = await boxes.create_box(
                session,
                customer_id=customer.id,
                subscription_id=subscription.id,
                settings=BoxSettings(telegram_user_ids=(PERSON,)),
                bot=Bot(token=f"{number}:{uuid4().hex}", bot_id=number, username="a_bench_bot"),
            )
            await boxes.request_converge(
                session, box, job_type=JobType.PROVISION, requested_by="bench"
            )
            asked.append(box.id)
    return asked


async def _rows(count: int) -> list[Made]:
    now = datetime.now(UTC)
    made = []
    async with session_scope() as session:
        for _ in range(count):
            customer, subscription = _customer(now)
            one = _made(subscription, now)
            token = ProxyToken(
                id=one.token_id,
                customer_id=customer.id,
                box_id=one.box.id,
                token_hash=f"-{one.token_id}",  # no token has this hash
                token_hmac=one.token_id.bytes,
                key_id="bench",
                last4="....",
                kind=TokenKind.BOX,
                created_at=now,
            )
            session.add_all([customer, subscription, one.box, one.revision, token])
            made.append(one)
    return made


def _customer(now: datetime) -> tuple[Customer, Subscription]:
    customer = Customer(id=uuid4(), email=f"{uuid4().hex}@bench.invalid", created_at=now)
    subscription = Subscription(
        id=uuid4(),
        customer_id=customer.id,
        tier=Tier.STARTER,
        status=SubscriptionStatus.ACTIVE,
        tokens_limit=10_000_000,
        current_period_start=now,
        current_period_end=now + PERIOD,
        stripe_subscription_id=f"sub_{uuid4().hex}",
    )
    return customer, subscription


def _made(subscription: Subscription, now: datetime) -> Made:
    box_id = uuid4()
    box = Box(
        id=box_id,
        customer_id=subscription.customer_id,
        subscription_id=subscription.id,
        k8s_namespace=manifests.namespace_of(box_id),
        telegram_user_ids=[PERSON],
        status=BoxStatus.ACTIVE,
        created_at=now,
        activated_at=now,
        status_changed_at=now,
        last_seen=now,
        applied_generation=1,
        observed_generation=1,
    )
    revision = BoxRevision(
        box_id=box_id,
        generation=1,
        spec=SPEC,
        spec_hash="bench",
        outcome=RevisionOutcome.APPLIED.value,
        created_at=now,
        applied_at=now,
    )
    return Made(box=box, revision=revision, token_id=uuid4())


async def _make_objects(cluster: Cluster, left: Iterable[Made]) -> None:
    for one in left:
        spec = rendering.render_revision(one.box, one.revision, Tier.STARTER).spec
        credentials = Credentials(
            proxy_token_id=str(one.token_id),
            proxy_token="ocp_" + "x" * 40,
            telegram_token="1234567:" + "A" * 35,
            gateway_token="g" * 64,
        )
        for manifest in (
            *manifests.surroundings(spec, fence=1),
            manifests.secret(spec, credentials, fence=1),
            manifests.deployment(spec, token_id=str(one.token_id), fence=1, started=1),
        ):
            await cluster.apply(manifest)
