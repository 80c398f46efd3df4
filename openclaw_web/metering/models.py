"""Proxy tokens, usage events and their roll-ups."""

from datetime import date, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from openclaw_web.core import columns


class TokenKind(StrEnum):
    BOX = "box"
    API = "api"


class ProxyToken(SQLModel, table=True):
    """What a box shows us. The clear value lives only in the customer's Secret."""

    __tablename__ = "proxy_tokens"
    __table_args__ = (
        sa.CheckConstraint("kind IN ('box', 'api')", name="proxy_tokens_kind_check"),
        sa.ForeignKeyConstraint(
            ["box_id", "customer_id"],
            ["boxes.id", "boxes.customer_id"],
            name="tokens_box_same_customer",
        ),
        sa.Index(
            "proxy_tokens_token_hash_idx",
            "token_hash",
            postgresql_where=sa.text("revoked_at IS NULL"),
        ),
        sa.Index("proxy_tokens_customer_id_idx", "customer_id"),
    )

    id: UUID = Field(default_factory=uuid4, sa_column=columns.uuid_key())
    customer_id: UUID = Field(sa_column=columns.reference("customers.id"))
    box_id: UUID = Field(sa_column=columns.reference("boxes.id"))
    token_hash: str = Field(sa_column=columns.text(nullable=False, unique=True))
    created_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))
    revoked_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    token_hmac: bytes | None = Field(default=None, sa_column=columns.blob(unique=True))
    key_id: str | None = Field(default=None, sa_column=columns.text())
    expires_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    last_used_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    last4: str | None = Field(default=None, sa_column=columns.text())
    label: str | None = Field(default=None, sa_column=columns.text())
    kind: str = Field(default=TokenKind.BOX, sa_column=columns.text(default="box"))
    is_unthrottled: bool = Field(default=False, sa_column=columns.flag())


class UsageMonthly(SQLModel, table=True):
    """Tokens used and allowed in one billing period of a customer."""

    __tablename__ = "usage_monthly"
    __table_args__ = (
        sa.UniqueConstraint(
            "customer_id", "period_start", name="usage_monthly_customer_id_period_start_key"
        ),
        sa.CheckConstraint(
            "period_end > period_start AND tokens_limit > 0 AND tokens_used >= 0",
            name="usage_monthly_sane",
        ),
        sa.Index(
            "usage_monthly_customer_id_period_start_idx",
            "customer_id",
            sa.text("period_start DESC"),
        ),
    )

    id: UUID = Field(default_factory=uuid4, sa_column=columns.uuid_key())
    customer_id: UUID = Field(sa_column=columns.reference("customers.id"))
    period_start: datetime = Field(sa_column=columns.timestamp(nullable=False))
    period_end: datetime = Field(sa_column=columns.timestamp(nullable=False))
    tokens_used: int = Field(default=0, sa_column=columns.whole(big=True, default=0))
    tokens_limit: int = Field(sa_column=columns.whole(big=True))
    reset_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    is_provisional: bool = Field(default=False, sa_column=columns.flag())


class UsageEvent(SQLModel, table=True):
    """One proxied request."""

    __tablename__ = "usage_events"
    __table_args__ = (
        sa.ForeignKeyConstraint(
            ["box_id", "customer_id"],
            ["boxes.id", "boxes.customer_id"],
            name="events_box_same_customer",
        ),
        sa.CheckConstraint(
            "prompt_tokens >= 0 AND completion_tokens >= 0", name="usage_events_nonneg"
        ),
        sa.Index(
            "usage_events_customer_id_timestamp_idx", "customer_id", sa.text('"timestamp" DESC')
        ),
        sa.Index(
            "usage_events_dedup",
            "customer_id",
            "request_id",
            unique=True,
            postgresql_where=sa.text("request_id IS NOT NULL"),
        ),
    )

    id: int | None = Field(
        default=None, sa_column=sa.Column(sa.BigInteger(), primary_key=True, autoincrement=True)
    )
    customer_id: UUID = Field(sa_column=columns.reference("customers.id"))
    box_id: UUID = Field(sa_column=columns.reference("boxes.id"))
    timestamp: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))
    model: str = Field(sa_column=columns.text(nullable=False))
    prompt_tokens: int = Field(sa_column=columns.whole())
    completion_tokens: int = Field(sa_column=columns.whole())
    total_tokens: int | None = Field(
        default=None,
        sa_column=sa.Column(
            sa.Integer(),
            sa.Computed("prompt_tokens + completion_tokens", persisted=True),
            nullable=True,
        ),
    )
    request_id: str | None = Field(default=None, sa_column=columns.text())


