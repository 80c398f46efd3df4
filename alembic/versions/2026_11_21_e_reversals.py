"""Payments that we give back or end, step by step, and one open hold of a kind for each customer.

Revision ID: 2026_11_21_e_reversals
Revises: 2026_11_21_d_token_labels
"""

from alembic import op

revision = "2026_11_21_e_reversals"
down_revision = "2026_11_21_d_token_labels"
branch_labels = None
depends_on = None

UPGRADE = (
    """
    CREATE TABLE reversals (
        id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
        customer_id UUID NOT NULL REFERENCES customers(id),
        checkout_id UUID REFERENCES checkouts(id),
        stripe_subscription_id TEXT NOT NULL,
        why TEXT NOT NULL CHECK (why IN
            ('undelivered', 'duplicate', 'fraud_warning', 'dispute_lost', 'admin')),
        cancels BOOLEAN NOT NULL,
        refunds BOOLEAN NOT NULL,
        payment_intent_id TEXT,
        requested_by TEXT NOT NULL,
        created_at TIMESTAMPTZ NOT NULL,
        cancelled_at TIMESTAMPTZ,
        refund_id TEXT,
        refunded_cents BIGINT NOT NULL DEFAULT 0 CHECK (refunded_cents >= 0),
        currency TEXT,
        finished_at TIMESTAMPTZ,
        attempt INT NOT NULL DEFAULT 0,
        run_after TIMESTAMPTZ NOT NULL,
        error TEXT
    )
    """,
    "CREATE INDEX reversals_customer_id_idx ON reversals (customer_id)",
    """
    CREATE UNIQUE INDEX reversals_one_open ON reversals (stripe_subscription_id)
    WHERE finished_at IS NULL
    """,
    # Of two open holds of a kind the newer one says nothing more; released, the older one counts.
    """
    UPDATE holds SET released_at = now() FROM holds older
    WHERE holds.released_at IS NULL AND older.released_at IS NULL
      AND older.customer_id = holds.customer_id AND older.kind = holds.kind
      AND (older.created_at, older.id) < (holds.created_at, holds.id)
    """,
    """
    CREATE UNIQUE INDEX holds_one_open ON holds (customer_id, kind) WHERE released_at IS NULL
    """,
)
DOWNGRADE = ("DROP INDEX holds_one_open", "DROP TABLE reversals")


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWNGRADE:
        op.execute(statement)
