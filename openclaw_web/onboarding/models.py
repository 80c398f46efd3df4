"""The chat with a visitor, and the secret that it collects."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from openclaw_web.core import columns


class OnboardingState(StrEnum):
    NEW = "new"
    GREETING = "greeting"
    GATHERING_USE_CASE = "gathering_use_case"
    GATHERING_TELEGRAM = "gathering_telegram"
    GATHERING_PREFERENCES = "gathering_preferences"
    RECOMMENDING_TIER = "recommending_tier"
    AWAITING_PAYMENT = "awaiting_payment"
    PROVISIONING = "provisioning"
    COMPLETE = "complete"
    FAILED = "failed"
    ABANDONED = "abandoned"


class OnboardingSession(SQLModel, table=True):
    __tablename__ = "onboarding_sessions"
    __table_args__ = (
        sa.Index("onboarding_sessions_session_token_idx", "session_token"),
        sa.Index(
            "onboarding_sessions_expires_at_idx",
            "expires_at",
            postgresql_where=sa.text(
                "state <> ALL (ARRAY['complete'::onboarding_state, 'failed'::onboarding_state])"
            ),
        ),
    )

    id: UUID = Field(default_factory=uuid4, sa_column=columns.uuid_key())
    customer_id: UUID | None = Field(
        default=None, sa_column=columns.reference("customers.id", nullable=True)
    )
    # The SHA-256 of the visitor's cookie, never the cookie.
    session_token: str = Field(sa_column=columns.text(nullable=False, unique=True))
    state: OnboardingState = Field(
        default=OnboardingState.NEW,
        sa_column=columns.enum_column(
            OnboardingState, "onboarding_state", default=OnboardingState.NEW
        ),
    )
    messages: list[dict[str, Any]] = Field(
        default_factory=list, sa_column=columns.document(default="[]")
    )
    derived_config: dict[str, Any] | None = Field(
        default=None, sa_column=columns.document(nullable=True)
    )
    telegram_user_id: int | None = Field(
        default=None, sa_column=columns.whole(big=True, nullable=True)
    )
    detected_language: str | None = Field(default=None, sa_column=columns.text())
    created_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))
    updated_at: datetime | None = Field(
        default=None,
        sa_column=columns.timestamp(default_now=True, onupdate=sa.func.clock_timestamp()),
    )
    expires_at: datetime | None = Field(
        default=None,
        sa_column=sa.Column(
            sa.TIMESTAMP(timezone=True),
            nullable=False,
            server_default=sa.text("(now() + '24:00:00'::interval)"),
        ),
    )
    state_before: str | None = Field(default=None, sa_column=columns.text())
    box_id: UUID | None = Field(
        default=None, sa_column=columns.reference("boxes.id", nullable=True)
    )
    retries: int = Field(default=0, sa_column=columns.whole(default=0))


class OnboardingSecret(SQLModel, table=True):
    """The bot's token until there is a box to give it to."""

    __tablename__ = "onboarding_secrets"

    session_id: UUID = Field(
        sa_column=sa.Column(sa.Uuid(), sa.ForeignKey("onboarding_sessions.id"), primary_key=True)
    )
    telegram_token_ct: bytes = Field(sa_column=columns.blob(nullable=False))
    token_fingerprint: str = Field(sa_column=columns.text(nullable=False, unique=True))
    bot_id: int = Field(sa_column=columns.whole(big=True))
    bot_username: str = Field(sa_column=columns.text(nullable=False))
    start_nonce_hash: str | None = Field(default=None, sa_column=columns.text())
    key_id: str = Field(sa_column=columns.text(nullable=False))
    updated_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))
