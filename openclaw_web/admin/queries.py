"""What the overview reads across all areas, in a few statements."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.sql.selectable import LateralFromClause
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts.models import Customer
from openclaw_web.billing.models import Subscription, SubscriptionStatus
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.jobs.leases import SUPERSEDED
from openclaw_web.jobs.models import JobStatus, OperatorJob
from openclaw_web.jobs.service import CANCELLED
from openclaw_web.metering.models import UsageDaily, UsageMonthly

ONE_DAY = timedelta(days=1)
# Jobs that were not done because nobody wanted them any more did not fail.
UNWANTED = (CANCELLED, SUPERSEDED)
PAYING = (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE)


@dataclass(frozen=True, kw_only=True)
class Totals:
    customers: int
    paying: int
    boxes: int
    boxes_active: int
    boxes_unhealthy: int
    jobs_queued: int
    jobs_failed: int
    tokens_today: int


@dataclass(frozen=True, kw_only=True)
class CustomerRow:
    """One customer with the newest subscription and box, and the running period."""

    customer_id: UUID
    email: str
    created_at: datetime | None
    tier: str | None
    subscription_status: str | None
    box_id: UUID | None
    box_status: str | None
    status_reason: str | None
    namespace: str | None
    tokens_used: int
    tokens_limit: int


async def any_customers_totals(session: AsyncSession, now: datetime) -> Totals:
    """Count what runs; `now` is business time."""
    live = col(Box.status) != BoxStatus.DESTROYED
    tokens = col(UsageDaily.prompt_tokens) + col(UsageDaily.completion_tokens)
    row = (
        await (await session.connection()).execute(
            sa.select(
                _count(Customer, col(Customer.deleted_at).is_(None)),
                _count(Subscription, col(Subscription.status).in_(PAYING)),
                _count(Box, live),
                _count(Box, col(Box.status) == BoxStatus.ACTIVE),
                _count(Box, col(Box.status) == BoxStatus.UNHEALTHY),
                _count(OperatorJob, col(OperatorJob.status) == JobStatus.QUEUED),
                _count(
                    OperatorJob,
                    col(OperatorJob.status) == JobStatus.FAILED,
                    sa.func.coalesce(col(OperatorJob.error_code), "").not_in(UNWANTED),
                    col(OperatorJob.created_at) > now - ONE_DAY,
                ),
                sa.select(sa.func.coalesce(sa.func.sum(tokens), 0))
                .where(col(UsageDaily.day) == now.date())
                .scalar_subquery(),
            )
        )
    ).one()
    return Totals(
        customers=row[0],
        paying=row[1],
        boxes=row[2],
        boxes_active=row[3],
        boxes_unhealthy=row[4],
        jobs_queued=row[5],
        jobs_failed=row[6],
        tokens_today=int(row[7]),
    )


async def any_customers_overview(
    session: AsyncSession, now: datetime, *, search: str = "", limit: int = 50
) -> Sequence[CustomerRow]:
    """Return the newest customers whose address, id or namespace contains the text."""
    subscription = _newest(Subscription)
    box = _newest(Box)
    running = sa.and_(
        col(UsageMonthly.customer_id) == col(Customer.id),
        col(UsageMonthly.period_start) <= now,
        col(UsageMonthly.period_end) > now,
    )
    statement = (
        sa.select(
            col(Customer.id),
            col(Customer.email),
            col(Customer.created_at),
            subscription.c.tier,
            subscription.c.status.label("subscription_status"),
            box.c.id.label("box_id"),
            box.c.status.label("box_status"),
            box.c.status_reason,
            box.c.k8s_namespace,
            col(UsageMonthly.tokens_used),
            col(UsageMonthly.tokens_limit),
        )
        .select_from(Customer)
        .outerjoin(subscription, sa.true())
        .outerjoin(box, sa.true())
        .outerjoin(UsageMonthly, running)
        .where(col(Customer.deleted_at).is_(None))
        .order_by(col(Customer.created_at).desc())
        .limit(limit)
    )
    if search:
        statement = statement.where(
            sa.or_(
                col(Customer.email).icontains(search, autoescape=True),
                sa.cast(col(Customer.id), sa.Text).icontains(search, autoescape=True),
                box.c.k8s_namespace.icontains(search, autoescape=True),
            )
        )
    return [
        CustomerRow(
            customer_id=row.id,
            email=row.email,
            created_at=row.created_at,
            tier=row.tier,
            subscription_status=row.subscription_status,
            box_id=row.box_id,
            box_status=row.box_status,
            status_reason=row.status_reason,
            namespace=row.k8s_namespace,
            tokens_used=row.tokens_used or 0,
            tokens_limit=row.tokens_limit or 0,
        )
        for row in await (await session.connection()).execute(statement)
    ]


async def any_customers_emails(
    session: AsyncSession, customer_ids: Collection[UUID]
) -> dict[UUID, str]:
    """Return the addresses of these customers, deleted ones' included."""
    found = await session.exec(
        select(Customer.id, Customer.email).where(col(Customer.id).in_(customer_ids))
    )
    return dict(found.all())


def _count(table: type, *conditions: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
    return sa.select(sa.func.count()).select_from(table).where(*conditions).scalar_subquery()


def _newest(table: type[Subscription | Box]) -> LateralFromClause:
    owner = col(table.customer_id)
    return (
        sa.select(table)
        .where(owner == col(Customer.id))
        .order_by(col(table.created_at).desc())
        .limit(1)
        .lateral()
    )
