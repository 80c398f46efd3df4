"""Customers and everything about who they are."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlmodel import Field, SQLModel

from openclaw_web.core import columns


class Role(StrEnum):
    CUSTOMER = "customer"
    SUPPORT = "support"
    ADMIN = "admin"


STAFF_ROLES = frozenset({Role.SUPPORT, Role.ADMIN})


class MailStatus(StrEnum):
    PENDING = "pending"
    SENT = "sent"
    FAILED = "failed"


class Customer(SQLModel, table=True):
    __tablename__ = "customers"
    __table_args__ = (
        sa.CheckConstraint(r"email ~* '^[^@]+@[^@]+\.[^@]+$'", name="email_format"),
        sa.Index("customers_stripe_customer_id_idx", "stripe_customer_id"),
        sa.Index("customers_email_idx", "email", postgresql_where=sa.text("deleted_at IS NULL")),
        sa.Index(
            "customers_email_ci",
            sa.text("lower(email)"),
            unique=True,
            postgresql_where=sa.text("deleted_at IS NULL"),
        ),
    )

    id: UUID = Field(default_factory=uuid4, sa_column=columns.uuid_key())
    email: str = Field(sa_column=columns.text(nullable=False, unique=True))
    stripe_customer_id: str | None = Field(default=None, sa_column=columns.text(unique=True))
    created_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))
    deleted_at: datetime | None = Field(default=None, sa_column=columns.timestamp())


class CustomerAuth(SQLModel, table=True):
    """How a customer proves who they are, and what they may do."""

    __tablename__ = "customer_auth"
    __table_args__ = (
        sa.CheckConstraint(
            "role IN ('customer', 'support', 'admin')", name="customer_auth_role_check"
        ),
    )

    customer_id: UUID = Field(
        sa_column=sa.Column(sa.Uuid(), sa.ForeignKey("customers.id"), primary_key=True)
    )
    password_hash: str | None = Field(default=None, sa_column=columns.text())
    role: str = Field(default=Role.CUSTOMER, sa_column=columns.text(default="customer"))
    email_verified_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    totp_secret_ct: bytes | None = Field(default=None, sa_column=columns.blob())
    totp_key_id: str | None = Field(default=None, sa_column=columns.text())
    totp_last_step: int | None = Field(
        default=None, sa_column=columns.whole(big=True, nullable=True)
    )
    totp_confirmed_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    failed_logins: int = Field(default=0, sa_column=columns.whole(default=0))
    locked_until: datetime | None = Field(default=None, sa_column=columns.timestamp())
    updated_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))


class CustomerProfile(SQLModel, table=True):
    __tablename__ = "customer_profiles"

    customer_id: UUID = Field(
        sa_column=sa.Column(sa.Uuid(), sa.ForeignKey("customers.id"), primary_key=True)
    )
    locale: str = Field(default="en", sa_column=columns.text(default="en"))
    time_zone: str = Field(default="UTC", sa_column=columns.text(default="UTC"))
    mail_opt_out: list[str] = Field(
        default_factory=list,
        sa_column=sa.Column(
            postgresql.ARRAY(sa.Text()), nullable=False, server_default=sa.text("'{}'::text[]")
        ),
    )
    terms_version: str | None = Field(default=None, sa_column=columns.text())
    terms_accepted_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    updated_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))


class Identity(SQLModel, table=True):
    """One way in which a customer signs in with somebody else's account."""

    __tablename__ = "identities"
    __table_args__ = (
        sa.UniqueConstraint("provider", "subject", name="identities_provider_subject_key"),
    )

    id: UUID = Field(default_factory=uuid4, sa_column=columns.uuid_key())
    customer_id: UUID = Field(sa_column=columns.reference("customers.id"))
    provider: str = Field(sa_column=columns.text(nullable=False))
    subject: str = Field(sa_column=columns.text(nullable=False))
    created_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))
    last_login_at: datetime | None = Field(default=None, sa_column=columns.timestamp())


class SignInCode(SQLModel, table=True):
    """A one-time code that was mailed; only its hash is kept."""

    __tablename__ = "sign_in_codes"

    id: UUID = Field(default_factory=uuid4, sa_column=columns.uuid_key())
    email: str = Field(sa_column=columns.text(nullable=False))
    code_hash: str = Field(sa_column=columns.text(nullable=False))
    purpose: str = Field(default="sign_in", sa_column=columns.text(default="sign_in"))
    attempts: int = Field(default=0, sa_column=columns.whole(default=0))
    created_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))
    expires_at: datetime = Field(sa_column=columns.timestamp(nullable=False))
    used_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    customer_id: UUID | None = Field(
        default=None, sa_column=columns.reference("customers.id", nullable=True)
    )
    new_email: str | None = Field(default=None, sa_column=columns.text())


class AuthSession(SQLModel, table=True):
    """A signed-in browser; the cookie's SHA-256 finds it."""

    __tablename__ = "auth_sessions"

    id: UUID = Field(default_factory=uuid4, sa_column=columns.uuid_key())
    customer_id: UUID = Field(sa_column=columns.reference("customers.id"))
    token_hash: str = Field(sa_column=columns.text(nullable=False, unique=True))
    ip: str | None = Field(default=None, sa_column=sa.Column(postgresql.INET()))
    user_agent: str | None = Field(default=None, sa_column=columns.text())
    created_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))
    last_seen_at: datetime | None = Field(
        default=None, sa_column=columns.timestamp(default_now=True)
    )
    expires_at: datetime = Field(sa_column=columns.timestamp(nullable=False))
    revoked_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    rechecked_at: datetime | None = Field(default=None, sa_column=columns.timestamp())


