"""What the meter's own check remembers, late events, and what became of refused ones.

Revision ID: 2026_11_21_c_meter_checks
Revises: 2026_11_21_b
"""

from alembic import op

revision = "2026_11_21_c_meter_checks"
down_revision = "2026_11_21_b"
branch_labels = None
depends_on = None

UPGRADE = (
    "ALTER TABLE usage_event_meta ADD COLUMN late BOOLEAN NOT NULL DEFAULT false",
    """
    ALTER TABLE usage_rejects
        ADD COLUMN attempt INT NOT NULL DEFAULT 0,
        ADD COLUMN tried_at TIMESTAMPTZ,
        ADD COLUMN resolution TEXT CHECK (resolution IN ('written','set_aside')),
        ADD COLUMN resolved_by TEXT,
        ADD COLUMN note TEXT
    """,
    "CREATE INDEX usage_rejects_open ON usage_rejects (created_at) WHERE resolved_at IS NULL",
    """
    CREATE TABLE usage_checks (
        customer_id UUID NOT NULL REFERENCES customers(id),
        period_start TIMESTAMPTZ NOT NULL,
        checked_at TIMESTAMPTZ NOT NULL,
        full_at TIMESTAMPTZ NOT NULL,
        agrees BOOLEAN NOT NULL,
        month_tokens BIGINT NOT NULL,
        settled_before DATE NOT NULL,
        settled_tokens BIGINT NOT NULL,
        settled_day_tokens BIGINT NOT NULL,
        repairs INT NOT NULL DEFAULT 0,
        repaired_at TIMESTAMPTZ,
        PRIMARY KEY (customer_id, period_start)
    )
    """,
)
DOWNGRADE = (
    "DROP TABLE usage_checks",
    "DROP INDEX usage_rejects_open",
    """
    ALTER TABLE usage_rejects
        DROP COLUMN attempt,
        DROP COLUMN tried_at,
        DROP COLUMN resolution,
        DROP COLUMN resolved_by,
        DROP COLUMN note
    """,
    "ALTER TABLE usage_event_meta DROP COLUMN late",
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWNGRADE:
        op.execute(statement)
