"""What is added to the documented tables: guards, columns and further tables; nothing is changed.

Revision ID: 2026_11_21_b
Revises: 2026_11_21_a
"""

from alembic import op

revision = "2026_11_21_b"
down_revision = "2026_11_21_a"
branch_labels = None
depends_on = None

UPGRADE = (
    """
    CREATE UNIQUE INDEX customers_email_ci
        ON customers (lower(email))
        WHERE deleted_at IS NULL
    """,
    """
    CREATE UNIQUE INDEX subscriptions_one_live
        ON subscriptions (customer_id)
        WHERE status <> 'cancelled'
    """,
    "CREATE UNIQUE INDEX subscriptions_id_cust ON subscriptions (id, customer_id)",
    """
    CREATE UNIQUE INDEX boxes_one_live
        ON boxes (subscription_id)
        WHERE status <> 'destroyed'
    """,
    "CREATE UNIQUE INDEX boxes_id_cust ON boxes (id, customer_id)",
    """
    ALTER TABLE boxes
        ADD CONSTRAINT boxes_sub_same_customer
            FOREIGN KEY (subscription_id, customer_id) REFERENCES subscriptions (id, customer_id)
    """,
    """
    ALTER TABLE proxy_tokens
        ADD CONSTRAINT tokens_box_same_customer
            FOREIGN KEY (box_id, customer_id) REFERENCES boxes (id, customer_id)
    """,
    """
    ALTER TABLE usage_events
        ADD CONSTRAINT events_box_same_customer
            FOREIGN KEY (box_id, customer_id) REFERENCES boxes (id, customer_id)
    """,
    """
    CREATE UNIQUE INDEX usage_events_dedup
        ON usage_events (customer_id, request_id)
        WHERE request_id IS NOT NULL
    """,
    """
    ALTER TABLE usage_events
        ADD CONSTRAINT usage_events_nonneg CHECK (prompt_tokens >= 0 AND completion_tokens >= 0)
    """,
    """
    ALTER TABLE usage_monthly
        ADD CONSTRAINT usage_monthly_sane
            CHECK (period_end > period_start AND tokens_limit > 0 AND tokens_used >= 0)
    """,
    """
    ALTER TABLE subscriptions
        ADD CONSTRAINT subscriptions_sane
            CHECK (current_period_end > current_period_start AND tokens_limit > 0)
    """,
    """
    ALTER TABLE operator_jobs
        ADD COLUMN attempt INT NOT NULL DEFAULT 0,
        ADD COLUMN max_attempts INT NOT NULL DEFAULT 5,
        ADD COLUMN run_after TIMESTAMPTZ NOT NULL DEFAULT now(),
        ADD COLUMN lease_owner TEXT,
        ADD COLUMN lease_until TIMESTAMPTZ,
        ADD COLUMN dedupe_key TEXT,
        ADD COLUMN error_code TEXT,
        ADD COLUMN progress JSONB NOT NULL DEFAULT '[]',
        ADD COLUMN requested_by TEXT,
        ADD COLUMN cancel_requested_at TIMESTAMPTZ,
        ADD COLUMN correlation_id UUID
    """,
    """
    CREATE UNIQUE INDEX operator_jobs_dedupe
        ON operator_jobs (dedupe_key)
        WHERE dedupe_key IS NOT NULL AND status = 'queued'
    """,
    """
    CREATE UNIQUE INDEX operator_jobs_one_queued
        ON operator_jobs (box_id)
        WHERE status = 'queued' AND box_id IS NOT NULL AND job_type <> 'health_check'
    """,
    """
    CREATE UNIQUE INDEX operator_jobs_one_run
        ON operator_jobs (box_id)
        WHERE status = 'running' AND box_id IS NOT NULL
    """,
    """
    CREATE INDEX operator_jobs_claim
        ON operator_jobs (run_after, created_at)
        WHERE status = 'queued'
    """,
    """
    ALTER TABLE boxes
        ADD COLUMN cluster TEXT NOT NULL DEFAULT 'default',
        ADD COLUMN user_paused_at TIMESTAMPTZ,
        ADD COLUMN image TEXT,
        ADD COLUMN limit_behaviour TEXT NOT NULL DEFAULT 'polite'
            CHECK (limit_behaviour IN ('polite','error')),
        ADD COLUMN api_access BOOLEAN NOT NULL DEFAULT false,
        ADD COLUMN applied_generation BIGINT NOT NULL DEFAULT 0,
        ADD COLUMN status_reason TEXT,
        ADD COLUMN status_changed_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        ADD COLUMN generation BIGINT NOT NULL DEFAULT 1,
        ADD COLUMN observed_generation BIGINT NOT NULL DEFAULT 0,
        ADD COLUMN agent_ok_at TIMESTAMPTZ,
        ADD COLUMN delete_after TIMESTAMPTZ
    """,
    """
    ALTER TABLE subscriptions
        ADD COLUMN stripe_status TEXT,
        ADD COLUMN cancel_at_period_end BOOLEAN NOT NULL DEFAULT false,
        ADD COLUMN past_due_since TIMESTAMPTZ,
        ADD COLUMN grace_until TIMESTAMPTZ,
        ADD COLUMN pending_tier tier,
        ADD COLUMN synced_at TIMESTAMPTZ,
        ADD COLUMN cancel_reason TEXT
    """,
    """
    CREATE TABLE billing_syncs (
        customer_id UUID PRIMARY KEY REFERENCES customers(id),
        requested_seq BIGINT NOT NULL DEFAULT 0,
        synced_seq BIGINT NOT NULL DEFAULT 0,
        lease_owner TEXT,
        lease_until TIMESTAMPTZ,
        synced_at TIMESTAMPTZ,
        error TEXT
    )
    """,
    """
    CREATE TABLE holds (
        id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
        customer_id UUID NOT NULL REFERENCES customers(id),
        kind TEXT NOT NULL,
        reason TEXT NOT NULL,
        created_by TEXT,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        released_at TIMESTAMPTZ
    )
    """,
    """
    CREATE TABLE adjustments (
        id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
        customer_id UUID NOT NULL REFERENCES customers(id),
        kind TEXT NOT NULL CHECK (kind IN ('tokens','grace')),
        amount BIGINT NOT NULL,
        until TIMESTAMPTZ,
        reason TEXT NOT NULL,
        created_by TEXT NOT NULL,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now()
    )
    """,
    """
    ALTER TABLE proxy_tokens
        ADD COLUMN token_hmac BYTEA UNIQUE,
        ADD COLUMN key_id TEXT,
        ADD COLUMN expires_at TIMESTAMPTZ,
        ADD COLUMN last_used_at TIMESTAMPTZ,
        ADD COLUMN last4 TEXT
    """,
    """
    CREATE TABLE customer_auth (
        customer_id UUID PRIMARY KEY REFERENCES customers(id),
        password_hash TEXT,
        role TEXT NOT NULL DEFAULT 'customer' CHECK (role IN ('customer','support','admin')),
        email_verified_at TIMESTAMPTZ,
        totp_secret_ct BYTEA,
        totp_key_id TEXT,
        totp_last_step BIGINT,
        totp_confirmed_at TIMESTAMPTZ,
        failed_logins INT NOT NULL DEFAULT 0,
        locked_until TIMESTAMPTZ,
        updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE identities (
        id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
        customer_id UUID NOT NULL REFERENCES customers(id),
        provider TEXT NOT NULL,
        subject TEXT NOT NULL,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        last_login_at TIMESTAMPTZ,
        UNIQUE (provider, subject)
    )
    """,
    """
    CREATE TABLE sign_in_codes (
        id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
        email TEXT NOT NULL,
        code_hash TEXT NOT NULL,
        purpose TEXT NOT NULL DEFAULT 'sign_in',
        attempts INT NOT NULL DEFAULT 0,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        expires_at TIMESTAMPTZ NOT NULL,
        used_at TIMESTAMPTZ
    )
    """,
    """
    CREATE TABLE auth_sessions (
        id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
        customer_id UUID NOT NULL REFERENCES customers(id),
        token_hash TEXT NOT NULL UNIQUE,
        ip INET,
        user_agent TEXT,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        last_seen_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        expires_at TIMESTAMPTZ NOT NULL,
        revoked_at TIMESTAMPTZ
    )
    """,
    """
    CREATE TABLE webhook_events (
        id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
        event_id VARCHAR(255) NOT NULL UNIQUE,
        event_type VARCHAR(100) NOT NULL,
        payload JSONB NOT NULL,
        processed BOOLEAN NOT NULL DEFAULT false,
        processed_at TIMESTAMPTZ,
        error_message TEXT,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        provider TEXT NOT NULL DEFAULT 'stripe',
        object_id TEXT,
        livemode BOOLEAN,
        api_version TEXT,
        outcome TEXT CHECK (outcome IN ('applied','ignored','failed')),
        attempt INT NOT NULL DEFAULT 0,
        run_after TIMESTAMPTZ NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX webhook_events_due ON webhook_events (run_after) WHERE NOT processed",
    """
    CREATE TABLE box_secrets (
        box_id UUID PRIMARY KEY REFERENCES boxes(id),
        telegram_token_ct BYTEA,
        token_fingerprint TEXT UNIQUE,
        bot_username TEXT,
        bot_id BIGINT,
        key_id TEXT,
        updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE audit_logs (
        id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
        user_id UUID REFERENCES customers(id) ON DELETE SET NULL,
        action VARCHAR(100) NOT NULL,
        resource_type VARCHAR(50),
        resource_id VARCHAR(255),
        ip_address INET,
        user_agent TEXT,
        metadata JSONB DEFAULT '{}',
        created_at TIMESTAMPTZ DEFAULT now(),
        seq BIGSERIAL UNIQUE,
        actor_type TEXT NOT NULL DEFAULT 'customer',
        actor_id TEXT,
        reason TEXT,
        diff JSONB,
        request_id TEXT,
        prev_hash BYTEA,
        hash BYTEA
    )
    """,
    """
    CREATE TABLE email_outbox (
        id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
        customer_id UUID REFERENCES customers(id),
        kind TEXT NOT NULL,
        dedupe_key TEXT UNIQUE,
        payload JSONB NOT NULL DEFAULT '{}',
        status TEXT NOT NULL DEFAULT 'pending',
        attempt INT NOT NULL DEFAULT 0,
        run_after TIMESTAMPTZ NOT NULL DEFAULT now(),
        sent_at TIMESTAMPTZ,
        error TEXT
    )
    """,
    """
    CREATE TABLE usage_daily (
        customer_id UUID NOT NULL REFERENCES customers(id),
        box_id UUID NOT NULL,
        day DATE NOT NULL,
        model TEXT NOT NULL,
        requests BIGINT NOT NULL DEFAULT 0,
        prompt_tokens BIGINT NOT NULL DEFAULT 0,
        cached_tokens BIGINT NOT NULL DEFAULT 0,
        reasoning_tokens BIGINT NOT NULL DEFAULT 0,
        completion_tokens BIGINT NOT NULL DEFAULT 0,
        PRIMARY KEY (customer_id, box_id, day, model)
    )
    """,
    """
    CREATE TABLE usage_event_meta (
        event_id BIGINT PRIMARY KEY REFERENCES usage_events(id) ON DELETE CASCADE,
        period_start TIMESTAMPTZ NOT NULL,
        provider_request_id TEXT,
        cached_tokens INT NOT NULL DEFAULT 0,
        reasoning_tokens INT NOT NULL DEFAULT 0,
        status_code INT,
        latency_ms INT,
        ttfb_ms INT,
        streamed BOOLEAN NOT NULL DEFAULT false,
        estimated BOOLEAN NOT NULL DEFAULT false,
        outcome TEXT NOT NULL DEFAULT 'complete',
        upstream TEXT
    )
    """,
    """
    CREATE TABLE box_revisions (
        box_id UUID NOT NULL REFERENCES boxes(id),
        generation BIGINT NOT NULL,
        spec JSONB NOT NULL,
        spec_hash TEXT NOT NULL,
        outcome TEXT NOT NULL CHECK (outcome IN ('pending','applied','failed','rolled_back')),
        reason TEXT,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        applied_at TIMESTAMPTZ,
        PRIMARY KEY (box_id, generation)
    )
    """,
    """
    CREATE TABLE box_backups (
        id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
        box_id UUID NOT NULL REFERENCES boxes(id),
        reason TEXT NOT NULL,
        location TEXT NOT NULL,
        bytes BIGINT,
        sha256 BYTEA,
        key_ct BYTEA,
        key_id TEXT,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        finished_at TIMESTAMPTZ,
        expires_at TIMESTAMPTZ,
        deleted_at TIMESTAMPTZ,
        error TEXT
    )
    """,
    """
    CREATE TABLE recovery_codes (
        customer_id UUID NOT NULL REFERENCES customers(id),
        code_hash TEXT NOT NULL,
        used_at TIMESTAMPTZ,
        PRIMARY KEY (customer_id, code_hash)
    )
    """,
    """
    CREATE TABLE deletion_receipts (
        id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
        customer_id UUID NOT NULL,
        receipt JSONB NOT NULL,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE notices (
        customer_id UUID NOT NULL REFERENCES customers(id),
        kind TEXT NOT NULL,
        period_start TIMESTAMPTZ NOT NULL,
        sent_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        PRIMARY KEY (customer_id, kind, period_start)
    )
    """,
    """
    CREATE TABLE platform_settings (
        key TEXT PRIMARY KEY,
        value JSONB NOT NULL,
        updated_by TEXT,
        updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE checkouts (
        id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
        customer_id UUID NOT NULL REFERENCES customers(id),
        onboarding_session_id UUID REFERENCES onboarding_sessions(id),
        tier tier NOT NULL,
        idempotency_key TEXT NOT NULL UNIQUE,
        stripe_session_id TEXT UNIQUE,
        url TEXT,
        status TEXT NOT NULL DEFAULT 'open' CHECK (status IN ('open','complete','expired')),
        expires_at TIMESTAMPTZ NOT NULL,
        paid_at TIMESTAMPTZ,
        deliver_by TIMESTAMPTZ,
        delivered_at TIMESTAMPTZ,
        refund_id TEXT,
        refunded_at TIMESTAMPTZ,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now()
    )
    """,
    "CREATE UNIQUE INDEX checkouts_one_open ON checkouts (customer_id) WHERE status = 'open'",
    """
    CREATE TABLE invoices (
        stripe_invoice_id TEXT PRIMARY KEY,
        customer_id UUID NOT NULL REFERENCES customers(id),
        subscription_id UUID REFERENCES subscriptions(id),
        number TEXT,
        status TEXT NOT NULL,
        currency TEXT NOT NULL,
        due_cents BIGINT NOT NULL,
        paid_cents BIGINT NOT NULL DEFAULT 0,
        refunded_cents BIGINT NOT NULL DEFAULT 0,
        period_start TIMESTAMPTZ,
        period_end TIMESTAMPTZ,
        finalized_at TIMESTAMPTZ,
        due_at TIMESTAMPTZ,
        paid_at TIMESTAMPTZ,
        hosted_url TEXT,
        synced_at TIMESTAMPTZ NOT NULL DEFAULT now()
    )
    """,
    "ALTER TABLE subscriptions ADD COLUMN trial_end TIMESTAMPTZ",
    "ALTER TABLE usage_monthly ADD COLUMN is_provisional BOOLEAN NOT NULL DEFAULT false",
    """
    ALTER TABLE usage_daily
        ADD CONSTRAINT daily_box_same_customer
            FOREIGN KEY (box_id, customer_id) REFERENCES boxes (id, customer_id)
    """,
    """
    ALTER TABLE proxy_tokens
        ADD COLUMN kind TEXT NOT NULL DEFAULT 'box' CHECK (kind IN ('box','api')),
        ADD COLUMN is_unthrottled BOOLEAN NOT NULL DEFAULT false
    """,
    """
    CREATE TABLE usage_rejects (
        id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
        request_id TEXT UNIQUE,
        payload JSONB NOT NULL,
        error TEXT NOT NULL,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        resolved_at TIMESTAMPTZ
    )
    """,
    """
    ALTER TABLE boxes
        ADD COLUMN first_answer_at TIMESTAMPTZ,
        ADD COLUMN health JSONB NOT NULL DEFAULT '{}'
    """,
    """
    CREATE TABLE onboarding_secrets (
        session_id UUID PRIMARY KEY REFERENCES onboarding_sessions(id),
        telegram_token_ct BYTEA NOT NULL,
        token_fingerprint TEXT NOT NULL UNIQUE,
        bot_id BIGINT NOT NULL,
        bot_username TEXT NOT NULL,
        start_nonce_hash TEXT,
        key_id TEXT NOT NULL,
        updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
    )
    """,
    """
    ALTER TABLE onboarding_sessions
        ADD COLUMN state_before TEXT,
        ADD COLUMN box_id UUID REFERENCES boxes(id),
        ADD COLUMN retries INT NOT NULL DEFAULT 0
    """,
    """
    CREATE TABLE customer_profiles (
        customer_id UUID PRIMARY KEY REFERENCES customers(id),
        locale TEXT NOT NULL DEFAULT 'en',
        time_zone TEXT NOT NULL DEFAULT 'UTC',
        mail_opt_out TEXT[] NOT NULL DEFAULT '{}',
        terms_version TEXT,
        terms_accepted_at TIMESTAMPTZ,
        updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
    )
    """,
    "ALTER TABLE auth_sessions ADD COLUMN rechecked_at TIMESTAMPTZ",
    """
    ALTER TABLE sign_in_codes
        ADD COLUMN customer_id UUID REFERENCES customers(id),
        ADD COLUMN new_email TEXT
    """,
    """
    ALTER TABLE email_outbox
        ADD COLUMN recipient TEXT,
        ADD COLUMN locale TEXT NOT NULL DEFAULT 'en',
        ADD COLUMN secret_ct BYTEA,
        ADD COLUMN key_id TEXT,
        ADD COLUMN lease_owner TEXT,
        ADD COLUMN lease_until TIMESTAMPTZ,
        ADD COLUMN created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        ADD CONSTRAINT email_outbox_status CHECK (status IN ('pending','sent','failed'))
    """,
    "CREATE INDEX email_outbox_due ON email_outbox (run_after) WHERE status = 'pending'",
    """
    CREATE TABLE exports (
        id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
        customer_id UUID NOT NULL REFERENCES customers(id),
        status TEXT NOT NULL DEFAULT 'queued'
            CHECK (status IN ('queued','running','ready','failed','expired')),
        location TEXT,
        error TEXT,
        expires_at TIMESTAMPTZ,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now()
    )
    """,
    """
    ALTER TABLE webhook_events
        ADD COLUMN lease_owner TEXT,
        ADD COLUMN lease_until TIMESTAMPTZ
    """,
    "CREATE INDEX idx_webhook_events_event_type ON webhook_events (event_type)",
    "CREATE INDEX idx_webhook_events_processed ON webhook_events (processed)",
    "CREATE INDEX idx_webhook_events_created_at ON webhook_events (created_at)",
    "CREATE INDEX idx_audit_logs_user ON audit_logs (user_id)",
    "CREATE INDEX idx_audit_logs_action ON audit_logs (action)",
    "CREATE INDEX idx_audit_logs_created ON audit_logs (created_at)",
    """
    CREATE TABLE alerts (
        id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
        code TEXT NOT NULL,
        subject TEXT NOT NULL,
        detail JSONB NOT NULL DEFAULT '{}',
        first_seen_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        last_seen_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        resolved_at TIMESTAMPTZ
    )
    """,
    "CREATE UNIQUE INDEX alerts_one_open ON alerts (code, subject) WHERE resolved_at IS NULL",
)

DOWNGRADE = (
    "DROP TABLE alerts",
    "DROP TABLE exports",
    "DROP TABLE customer_profiles",
    "ALTER TABLE onboarding_sessions DROP COLUMN retries",
    "ALTER TABLE onboarding_sessions DROP COLUMN box_id",
    "ALTER TABLE onboarding_sessions DROP COLUMN state_before",
    "DROP TABLE onboarding_secrets",
    "ALTER TABLE boxes DROP COLUMN health",
    "ALTER TABLE boxes DROP COLUMN first_answer_at",
    "DROP TABLE usage_rejects",
    "ALTER TABLE proxy_tokens DROP COLUMN is_unthrottled",
    "ALTER TABLE proxy_tokens DROP COLUMN kind",
    "ALTER TABLE usage_monthly DROP COLUMN is_provisional",
    "ALTER TABLE subscriptions DROP COLUMN trial_end",
    "DROP TABLE invoices",
    "DROP TABLE checkouts",
    "DROP TABLE platform_settings",
    "DROP TABLE notices",
    "DROP TABLE deletion_receipts",
    "DROP TABLE recovery_codes",
    "DROP TABLE box_backups",
    "DROP TABLE box_revisions",
    "DROP TABLE usage_event_meta",
    "DROP TABLE usage_daily",
    "DROP TABLE email_outbox",
    "DROP TABLE audit_logs",
    "DROP TABLE box_secrets",
    "DROP TABLE webhook_events",
    "DROP TABLE auth_sessions",
    "DROP TABLE sign_in_codes",
    "DROP TABLE identities",
    "DROP TABLE customer_auth",
    "ALTER TABLE proxy_tokens DROP COLUMN last4",
    "ALTER TABLE proxy_tokens DROP COLUMN last_used_at",
    "ALTER TABLE proxy_tokens DROP COLUMN expires_at",
    "ALTER TABLE proxy_tokens DROP COLUMN key_id",
    "ALTER TABLE proxy_tokens DROP COLUMN token_hmac",
    "DROP TABLE adjustments",
    "DROP TABLE holds",
    "DROP TABLE billing_syncs",
    "ALTER TABLE subscriptions DROP COLUMN cancel_reason",
    "ALTER TABLE subscriptions DROP COLUMN synced_at",
    "ALTER TABLE subscriptions DROP COLUMN pending_tier",
    "ALTER TABLE subscriptions DROP COLUMN grace_until",
    "ALTER TABLE subscriptions DROP COLUMN past_due_since",
    "ALTER TABLE subscriptions DROP COLUMN cancel_at_period_end",
    "ALTER TABLE subscriptions DROP COLUMN stripe_status",
    "ALTER TABLE boxes DROP COLUMN delete_after",
    "ALTER TABLE boxes DROP COLUMN agent_ok_at",
    "ALTER TABLE boxes DROP COLUMN observed_generation",
    "ALTER TABLE boxes DROP COLUMN generation",
    "ALTER TABLE boxes DROP COLUMN status_changed_at",
    "ALTER TABLE boxes DROP COLUMN status_reason",
    "ALTER TABLE boxes DROP COLUMN applied_generation",
    "ALTER TABLE boxes DROP COLUMN api_access",
    "ALTER TABLE boxes DROP COLUMN limit_behaviour",
    "ALTER TABLE boxes DROP COLUMN image",
    "ALTER TABLE boxes DROP COLUMN user_paused_at",
    "ALTER TABLE boxes DROP COLUMN cluster",
    "DROP INDEX operator_jobs_claim",
    "DROP INDEX operator_jobs_one_run",
    "DROP INDEX operator_jobs_one_queued",
    "DROP INDEX operator_jobs_dedupe",
    "ALTER TABLE operator_jobs DROP COLUMN correlation_id",
    "ALTER TABLE operator_jobs DROP COLUMN cancel_requested_at",
    "ALTER TABLE operator_jobs DROP COLUMN requested_by",
    "ALTER TABLE operator_jobs DROP COLUMN progress",
    "ALTER TABLE operator_jobs DROP COLUMN error_code",
    "ALTER TABLE operator_jobs DROP COLUMN dedupe_key",
    "ALTER TABLE operator_jobs DROP COLUMN lease_until",
    "ALTER TABLE operator_jobs DROP COLUMN lease_owner",
    "ALTER TABLE operator_jobs DROP COLUMN run_after",
    "ALTER TABLE operator_jobs DROP COLUMN max_attempts",
    "ALTER TABLE operator_jobs DROP COLUMN attempt",
    "ALTER TABLE subscriptions DROP CONSTRAINT subscriptions_sane",
    "ALTER TABLE usage_monthly DROP CONSTRAINT usage_monthly_sane",
    "ALTER TABLE usage_events DROP CONSTRAINT usage_events_nonneg",
    "DROP INDEX usage_events_dedup",
    "ALTER TABLE usage_events DROP CONSTRAINT events_box_same_customer",
    "ALTER TABLE proxy_tokens DROP CONSTRAINT tokens_box_same_customer",
    "ALTER TABLE boxes DROP CONSTRAINT boxes_sub_same_customer",
    "DROP INDEX boxes_id_cust",
    "DROP INDEX boxes_one_live",
    "DROP INDEX subscriptions_id_cust",
    "DROP INDEX subscriptions_one_live",
    "DROP INDEX customers_email_ci",
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWNGRADE:
        op.execute(statement)
