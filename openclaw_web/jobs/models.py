"""The operator's jobs, the webhook inbox, and alerts."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from openclaw_web.core import columns


class JobType(StrEnum):
    PROVISION = "provision"
    UPDATE = "update"
    DESTROY = "destroy"
    SUSPEND = "suspend"
    REACTIVATE = "reactivate"
    RESIZE = "resize"
    HEALTH_CHECK = "health_check"


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"


class WebhookOutcome(StrEnum):
    APPLIED = "applied"
    IGNORED = "ignored"
    FAILED = "failed"


class OperatorJob(SQLModel, table=True):
    """One act of the operator: the permanent record, and the outbox of the live queue in Redis."""

    __tablename__ = "operator_jobs"
    __table_args__ = (
        sa.Index(
            "operator_jobs_customer_id_created_at_idx", "customer_id", sa.text("created_at DESC")
        ),
        sa.Index(
            "operator_jobs_status_idx",
            "status",
            postgresql_where=sa.text(
                "status = ANY (ARRAY['queued'::job_status, 'running'::job_status])"
            ),
        ),
        sa.Index(
            "operator_jobs_dedupe",
            "dedupe_key",
            unique=True,
            postgresql_where=sa.text("dedupe_key IS NOT NULL AND status = 'queued'::job_status"),
        ),
        sa.Index(
            "operator_jobs_one_queued",
            "box_id",
            unique=True,
            postgresql_where=sa.text(
                "status = 'queued'::job_status AND box_id IS NOT NULL AND job_type <> "
                "'health_check'::job_type"
            ),
        ),
        sa.Index(
            "operator_jobs_one_run",
            "box_id",
            unique=True,
            postgresql_where=sa.text("status = 'running'::job_status AND box_id IS NOT NULL"),
        ),
        sa.Index(
            "operator_jobs_claim",
            "run_after",
            "created_at",
            postgresql_where=sa.text("status = 'queued'::job_status"),
        ),
    )

    id: UUID = Field(default_factory=uuid4, sa_column=columns.uuid_key())
    customer_id: UUID = Field(sa_column=columns.reference("customers.id"))
    box_id: UUID | None = Field(
        default=None, sa_column=columns.reference("boxes.id", nullable=True)
    )
    job_type: JobType = Field(sa_column=columns.enum_column(JobType, "job_type"))
    status: JobStatus = Field(
        default=JobStatus.QUEUED,
        sa_column=columns.enum_column(JobStatus, "job_status", default=JobStatus.QUEUED),
    )
    payload: dict[str, Any] = Field(default_factory=dict, sa_column=columns.document(default="{}"))
    error_log: str | None = Field(default=None, sa_column=columns.text())
    started_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    completed_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    created_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))
    attempt: int = Field(default=0, sa_column=columns.whole(default=0))
    max_attempts: int = Field(default=5, sa_column=columns.whole(default=5))
    run_after: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))
    lease_owner: str | None = Field(default=None, sa_column=columns.text())
    lease_until: datetime | None = Field(default=None, sa_column=columns.timestamp())
    dedupe_key: str | None = Field(default=None, sa_column=columns.text())
    error_code: str | None = Field(default=None, sa_column=columns.text())
    progress: list[dict[str, Any]] = Field(
        default_factory=list, sa_column=columns.document(default="[]")
    )
    requested_by: str | None = Field(default=None, sa_column=columns.text())
    cancel_requested_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    correlation_id: UUID | None = Field(default=None, sa_column=sa.Column(sa.Uuid()))


class WebhookEvent(SQLModel, table=True):
    """What a provider told us, stored under its own id before it is answered.

    Only a hint to look.
    """

    __tablename__ = "webhook_events"
    __table_args__ = (
        sa.CheckConstraint(
            "outcome IN ('applied', 'ignored', 'failed')", name="webhook_events_outcome_check"
        ),
        sa.Index("webhook_events_due", "run_after", postgresql_where=sa.text("NOT processed")),
        sa.Index("idx_webhook_events_event_type", "event_type"),
        sa.Index("idx_webhook_events_processed", "processed"),
        sa.Index("idx_webhook_events_created_at", "created_at"),
    )

    id: UUID = Field(default_factory=uuid4, sa_column=columns.uuid_key())
    event_id: str = Field(sa_column=sa.Column(sa.String(255), nullable=False, unique=True))
    event_type: str = Field(sa_column=sa.Column(sa.String(100), nullable=False))
    payload: dict[str, Any] = Field(sa_column=columns.document())
    processed: bool = Field(default=False, sa_column=columns.flag())
    processed_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
    error_message: str | None = Field(default=None, sa_column=columns.text())
    created_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))
    provider: str = Field(default="stripe", sa_column=columns.text(default="stripe"))
    object_id: str | None = Field(default=None, sa_column=columns.text())
    livemode: bool | None = Field(default=None, sa_column=sa.Column(sa.Boolean()))
    api_version: str | None = Field(default=None, sa_column=columns.text())
    outcome: str | None = Field(default=None, sa_column=columns.text())
    attempt: int = Field(default=0, sa_column=columns.whole(default=0))
    run_after: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))
    lease_owner: str | None = Field(default=None, sa_column=columns.text())
    lease_until: datetime | None = Field(default=None, sa_column=columns.timestamp())


class Alert(SQLModel, table=True):
    """Something that a person should look at; one open row for each code and subject."""

    __tablename__ = "alerts"
    __table_args__ = (
        sa.Index(
            "alerts_one_open",
            "code",
            "subject",
            unique=True,
            postgresql_where=sa.text("resolved_at IS NULL"),
        ),
    )

    id: UUID = Field(default_factory=uuid4, sa_column=columns.uuid_key())
    code: str = Field(sa_column=columns.text(nullable=False))
    subject: str = Field(sa_column=columns.text(nullable=False))
    detail: dict[str, Any] = Field(default_factory=dict, sa_column=columns.document(default="{}"))
    first_seen_at: datetime | None = Field(
        default=None, sa_column=columns.timestamp(default_now=True)
    )
    last_seen_at: datetime | None = Field(
        default=None, sa_column=columns.timestamp(default_now=True)
    )
    resolved_at: datetime | None = Field(default=None, sa_column=columns.timestamp())
