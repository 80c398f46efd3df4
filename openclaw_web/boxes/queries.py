"""Every look at boxes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts.models import Customer
from openclaw_web.billing import entitlement
from openclaw_web.billing.models import Hold, Subscription, Tier
from openclaw_web.boxes import sentences, troubles
from openclaw_web.boxes.desired import Desired, Facts, Why, desired_state
from openclaw_web.boxes.models import (
    Box,
    BoxBackup,
    BoxRevision,
    BoxSecret,
    BoxStatus,
    RevisionOutcome,
)
from openclaw_web.boxes.sentences import Link, Situation
from openclaw_web.core.clock import BUSINESS_NOW, REAL_NOW, business_now, note_business_now
from openclaw_web.jobs import queries as jobs
from openclaw_web.metering import queries as metering
from openclaw_web.metering.models import ProxyToken, TokenKind

USABLE = (RevisionOutcome.PENDING.value, RevisionOutcome.APPLIED.value)
MEMORY_LOST_AT = "memory_lost_at"
MEMORY_FROM = "memory_from"  # in `health`: when the memory that a restore brought was saved,
RESTORED_AT = "restored_at"  # and when that was
COPY = "copy"  # the reason of a backup that is not one yet
RESTORE_TOLD_FOR = timedelta(days=3)
UNSEEN_FOR = timedelta(minutes=5)  # the schema: then a box needs a look
MODEL_OK_AT, MODEL_FAILED_AT = "model_ok_at", "model_failed_at"  # in `health`: when it was asked
OUTAGE_TOLD = "outage_told"  # in `health`: which outage its customer had a mail about
# Keeps others from changing a box, but not from adding rows that point at it: those would wait for
# us while we wait for them.
LOCK: dict[str, bool] = {"key_share": True}
# When a right ends by its date, the sync that follows at once decides; it may also prolong it.
SYNC_COMES_FIRST = timedelta(minutes=10)
_HAS_HOLD = sa.exists().where(
    col(Hold.customer_id) == col(Box.customer_id), col(Hold.released_at).is_(None)
)
# What each job asks, some of it several times, is built once.
_STANDING = (
    select(Customer, Subscription, _HAS_HOLD, BUSINESS_NOW)
    .select_from(Box)
    .join(Customer, col(Customer.id) == col(Box.customer_id), isouter=True)
    .join(Subscription, col(Subscription.id) == col(Box.subscription_id), isouter=True)
    .where(col(Box.id) == sa.bindparam("box_id"))
)
_TARGET = (
    select(BoxRevision, Subscription.tier)
    .select_from(Box)
    .join(Subscription, col(Subscription.id) == col(Box.subscription_id))
    .join(
        BoxRevision,
        sa.and_(col(BoxRevision.box_id) == col(Box.id), col(BoxRevision.outcome).in_(USABLE)),
        isouter=True,
    )
    .where(col(Box.id) == sa.bindparam("box_id"))
    .order_by(col(BoxRevision.generation).desc())
    .limit(1)
)
WATCHED = (BoxStatus.ACTIVE, BoxStatus.UPDATING, BoxStatus.UNHEALTHY, BoxStatus.SUSPENDED)


@dataclass(frozen=True, kw_only=True)
class BoxView:
    """A box as its customer sees it."""

    box_id: UUID
    status: BoxStatus
    sentence: str
    since: datetime | None  # of its status; nothing while that is not what is said
    links: list[Link]
    bot_username: str
    last_seen: datetime | None
    first_answer_at: datetime | None
    memory_lost_at: datetime | None
    delete_after: datetime | None
    is_busy: bool
    progress: list[str]
    broken: str = ""  # what keeps an active one from answering: a link's name, or "tokens"
    is_unseen: bool = False  # we cannot look at it, so it is as it was seen last


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A box, what it should be, and whether the operator is at it already."""

    box: Box
    desired: Desired
    has_job: bool
    tier: Tier


@dataclass(frozen=True, kw_only=True)
class Watched:
    """As much of a box as the watch compares with what it sees."""

    namespace: str
    status: BoxStatus
    was_active: bool
    health_failures: int
    reason: str
    health: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TokenStanding:
    """A box, and the live tokens that its pods could use: their ids, and since when."""

    box_id: UUID
    namespace: str
    status: BoxStatus
    has_job: bool
    tokens: dict[str, datetime]


