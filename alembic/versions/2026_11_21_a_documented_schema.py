"""The eight documented tables, exactly as documented.

Revision ID: 2026_11_21_a
Revises:
"""

from alembic import op

revision = "2026_11_21_a"
down_revision = None
branch_labels = None
depends_on = None

UPGRADE = (
    r"""
    CREATE TABLE customers (
        id                 UUID PRIMARY KEY DEFAULT gen_random_uuid(),
        email              TEXT NOT NULL UNIQUE,
        stripe_customer_id TEXT UNIQUE,
        created_at         TIMESTAMPTZ NOT NULL DEFAULT now(),
        deleted_at         TIMESTAMPTZ,
        CONSTRAINT email_format CHECK (email ~* '^[^@]+@[^@]+\.[^@]+$')
    )
    """,
    "CREATE INDEX ON customers (stripe_customer_id)",
    "CREATE INDEX ON customers (email) WHERE deleted_at IS NULL",
    """
    CREATE TYPE subscription_status AS ENUM (
        'trialing', 'active', 'past_due', 'suspended', 'cancelled'
    )
    """,
    "CREATE TYPE tier AS ENUM ('starter', 'pro', 'team')",
    """
    CREATE TABLE subscriptions (
        id                     UUID PRIMARY KEY DEFAULT gen_random_uuid(),
        customer_id            UUID NOT NULL REFERENCES customers(id),
        stripe_subscription_id TEXT UNIQUE,
        stripe_price_id        TEXT,
        tier                   tier NOT NULL,
        status                 subscription_status NOT NULL DEFAULT 'active',
        tokens_limit           BIGINT NOT NULL,
        current_period_start   TIMESTAMPTZ NOT NULL,
        current_period_end     TIMESTAMPTZ NOT NULL,
        created_at             TIMESTAMPTZ NOT NULL DEFAULT now(),
        updated_at             TIMESTAMPTZ NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX ON subscriptions (customer_id)",
    "CREATE INDEX ON subscriptions (stripe_subscription_id)",
    """
    CREATE TYPE box_status AS ENUM (
        'pending',
        'provisioning',
        'active',
        'updating',
        'suspended',
        'unhealthy',
        'destroying',
        'destroyed'
    )
    """,
    """
    CREATE TABLE boxes (
        id              UUID PRIMARY KEY DEFAULT gen_random_uuid(),
        customer_id     UUID NOT NULL REFERENCES customers(id),
        subscription_id UUID NOT NULL REFERENCES subscriptions(id),
        k8s_namespace   TEXT NOT NULL UNIQUE,
        telegram_user_ids  BIGINT[] NOT NULL DEFAULT '{}',
        language           TEXT NOT NULL DEFAULT 'en',
        model              TEXT NOT NULL DEFAULT 'kimi-coding/k2p5',
        thinking_level     TEXT NOT NULL DEFAULT 'medium',
        status          box_status NOT NULL DEFAULT 'pending',
        health_failures INT NOT NULL DEFAULT 0,
        last_seen       TIMESTAMPTZ,
        created_at      TIMESTAMPTZ NOT NULL DEFAULT now(),
        activated_at    TIMESTAMPTZ,
        last_updated    TIMESTAMPTZ,
        destroyed_at    TIMESTAMPTZ
    )
    """,
    "CREATE INDEX ON boxes (customer_id)",
    "CREATE INDEX ON boxes (status) WHERE status NOT IN ('destroyed')",
    """
    CREATE TABLE proxy_tokens (
        id          UUID PRIMARY KEY DEFAULT gen_random_uuid(),
        customer_id UUID NOT NULL REFERENCES customers(id),
        box_id      UUID NOT NULL REFERENCES boxes(id),
        token_hash  TEXT NOT NULL UNIQUE,
        created_at  TIMESTAMPTZ NOT NULL DEFAULT now(),
        revoked_at  TIMESTAMPTZ
    )
    """,
    "CREATE INDEX ON proxy_tokens (token_hash) WHERE revoked_at IS NULL",
    "CREATE INDEX ON proxy_tokens (customer_id)",
    """
    CREATE TABLE usage_monthly (
        id           UUID PRIMARY KEY DEFAULT gen_random_uuid(),
        customer_id  UUID NOT NULL REFERENCES customers(id),
        period_start TIMESTAMPTZ NOT NULL,
        period_end   TIMESTAMPTZ NOT NULL,
        tokens_used  BIGINT NOT NULL DEFAULT 0,
        tokens_limit BIGINT NOT NULL,
        reset_at     TIMESTAMPTZ,
        UNIQUE (customer_id, period_start)
    )
    """,
    "CREATE INDEX ON usage_monthly (customer_id, period_start DESC)",
    """
    CREATE TABLE usage_events (
        id                BIGSERIAL PRIMARY KEY,
        customer_id       UUID NOT NULL REFERENCES customers(id),
        box_id            UUID NOT NULL REFERENCES boxes(id),
        timestamp         TIMESTAMPTZ NOT NULL DEFAULT now(),
        model             TEXT NOT NULL,
        prompt_tokens     INT NOT NULL,
        completion_tokens INT NOT NULL,
        total_tokens      INT GENERATED ALWAYS AS (prompt_tokens + completion_tokens) STORED,
        request_id        TEXT
    )
    """,
    "CREATE INDEX ON usage_events (customer_id, timestamp DESC)",
    """
    CREATE TYPE onboarding_state AS ENUM (
        'new', 'greeting', 'gathering_use_case', 'gathering_telegram',
        'gathering_preferences', 'recommending_tier',
        'awaiting_payment', 'provisioning', 'complete', 'failed', 'abandoned'
    )
    """,
    """
    CREATE TABLE onboarding_sessions (
        id               UUID PRIMARY KEY DEFAULT gen_random_uuid(),
        customer_id      UUID REFERENCES customers(id),
        session_token    TEXT NOT NULL UNIQUE,
        state            onboarding_state NOT NULL DEFAULT 'new',
        messages         JSONB NOT NULL DEFAULT '[]',
        derived_config   JSONB,
        telegram_user_id BIGINT,
        detected_language TEXT,
        created_at       TIMESTAMPTZ NOT NULL DEFAULT now(),
        updated_at       TIMESTAMPTZ NOT NULL DEFAULT now(),
        expires_at       TIMESTAMPTZ NOT NULL DEFAULT now() + interval '24 hours'
    )
    """,
    "CREATE INDEX ON onboarding_sessions (session_token)",
    """
    CREATE INDEX ON onboarding_sessions (expires_at) WHERE state NOT IN ('complete', 'failed')
    """,
    """
    CREATE TYPE job_type AS ENUM (
        'provision', 'update', 'destroy', 'suspend', 'reactivate', 'resize', 'health_check'
    )
    """,
    "CREATE TYPE job_status AS ENUM ('queued', 'running', 'complete', 'failed')",
    """
    CREATE TABLE operator_jobs (
        id           UUID PRIMARY KEY DEFAULT gen_random_uuid(),
        customer_id  UUID NOT NULL REFERENCES customers(id),
        box_id       UUID REFERENCES boxes(id),
        job_type     job_type NOT NULL,
        status       job_status NOT NULL DEFAULT 'queued',
        payload      JSONB NOT NULL DEFAULT '{}',
        error_log    TEXT,
        started_at   TIMESTAMPTZ,
        completed_at TIMESTAMPTZ,
        created_at   TIMESTAMPTZ NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX ON operator_jobs (customer_id, created_at DESC)",
    "CREATE INDEX ON operator_jobs (status) WHERE status IN ('queued', 'running')",
)

DOWNGRADE = (
    "DROP TABLE operator_jobs",
    "DROP TABLE onboarding_sessions",
    "DROP TABLE usage_events",
    "DROP TABLE usage_monthly",
    "DROP TABLE proxy_tokens",
    "DROP TABLE boxes",
    "DROP TABLE subscriptions",
    "DROP TABLE customers",
    "DROP TYPE subscription_status",
    "DROP TYPE tier",
    "DROP TYPE box_status",
    "DROP TYPE onboarding_state",
    "DROP TYPE job_type",
    "DROP TYPE job_status",
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWNGRADE:
        op.execute(statement)
