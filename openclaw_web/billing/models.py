"""Subscriptions, checkouts and what Stripe's objects mean to us."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from openclaw_web.core import columns


class Tier(StrEnum):
    STARTER = "starter"
    PRO = "pro"
    TEAM = "team"


class SubscriptionStatus(StrEnum):
    TRIALING = "trialing"
    ACTIVE = "active"
    PAST_DUE = "past_due"
    SUSPENDED = "suspended"
    CANCELLED = "cancelled"


class CheckoutStatus(StrEnum):
    OPEN = "open"
    COMPLETE = "complete"
    EXPIRED = "expired"


class ReversalWhy(StrEnum):
    UNDELIVERED = "undelivered"
    DUPLICATE = "duplicate"
    FRAUD_WARNING = "fraud_warning"
    DISPUTE_LOST = "dispute_lost"
    ADMIN = "admin"


class HoldKind(StrEnum):
    ADMIN = "admin"
    DISPUTE = "dispute"
    ABUSE = "abuse"
    REFUNDING = "refunding"


class Subscription(SQLModel, table=True):
    __tablename__ = "subscriptions"
    __table_args__ = (
        sa.CheckConstraint(
            "current_period_end > current_period_start AND tokens_limit > 0",
            name="subscriptions_sane",
        ),
        sa.Index("subscriptions_customer_id_idx", "customer_id"),
        sa.Index("subscriptions_stripe_subscription_id_idx", "stripe_subscription_id"),
        sa.Index(
            "subscriptions_one_live",
            "customer_id",
            unique=True,
            postgresql_where=sa.text("status <> 'cancelled'::subscription_status"),
        ),
        sa.Index("subscriptions_id_cust", "id", "customer_id", unique=True),
    )

    id: UUID = Field(default_factory=uuid4, sa_column=columns.uuid_key())
    customer_id: UUID = Field(sa_column=columns.reference("customers.id"))
    stripe_subscription_id: str | None = Field(default=None, sa_column=columns.text(unique=True))
    stripe_price_id: str | None = Field(default=None, sa_column=columns.text())
    tier: Tier = Field(sa_column=columns.enum_column(Tier, "tier"))
    # No Python default: a row that forgot its status must not grant service.
    status: SubscriptionStatus = Field(
        sa_column=columns.enum_column(
            SubscriptionStatus, "subscription_status", default=SubscriptionStatus.ACTIVE
        )
    )
    tokens_limit: int = Field(sa_column=columns.whole(big=True))
    current_period_start: datetime = Field(sa_column=columns.timestamp(nullable=False))
    current_period_end: datetime = Field(sa_column=columns.timestamp(nullable=False))
    created_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))
    updated_at: datetime | None = Field(
        default=None,
        sa_column=columns.timestamp(default_now=True, onupdate=sa.func.clock_timestamp()),
    )
    stripe_status: str | None = Field(default=None, sa_column=columns.text())
    cancel_at_period_end: bool = Field(default=False, sa_column=columns.flag())
    past_due_since: datetime | None = Field(default=None, sa_column=columns.timestamp())
    grace_until: datetime | None = Field(default=None, sa_column=columns.timestamp())
    pending_tier: Tier | None = Field(
        default=None, sa_column=columns.enum_column(Tier, "tier", nullable=True)
    )
    synced_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    cancel_reason: str | None = Field(default=None, sa_column=columns.text())
    trial_end: datetime | None = Field(default=None, sa_column=columns.timestamp())
    changing_until: datetime | None = Field(default=None, sa_column=columns.timestamp())


class BillingSync(SQLModel, table=True):
    """One sync with Stripe at a time for each customer.

    A request meanwhile raises `requested_seq`.
    """

    __tablename__ = "billing_syncs"

    customer_id: UUID = Field(
        sa_column=sa.Column(sa.Uuid(), sa.ForeignKey("customers.id"), primary_key=True)
    )
    requested_seq: int = Field(default=0, sa_column=columns.whole(big=True, default=0))
    synced_seq: int = Field(default=0, sa_column=columns.whole(big=True, default=0))
    lease_owner: str | None = Field(default=None, sa_column=columns.text())
    lease_until: datetime | None = Field(default=None, sa_column=columns.timestamp())
    synced_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    error: str | None = Field(default=None, sa_column=columns.text())


class Hold(SQLModel, table=True):
    """A reason to suspend that no payment lifts: dispute, abuse, refunding, admin."""

    __tablename__ = "holds"
    __table_args__ = (
        sa.Index("holds_customer_id_idx", "customer_id"),
        sa.Index(
            "holds_one_open",
            "customer_id",
            "kind",
            unique=True,
            postgresql_where=sa.text("released_at IS NULL"),
        ),
    )

    id: UUID = Field(default_factory=uuid4, sa_column=columns.uuid_key())
    customer_id: UUID = Field(sa_column=columns.reference("customers.id"))
    kind: str = Field(sa_column=columns.text(nullable=False))
    reason: str = Field(sa_column=columns.text(nullable=False))
    created_by: str | None = Field(default=None, sa_column=columns.text())
    created_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))
    released_at: datetime | None = Field(default=None, sa_column=columns.timestamp())


class Adjustment(SQLModel, table=True):
    """Something given by an admin: tokens for a period, or days of grace."""

    __tablename__ = "adjustments"
    __table_args__ = (
        sa.CheckConstraint("kind IN ('tokens', 'grace')", name="adjustments_kind_check"),
        sa.Index("adjustments_customer_id_idx", "customer_id"),
    )

    id: UUID = Field(default_factory=uuid4, sa_column=columns.uuid_key())
    customer_id: UUID = Field(sa_column=columns.reference("customers.id"))
    kind: str = Field(sa_column=columns.text(nullable=False))
    amount: int = Field(sa_column=columns.whole(big=True))
    until: datetime | None = Field(default=None, sa_column=columns.timestamp())
    reason: str = Field(sa_column=columns.text(nullable=False))
    created_by: str = Field(sa_column=columns.text(nullable=False))
    created_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))


class Checkout(SQLModel, table=True):
    """One visit to Stripe's payment page, and what we owe for it until the box answers."""

    __tablename__ = "checkouts"
    __table_args__ = (
        sa.CheckConstraint(
            "status IN ('open', 'complete', 'expired')", name="checkouts_status_check"
        ),
        sa.Index(
            "checkouts_one_open",
            "customer_id",
            unique=True,
            postgresql_where=sa.text("status = 'open'"),
        ),
        sa.Index("checkouts_customer_id_idx", "customer_id"),
        sa.Index(
            "checkouts_undelivered_idx",
            "paid_at",
            postgresql_where=sa.text("delivered_at IS NULL AND refunded_at IS NULL"),
        ),
    )

    id: UUID = Field(default_factory=uuid4, sa_column=columns.uuid_key())
    customer_id: UUID = Field(sa_column=columns.reference("customers.id"))
    onboarding_session_id: UUID | None = Field(
        default=None, sa_column=columns.reference("onboarding_sessions.id", nullable=True)
    )
    tier: Tier = Field(sa_column=columns.enum_column(Tier, "tier"))
    idempotency_key: str = Field(sa_column=columns.text(nullable=False, unique=True))
    stripe_session_id: str | None = Field(default=None, sa_column=columns.text(unique=True))
    url: str | None = Field(default=None, sa_column=columns.text())
    status: str = Field(default=CheckoutStatus.OPEN, sa_column=columns.text(default="open"))
    expires_at: datetime = Field(sa_column=columns.timestamp(nullable=False))
    paid_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    deliver_by: datetime | None = Field(default=None, sa_column=columns.timestamp())
    delivered_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    refund_id: str | None = Field(default=None, sa_column=columns.text())
    refunded_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    created_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))