async def find_box_of_customer(
    session: AsyncSession, customer_id: UUID, *, lock: bool = False
) -> Box | None:
    """Return the newest box that is not destroyed, else the newest of all."""
    newest = (
        select(Box)
        .where(Box.customer_id == customer_id)
        .order_by(col(Box.status) == BoxStatus.DESTROYED, col(Box.created_at).desc(), col(Box.id))
        .limit(1)
    )
    if lock:
        newest = newest.with_for_update(key_share=True).execution_options(populate_existing=True)
    return (await session.exec(newest)).first()


async def find_box(
    session: AsyncSession, customer_id: UUID, box_id: UUID, *, lock: bool = False
) -> Box | None:
    statement = select(Box).where(Box.id == box_id, Box.customer_id == customer_id)
    found = await session.exec(statement.with_for_update(key_share=True) if lock else statement)
    return found.first()


async def find_bot(session: AsyncSession, box_id: UUID) -> BoxSecret | None:
    """Return the bot of a box; its token stays encrypted."""
    return await session.get(BoxSecret, box_id)


async def is_bot_in_use(session: AsyncSession, fingerprint: str) -> bool:
    """Say whether a box has this bot: two would fight over its messages."""
    found = await session.exec(
        select(BoxSecret.box_id).where(BoxSecret.token_fingerprint == fingerprint)
    )
    return found.first() is not None


async def box_status_view(session: AsyncSession, customer_id: UUID) -> BoxView | None:
    """Return what the customer's box is doing, in plain sentences."""
    box = await find_box_of_customer(session, customer_id)
    if box is None:
        return None
    bot = await find_bot(session, box.id)
    job = await jobs.find_live_job_of_box(session, customer_id, box.id)
    progress = [line["text"] for line in job.progress] if job else []
    lost_at = memory_lost_at(box)
    usage = await metering.current_usage(session, customer_id)
    failed_at = model_failed_at(box)
    situation = Situation(
        status=box.status,
        reason=box.status_reason or "",
        bot_username=(bot.bot_username if bot else None) or "",
        memory_lost_at=lost_at,
        memory_from=await _fresh_memory_from(session, box),
        has_job=job is not None,
        progress=progress[-1] if progress else "",
        is_out_of_tokens=usage is not None and usage.left == 0,
        is_model_down=await troubles.is_model_down(session),
        model_failure_age=await business_now(session) - failed_at if failed_at else None,
        is_unseen=await troubles.is_unseen(session, box),
    )
    links = sentences.links_of(situation, box.health, box.first_answer_at)
    telling = links if "pod" in box.health else links[-1:]
    broken = sentences.broken_of(situation, telling)
    is_plain = not broken and not (situation.is_unseen and box.status is BoxStatus.ACTIVE)
    return BoxView(
        box_id=box.id,
        status=box.status,
        sentence=sentences.sentence_of(situation, telling),
        since=box.status_changed_at if is_plain else None,
        links=links,
        bot_username=situation.bot_username,
        last_seen=box.last_seen,
        first_answer_at=box.first_answer_at,
        memory_lost_at=lost_at,
        delete_after=box.delete_after,
        is_busy=job is not None,
        progress=progress,
        broken=broken,
        is_unseen=situation.is_unseen,
    )


def model_failed_at(box: Box) -> datetime | None:
    """Return when the newest question was asked that got no answer, if none did since then."""
    found = box.health.get(MODEL_FAILED_AT)
    return datetime.fromisoformat(found) if found else None


def memory_lost_at(box: Box) -> datetime | None:
    """Return when its memory was lost, until somebody dismisses the notice."""
    found = box.health.get(MEMORY_LOST_AT)
    return datetime.fromisoformat(found) if found else None


def has_memory(box: Box) -> bool:
    """Say whether a box remembers anything: it has answered, or a former box's memory is in it."""
    return box.activated_at is not None or RESTORED_AT in box.health


def memory_from(box: Box) -> datetime | None:
    """Return from when the memory is that a restore brought back; nothing without a restore."""
    found = box.health.get(MEMORY_FROM)
    return datetime.fromisoformat(found) if found else None