class RecoveryCode(SQLModel, table=True):
    __tablename__ = "recovery_codes"

    customer_id: UUID = Field(
        sa_column=sa.Column(sa.Uuid(), sa.ForeignKey("customers.id"), primary_key=True)
    )
    code_hash: str = Field(sa_column=sa.Column(sa.Text(), primary_key=True))
    used_at: datetime | None = Field(default=None, sa_column=columns.timestamp())


class AuditLog(SQLModel, table=True):
    """Who did what, append-only; `seq` orders it, one sealer loop sets the hashes."""

    __tablename__ = "audit_logs"
    __table_args__ = (
        sa.Index("idx_audit_logs_user", "user_id"),
        sa.Index("idx_audit_logs_action", "action"),
        sa.Index("idx_audit_logs_created", "created_at"),
    )

    id: UUID = Field(default_factory=uuid4, sa_column=columns.uuid_key())
    user_id: UUID | None = Field(
        default=None,
        sa_column=columns.reference("customers.id", nullable=True, ondelete="SET NULL"),
    )
    action: str = Field(sa_column=sa.Column(sa.String(100), nullable=False))
    resource_type: str | None = Field(default=None, sa_column=sa.Column(sa.String(50)))
    resource_id: str | None = Field(default=None, sa_column=sa.Column(sa.String(255)))
    ip_address: str | None = Field(default=None, sa_column=sa.Column(postgresql.INET()))
    user_agent: str | None = Field(default=None, sa_column=columns.text())
    details: dict[str, Any] | None = Field(
        default=None,
        sa_column=sa.Column("metadata", postgresql.JSONB(), server_default=sa.text("'{}'")),
    )
    created_at: datetime | None = Field(
        default=None, sa_column=sa.Column(sa.TIMESTAMP(timezone=True), server_default=columns.NOW)
    )
    seq: int | None = Field(
        default=None,
        sa_column=sa.Column(
            sa.BigInteger(), nullable=False, unique=True, server_default=sa.FetchedValue()
        ),
    )
    actor_type: str = Field(default="customer", sa_column=columns.text(default="customer"))
    actor_id: str | None = Field(default=None, sa_column=columns.text())
    reason: str | None = Field(default=None, sa_column=columns.text())
    diff: dict[str, Any] | None = Field(default=None, sa_column=columns.document(nullable=True))
    request_id: str | None = Field(default=None, sa_column=columns.text())
    prev_hash: bytes | None = Field(default=None, sa_column=columns.blob())
    hash: bytes | None = Field(default=None, sa_column=columns.blob())


class OutboxMail(SQLModel, table=True):
    """A mail to send, written in the transaction that caused it; `secret_ct` is wiped once sent."""

    __tablename__ = "email_outbox"
    __table_args__ = (
        sa.CheckConstraint("status IN ('pending', 'sent', 'failed')", name="email_outbox_status"),
        sa.Index("email_outbox_due", "run_after", postgresql_where=sa.text("status = 'pending'")),
    )

    id: UUID = Field(default_factory=uuid4, sa_column=columns.uuid_key())
    customer_id: UUID | None = Field(
        default=None, sa_column=columns.reference("customers.id", nullable=True)
    )
    kind: str = Field(sa_column=columns.text(nullable=False))
    dedupe_key: str | None = Field(default=None, sa_column=columns.text(unique=True))
    payload: dict[str, Any] = Field(default_factory=dict, sa_column=columns.document(default="{}"))
    status: str = Field(default=MailStatus.PENDING, sa_column=columns.text(default="pending"))
    attempt: int = Field(default=0, sa_column=columns.whole(default=0))
    run_after: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))
    sent_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    error: str | None = Field(default=None, sa_column=columns.text())
    recipient: str | None = Field(default=None, sa_column=columns.text())
    locale: str = Field(default="en", sa_column=columns.text(default="en"))
    secret_ct: bytes | None = Field(default=None, sa_column=columns.blob())
    key_id: str | None = Field(default=None, sa_column=columns.text())
    lease_owner: str | None = Field(default=None, sa_column=columns.text())
    lease_until: datetime | None = Field(default=None, sa_column=columns.timestamp())
    created_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))


class Notice(SQLModel, table=True):
    """A notice that a customer gets once a period, such as 75 % used."""

    __tablename__ = "notices"

    customer_id: UUID = Field(
        sa_column=sa.Column(sa.Uuid(), sa.ForeignKey("customers.id"), primary_key=True)
    )
    kind: str = Field(sa_column=sa.Column(sa.Text(), primary_key=True))
    period_start: datetime = Field(
        sa_column=sa.Column(sa.TIMESTAMP(timezone=True), primary_key=True)
    )
    sent_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))


class Export(SQLModel, table=True):
    """A customer's request for all their data."""

    __tablename__ = "exports"
    __table_args__ = (
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'ready', 'failed', 'expired')",
            name="exports_status_check",
        ),
    )

    id: UUID = Field(default_factory=uuid4, sa_column=columns.uuid_key())
    customer_id: UUID = Field(sa_column=columns.reference("customers.id"))
    status: str = Field(default="queued", sa_column=columns.text(default="queued"))
    location: str | None = Field(default=None, sa_column=columns.text())
    error: str | None = Field(default=None, sa_column=columns.text())
    expires_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    created_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))


class DeletionReceipt(SQLModel, table=True):
    """What a deletion erased and what it kept, and why; it outlives the customer's row."""

    __tablename__ = "deletion_receipts"

    id: UUID = Field(default_factory=uuid4, sa_column=columns.uuid_key())
    customer_id: UUID = Field(sa_column=sa.Column(sa.Uuid(), nullable=False))
    receipt: dict[str, Any] = Field(sa_column=columns.document())
    created_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))