class Invoice(SQLModel, table=True):
    """A copy of what the customer may see of a Stripe invoice; money in cents."""

    __tablename__ = "invoices"
    __table_args__ = (
        sa.Index("invoices_customer_id_idx", "customer_id"),
        sa.Index("invoices_subscription_id_idx", "subscription_id"),
    )

    stripe_invoice_id: str = Field(sa_column=sa.Column(sa.Text(), primary_key=True))
    customer_id: UUID = Field(sa_column=columns.reference("customers.id"))
    subscription_id: UUID | None = Field(
        default=None, sa_column=columns.reference("subscriptions.id", nullable=True)
    )
    number: str | None = Field(default=None, sa_column=columns.text())
    status: str = Field(sa_column=columns.text(nullable=False))
    currency: str = Field(sa_column=columns.text(nullable=False))
    due_cents: int = Field(sa_column=columns.whole(big=True))
    paid_cents: int = Field(default=0, sa_column=columns.whole(big=True, default=0))
    refunded_cents: int = Field(default=0, sa_column=columns.whole(big=True, default=0))
    period_start: datetime | None = Field(default=None, sa_column=columns.timestamp())
    period_end: datetime | None = Field(default=None, sa_column=columns.timestamp())
    finalized_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    due_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    paid_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    hosted_url: str | None = Field(default=None, sa_column=columns.text())
    synced_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))


class Reversal(SQLModel, table=True):
    """A subscription that we end, its payment that we give back, or both: one open at a time.

    `created_at`, `cancelled_at` and `finished_at` are business time, `run_after` is real time.
    `payment_intent_id` names the one payment to give back; without it all are given back that
    paid for this subscription.
    """

    __tablename__ = "reversals"
    __table_args__ = (
        sa.CheckConstraint(
            "why IN ('undelivered', 'duplicate', 'fraud_warning', 'dispute_lost', 'admin')",
            name="reversals_why_check",
        ),
        sa.CheckConstraint("refunded_cents >= 0", name="reversals_refunded_cents_check"),
        sa.Index("reversals_customer_id_idx", "customer_id"),
        sa.Index(
            "reversals_one_open",
            "stripe_subscription_id",
            unique=True,
            postgresql_where=sa.text("finished_at IS NULL"),
        ),
    )

    id: UUID = Field(default_factory=uuid4, sa_column=columns.uuid_key())
    customer_id: UUID = Field(sa_column=columns.reference("customers.id"))
    checkout_id: UUID | None = Field(
        default=None, sa_column=columns.reference("checkouts.id", nullable=True)
    )
    stripe_subscription_id: str = Field(sa_column=columns.text(nullable=False))
    why: str = Field(sa_column=columns.text(nullable=False))
    cancels: bool = Field(sa_column=sa.Column(sa.Boolean(), nullable=False))
    refunds: bool = Field(sa_column=sa.Column(sa.Boolean(), nullable=False))
    payment_intent_id: str | None = Field(default=None, sa_column=columns.text())
    requested_by: str = Field(sa_column=columns.text(nullable=False))
    created_at: datetime = Field(sa_column=columns.timestamp(nullable=False))
    cancelled_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    refund_id: str | None = Field(default=None, sa_column=columns.text())
    refunded_cents: int = Field(default=0, sa_column=columns.whole(big=True, default=0))
    currency: str | None = Field(default=None, sa_column=columns.text())
    finished_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    attempt: int = Field(default=0, sa_column=columns.whole(default=0))
    run_after: datetime = Field(sa_column=columns.timestamp(nullable=False))
    error: str | None = Field(default=None, sa_column=columns.text())