async def _fresh_memory_from(session: AsyncSession, box: Box) -> datetime | None:
    """Return it as long as it is news to its customer."""
    at = box.health.get(RESTORED_AT)
    is_news = at and await business_now(session) - datetime.fromisoformat(at) < RESTORE_TOLD_FOR
    return memory_from(box) if is_news else None


async def desired_of(session: AsyncSession, box: Box) -> tuple[Desired, Why]:
    """Return what this box should be now, and why it should not run."""
    found = await session.exec(_STANDING, params={"box_id": box.id})
    customer, subscription, holds, seen = found.one()
    now = note_business_now(session, seen)
    return desired_state(_facts(box, subscription, customer, holds=holds, now=now))


async def is_held(session: AsyncSession, box: Box) -> bool:
    """Say whether a hold keeps this box; that of a deleted account keeps nothing."""
    customer = await session.get(Customer, box.customer_id)
    is_deleted = customer is None or customer.deleted_at is not None
    return not is_deleted and await _has_hold(session, box)


async def _has_hold(session: AsyncSession, box: Box) -> bool:
    found = await session.exec(
        select(Hold.id)
        .where(Hold.customer_id == box.customer_id, col(Hold.released_at).is_(None))
        .limit(1)
    )
    return found.first() is not None


async def get_subscription(session: AsyncSession, box: Box) -> Subscription:
    return await session.get_one(Subscription, box.subscription_id)


async def lock_free(session: AsyncSession, box_ids: Collection[UUID]) -> Sequence[UUID]:
    """Lock those of these boxes that nobody else has locked; wait for none."""
    found = await session.exec(
        select(Box.id)
        .where(col(Box.id).in_(box_ids))
        .order_by(col(Box.id))
        .with_for_update(key_share=True, skip_locked=True)
    )
    return found.all()


async def find_target_revision(session: AsyncSession, box_id: UUID) -> BoxRevision | None:
    """Return the newest settings that were not found to fail: what the pod should run."""
    return (await get_target(session, box_id))[0]


async def get_target(session: AsyncSession, box_id: UUID) -> tuple[BoxRevision | None, Tier]:
    """Return the newest settings that were not found to fail, and the box's tier."""
    found = await session.exec(_TARGET, params={"box_id": box_id})
    revision, tier = found.one()
    return revision, Tier(tier)


async def find_applied_revision(
    session: AsyncSession, box_id: UUID, *, before: int
) -> BoxRevision | None:
    """Return the newest settings older than `before` that a pod was ready with."""
    found = await session.exec(
        select(BoxRevision)
        .where(
            BoxRevision.box_id == box_id,
            BoxRevision.outcome == RevisionOutcome.APPLIED.value,
            BoxRevision.generation < before,
        )
        .order_by(col(BoxRevision.generation).desc())
        .limit(1)
    )
    return found.first()


async def has_usable_backup(session: AsyncSession, box_id: UUID) -> bool:
    """Say whether a box's memory can come back when its volume is gone."""
    now = await business_now(session)
    found = await session.exec(
        select(BoxBackup.id)
        .where(
            BoxBackup.box_id == box_id,
            col(BoxBackup.finished_at).is_not(None),
            col(BoxBackup.deleted_at).is_(None),
            col(BoxBackup.error).is_(None),
            col(BoxBackup.key_ct).is_not(None),
            BoxBackup.reason != COPY,
            sa.or_(col(BoxBackup.expires_at).is_(None), col(BoxBackup.expires_at) > now),
        )
        .limit(1)
    )
    return found.first() is not None


async def live_token_ids(session: AsyncSession, box_id: UUID) -> set[UUID]:
    """Return the tokens with which this box's pod gets to its model now."""
    found = await session.exec(
        select(ProxyToken.id).where(ProxyToken.box_id == box_id, *_is_live_token())
    )
    return set(found.all())


def _is_live_token() -> tuple[sa.ColumnElement[bool], ...]:
    return (
        col(ProxyToken.kind) == TokenKind.BOX.value,
        col(ProxyToken.revoked_at).is_(None),
        sa.or_(col(ProxyToken.expires_at).is_(None), col(ProxyToken.expires_at) > REAL_NOW),
    )