class UsageEventMeta(SQLModel, table=True):
    """What an event knows beyond the documented columns; times in milliseconds."""

    __tablename__ = "usage_event_meta"

    event_id: int = Field(
        sa_column=sa.Column(
            sa.BigInteger(),
            sa.ForeignKey("usage_events.id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        )
    )
    period_start: datetime = Field(sa_column=columns.timestamp(nullable=False))
    provider_request_id: str | None = Field(default=None, sa_column=columns.text())
    cached_tokens: int = Field(default=0, sa_column=columns.whole(default=0))
    reasoning_tokens: int = Field(default=0, sa_column=columns.whole(default=0))
    status_code: int | None = Field(default=None, sa_column=columns.whole(nullable=True))
    latency_ms: int | None = Field(default=None, sa_column=columns.whole(nullable=True))
    ttfb_ms: int | None = Field(default=None, sa_column=columns.whole(nullable=True))
    streamed: bool = Field(default=False, sa_column=columns.flag())
    estimated: bool = Field(default=False, sa_column=columns.flag())
    outcome: str = Field(default="complete", sa_column=columns.text(default="complete"))
    upstream: str | None = Field(default=None, sa_column=columns.text())
    # Counted in a period that does not hold its time: that period's end was moved meanwhile.
    late: bool = Field(default=False, sa_column=columns.flag())


class UsageDaily(SQLModel, table=True):
    """Tokens by day (of business time, UTC), box and model: what the charts read."""

    __tablename__ = "usage_daily"
    __table_args__ = (
        sa.ForeignKeyConstraint(
            ["box_id", "customer_id"],
            ["boxes.id", "boxes.customer_id"],
            name="daily_box_same_customer",
        ),
    )

    customer_id: UUID = Field(
        sa_column=sa.Column(sa.Uuid(), sa.ForeignKey("customers.id"), primary_key=True)
    )
    box_id: UUID = Field(sa_column=sa.Column(sa.Uuid(), primary_key=True))
    day: date = Field(sa_column=sa.Column(sa.Date(), primary_key=True))
    model: str = Field(sa_column=sa.Column(sa.Text(), primary_key=True))
    requests: int = Field(default=0, sa_column=columns.whole(big=True, default=0))
    prompt_tokens: int = Field(default=0, sa_column=columns.whole(big=True, default=0))
    cached_tokens: int = Field(default=0, sa_column=columns.whole(big=True, default=0))
    reasoning_tokens: int = Field(default=0, sa_column=columns.whole(big=True, default=0))
    completion_tokens: int = Field(default=0, sa_column=columns.whole(big=True, default=0))


class Resolution(StrEnum):
    """What became of a refused event."""

    WRITTEN = "written"
    SET_ASIDE = "set_aside"


class UsageReject(SQLModel, table=True):
    """An event that the ledger refused, kept for ever, open until it is written or set aside."""

    __tablename__ = "usage_rejects"
    __table_args__ = (
        sa.CheckConstraint(
            "resolution IN ('written', 'set_aside')", name="usage_rejects_resolution_check"
        ),
        sa.Index(
            "usage_rejects_open", "created_at", postgresql_where=sa.text("resolved_at IS NULL")
        ),
    )

    id: UUID = Field(default_factory=uuid4, sa_column=columns.uuid_key())
    request_id: str | None = Field(default=None, sa_column=columns.text(unique=True))
    payload: dict[str, Any] = Field(sa_column=columns.document())
    error: str = Field(sa_column=columns.text(nullable=False))
    created_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))
    resolved_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    attempt: int = Field(default=0, sa_column=columns.whole(default=0))
    tried_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    resolution: str | None = Field(default=None, sa_column=columns.text())
    resolved_by: str | None = Field(default=None, sa_column=columns.text())
    note: str | None = Field(default=None, sa_column=columns.text())


class UsageCheck(SQLModel, table=True):
    """What the newest check of a period found, and what it need not add up again.

    `settled_tokens` is the ledger's sum of this period before the day `settled_before`;
    `settled_day_tokens` is the sum of the customer's daily rows from the period's first day until
    then. Times are business time.
    """

    __tablename__ = "usage_checks"

    customer_id: UUID = Field(
        sa_column=sa.Column(sa.Uuid(), sa.ForeignKey("customers.id"), primary_key=True)
    )
    period_start: datetime = Field(
        sa_column=sa.Column(sa.TIMESTAMP(timezone=True), primary_key=True)
    )
    checked_at: datetime = Field(sa_column=columns.timestamp(nullable=False))
    full_at: datetime = Field(sa_column=columns.timestamp(nullable=False))
    agrees: bool = Field(sa_column=sa.Column(sa.Boolean(), nullable=False))
    month_tokens: int = Field(sa_column=columns.whole(big=True))
    settled_before: date = Field(sa_column=sa.Column(sa.Date(), nullable=False))
    settled_tokens: int = Field(sa_column=columns.whole(big=True))
    settled_day_tokens: int = Field(sa_column=columns.whole(big=True))
    repairs: int = Field(default=0, sa_column=columns.whole(default=0))
    repaired_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
