"""Boxes: a customer's namespace and pod, its secrets, revisions and backups."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlmodel import Field, SQLModel

from openclaw_web.core import columns

DEFAULT_LANGUAGE = "en"
DEFAULT_MODEL = "kimi-coding/k2p5"
DEFAULT_THINKING_LEVEL = "medium"


class BoxStatus(StrEnum):
    PENDING = "pending"
    PROVISIONING = "provisioning"
    ACTIVE = "active"
    UPDATING = "updating"
    SUSPENDED = "suspended"
    UNHEALTHY = "unhealthy"
    DESTROYING = "destroying"
    DESTROYED = "destroyed"


class RevisionOutcome(StrEnum):
    PENDING = "pending"
    APPLIED = "applied"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"


class Box(SQLModel, table=True):
    __tablename__ = "boxes"
    __table_args__ = (
        sa.CheckConstraint(
            "limit_behaviour IN ('polite', 'error')", name="boxes_limit_behaviour_check"
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id", "customer_id"],
            ["subscriptions.id", "subscriptions.customer_id"],
            name="boxes_sub_same_customer",
        ),
        sa.Index("boxes_customer_id_idx", "customer_id"),
        sa.Index(
            "boxes_status_idx",
            "status",
            postgresql_where=sa.text("status <> 'destroyed'::box_status"),
        ),
        sa.Index(
            "boxes_one_live",
            "subscription_id",
            unique=True,
            postgresql_where=sa.text("status <> 'destroyed'::box_status"),
        ),
        sa.Index("boxes_id_cust", "id", "customer_id", unique=True),
    )

    id: UUID = Field(default_factory=uuid4, sa_column=columns.uuid_key())
    customer_id: UUID = Field(sa_column=columns.reference("customers.id"))
    subscription_id: UUID = Field(sa_column=columns.reference("subscriptions.id"))
    k8s_namespace: str = Field(sa_column=columns.text(nullable=False, unique=True))
    telegram_user_ids: list[int] = Field(
        default_factory=list,
        sa_column=sa.Column(
            postgresql.ARRAY(sa.BigInteger()),
            nullable=False,
            server_default=sa.text("'{}'::bigint[]"),
        ),
    )
    language: str = Field(
        default=DEFAULT_LANGUAGE, sa_column=columns.text(default=DEFAULT_LANGUAGE)
    )
    model: str = Field(default=DEFAULT_MODEL, sa_column=columns.text(default=DEFAULT_MODEL))
    thinking_level: str = Field(
        default=DEFAULT_THINKING_LEVEL, sa_column=columns.text(default=DEFAULT_THINKING_LEVEL)
    )
    status: BoxStatus = Field(
        default=BoxStatus.PENDING,
        sa_column=columns.enum_column(BoxStatus, "box_status", default=BoxStatus.PENDING),
    )
    health_failures: int = Field(default=0, sa_column=columns.whole(default=0))
    last_seen: datetime | None = Field(default=None, sa_column=columns.timestamp())
    created_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))
    activated_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    last_updated: datetime | None = Field(
        default=None, sa_column=columns.timestamp(onupdate=sa.func.clock_timestamp())
    )
    destroyed_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    cluster: str = Field(default="default", sa_column=columns.text(default="default"))
    user_paused_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    image: str | None = Field(default=None, sa_column=columns.text())
    limit_behaviour: str = Field(default="polite", sa_column=columns.text(default="polite"))
    api_access: bool = Field(default=False, sa_column=columns.flag())
    applied_generation: int = Field(default=0, sa_column=columns.whole(big=True, default=0))
    status_reason: str | None = Field(default=None, sa_column=columns.text())
    status_changed_at: datetime | None = Field(
        default=None, sa_column=columns.timestamp(default_now=True)
    )
    generation: int = Field(default=1, sa_column=columns.whole(big=True, default=1))
    observed_generation: int = Field(default=0, sa_column=columns.whole(big=True, default=0))
    agent_ok_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    delete_after: datetime | None = Field(default=None, sa_column=columns.timestamp())
    first_answer_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    health: dict[str, Any] = Field(default_factory=dict, sa_column=columns.document(default="{}"))


class BoxSecret(SQLModel, table=True):
    """The bot's token, encrypted; its fingerprint keeps two boxes from sharing one bot."""

    __tablename__ = "box_secrets"

    box_id: UUID = Field(
        sa_column=sa.Column(sa.Uuid(), sa.ForeignKey("boxes.id"), primary_key=True)
    )
    telegram_token_ct: bytes | None = Field(default=None, sa_column=columns.blob())
    token_fingerprint: str | None = Field(default=None, sa_column=columns.text(unique=True))
    bot_username: str | None = Field(default=None, sa_column=columns.text())
    bot_id: int | None = Field(default=None, sa_column=columns.whole(big=True, nullable=True))
    key_id: str | None = Field(default=None, sa_column=columns.text())
    updated_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))


class BoxRevision(SQLModel, table=True):
    """What was applied to the cluster.

    So that drift compares with the truth and rollback has somewhere to go.
    """

    __tablename__ = "box_revisions"
    __table_args__ = (
        sa.CheckConstraint(
            "outcome IN ('pending', 'applied', 'failed', 'rolled_back')",
            name="box_revisions_outcome_check",
        ),
    )

    box_id: UUID = Field(
        sa_column=sa.Column(sa.Uuid(), sa.ForeignKey("boxes.id"), primary_key=True)
    )
    generation: int = Field(
        sa_column=sa.Column(sa.BigInteger(), primary_key=True, autoincrement=False)
    )
    spec: dict[str, Any] = Field(sa_column=columns.document())
    spec_hash: str = Field(sa_column=columns.text(nullable=False))
    outcome: str = Field(sa_column=columns.text(nullable=False))
    reason: str | None = Field(default=None, sa_column=columns.text())
    created_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))
    applied_at: datetime | None = Field(default=None, sa_column=columns.timestamp())


class BoxBackup(SQLModel, table=True):
    __tablename__ = "box_backups"

    id: UUID = Field(default_factory=uuid4, sa_column=columns.uuid_key())
    box_id: UUID = Field(sa_column=columns.reference("boxes.id"))
    reason: str = Field(sa_column=columns.text(nullable=False))
    location: str = Field(sa_column=columns.text(nullable=False))
    size_bytes: int | None = Field(default=None, sa_column=sa.Column("bytes", sa.BigInteger()))
    sha256: bytes | None = Field(default=None, sa_column=columns.blob())
    key_ct: bytes | None = Field(default=None, sa_column=columns.blob())
    key_id: str | None = Field(default=None, sa_column=columns.text())
    created_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))
    finished_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    expires_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    deleted_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    error: str | None = Field(default=None, sa_column=columns.text())