async def get_any_box(session: AsyncSession, box_id: UUID, *, lock: bool = False) -> Box:
    """Return a box by its id alone; for the worker and for workflows."""
    return await session.get_one(
        Box, box_id, with_for_update=LOCK if lock else None, populate_existing=True
    )


async def find_any_box(session: AsyncSession, box_id: UUID) -> Box | None:
    """Return a box by its id alone, locked; for an admin's act."""
    return await session.get(Box, box_id, with_for_update=LOCK)


async def any_customers_box_of_namespace(
    session: AsyncSession, namespace: str, *, lock: bool = False
) -> Box | None:
    statement = select(Box).where(Box.k8s_namespace == namespace)
    found = await session.exec(
        statement.with_for_update(key_share=True) if lock else statement,
        execution_options={"populate_existing": True},
    )
    return found.first()


async def any_customers_standings(
    session: AsyncSession, cluster: str, *, after: UUID | None, limit: int
) -> list[Standing]:
    """Return a page of the cluster's boxes in the order of their ids, for the sweep."""
    now = await business_now(session)
    has_hold = sa.exists().where(
        col(Hold.customer_id) == col(Box.customer_id), col(Hold.released_at).is_(None)
    )
    statement = (
        select(Box, Subscription, Customer, has_hold)
        .join(Subscription, col(Subscription.id) == col(Box.subscription_id))
        .join(Customer, col(Customer.id) == col(Box.customer_id))
        .where(col(Box.cluster) == cluster, col(Box.status) != BoxStatus.DESTROYED)
        .order_by(col(Box.id))
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(col(Box.id) > after)
    rows = (await session.exec(statement)).all()
    busy = await jobs.any_customers_busy_boxes(session, [row[0].id for row in rows])
    return [
        Standing(
            box=box,
            desired=desired_state(_facts(box, subscription, customer, holds=held, now=now))[0],
            has_job=box.id in busy,
            tier=subscription.tier,
        )
        for box, subscription, customer, held in rows
    ]


async def any_customers_turned_unhealthy(
    session: AsyncSession, cluster: str, *, since: datetime
) -> tuple[int, int]:
    """Return how many boxes became unhealthy since then and are so still, and how many run."""
    lately = sa.and_(col(Box.status) == BoxStatus.UNHEALTHY, col(Box.status_changed_at) >= since)
    found = await session.exec(
        select(sa.func.count().filter(lately), sa.func.count()).where(
            Box.cluster == cluster,
            col(Box.status).in_([BoxStatus.ACTIVE, BoxStatus.UPDATING, BoxStatus.UNHEALTHY]),
        )
    )
    return found.one()


async def any_customers_ailing_clusters(session: AsyncSession) -> Sequence[str]:
    """Return the clusters where a box does not answer."""
    found = await session.exec(
        select(Box.cluster).where(Box.status == BoxStatus.UNHEALTHY).distinct()
    )
    return found.all()


async def any_customers_untold_outages(
    session: AsyncSession, *, clusters: Collection[str], before: datetime, limit: int
) -> Sequence[Box]:
    """Return these clusters' boxes that stopped before then, and whose customers had no mail."""
    found = await session.exec(
        select(Box)
        .where(
            Box.status == BoxStatus.UNHEALTHY,
            col(Box.cluster).in_(clusters),
            col(Box.status_changed_at) <= before,
            col(Box.activated_at).is_not(None),
            col(Box.health)[OUTAGE_TOLD].is_(None),
        )
        .order_by(col(Box.status_changed_at), col(Box.id))
        .limit(limit)
    )
    return found.all()


async def is_cluster_used(session: AsyncSession, cluster: str) -> bool:
    """Say whether any box, even one of the past, belongs to a cluster of this name."""
    return bool(await session.scalar(select(sa.exists().where(col(Box.cluster) == cluster))))


async def any_customers_namespaces(
    session: AsyncSession, cluster: str, *statuses: BoxStatus
) -> Sequence[str]:
    """Return the namespaces of the cluster's boxes that are in one of these states."""
    found = await session.exec(
        select(Box.k8s_namespace).where(Box.cluster == cluster, col(Box.status).in_(statuses))
    )
    return found.all()


async def any_customers_unseen(session: AsyncSession, cluster: str) -> Sequence[str]:
    """Return the namespaces of active boxes that nobody saw ready for five minutes."""
    seen_since = await business_now(session) - UNSEEN_FOR
    found = await session.exec(
        select(Box.k8s_namespace).where(
            Box.cluster == cluster,
            Box.status == BoxStatus.ACTIVE,
            sa.or_(col(Box.last_seen).is_(None), col(Box.last_seen) < seen_since),
        )
    )
    return found.all()


async def any_customers_watched(session: AsyncSession, namespaces: Sequence[str]) -> list[Watched]:
    found = await (await session.connection()).execute(
        sa.select(
            col(Box.k8s_namespace),
            col(Box.status),
            col(Box.activated_at),
            col(Box.health_failures),
            col(Box.status_reason),
            col(Box.health),
        ).where(
            col(Box.k8s_namespace) == sa.func.any(sa.literal(namespaces, ARRAY(sa.Text))),
            col(Box.status).not_in([BoxStatus.DESTROYING, BoxStatus.DESTROYED]),
        )
    )
    return [
        Watched(
            namespace=namespace,
            status=status,
            was_active=activated_at is not None or RESTORED_AT in health,
            health_failures=failures,
            reason=reason or "",
            health=health,
        )
        for namespace, status, activated_at, failures, reason, health in found
    ]


async def any_clusters_living_namespaces(session: AsyncSession, names: Sequence[str]) -> set[str]:
    """Return which of these namespaces belong to a box that is not destroyed, in any cluster."""
    found = await session.exec(
        select(Box.k8s_namespace).where(
            col(Box.k8s_namespace) == sa.func.any(sa.literal(names, ARRAY(sa.Text))),
            Box.status != BoxStatus.DESTROYED,
        )
    )
    return set(found.all())


async def any_customers_token_standings(session: AsyncSession, cluster: str) -> list[TokenStanding]:
    """Return the cluster's boxes with their live tokens; destroyed ones only if they have any."""
    is_live = sa.and_(col(ProxyToken.box_id) == col(Box.id), *_is_live_token())
    found = await (await session.connection()).execute(
        sa.select(
            col(Box.id),
            col(Box.k8s_namespace),
            col(Box.status),
            col(ProxyToken.id),
            col(ProxyToken.created_at),
        )
        .join(ProxyToken, is_live, isouter=True)
        .where(
            col(Box.cluster) == cluster,
            sa.or_(col(Box.status) != BoxStatus.DESTROYED, col(ProxyToken.id).is_not(None)),
        )
    )
    rows = found.all()
    busy = await jobs.any_customers_busy_boxes(session, list({row[0] for row in rows}))
    standings: dict[UUID, TokenStanding] = {}
    for box_id, namespace, status, token_id, made_at in rows:
        standing = standings.setdefault(
            box_id,
            TokenStanding(
                box_id=box_id,
                namespace=namespace,
                status=status,
                has_job=box_id in busy,
                tokens={},
            ),
        )
        if token_id is not None and made_at is not None:
            standing.tokens[str(token_id)] = made_at
    return list(standings.values())


async def any_customers_boxes_ending(
    session: AsyncSession, now: datetime, until: datetime
) -> Sequence[Box]:
    """Return the boxes that are deleted before `until`; a hold on their customer freezes that."""
    is_held = sa.exists().where(
        col(Hold.customer_id) == col(Box.customer_id), col(Hold.released_at).is_(None)
    )
    found = await session.exec(
        select(Box).where(
            col(Box.delete_after) > now,
            col(Box.delete_after) <= until,
            col(Box.status).not_in([BoxStatus.DESTROYING, BoxStatus.DESTROYED]),
            ~is_held,
        )
    )
    return found.all()


def _facts(
    box: Box,
    subscription: Subscription | None,
    customer: Customer | None,
    *,
    holds: bool,
    now: datetime,
) -> Facts:
    return Facts(
        status=box.status,
        is_entitled=entitlement.entitled(subscription, now - SYNC_COMES_FIRST),
        has_hold=holds,
        is_account_deleted=customer is None or customer.deleted_at is not None,
        user_paused_at=box.user_paused_at,
        delete_after=box.delete_after,
        now=now,
    )
