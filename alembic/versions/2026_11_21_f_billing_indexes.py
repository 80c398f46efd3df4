"""Indexes for what every sync and every page asks of one customer's bills.

Revision ID: 2026_11_21_f_billing_indexes
Revises: 2026_11_21_e_reversals
"""

from alembic import op

revision = "2026_11_21_f_billing_indexes"
down_revision = "2026_11_21_e_reversals"
branch_labels = None
depends_on = None

INDEXES = {
    "invoices_customer_id_idx": "invoices (customer_id)",
    "invoices_subscription_id_idx": "invoices (subscription_id)",
    "checkouts_customer_id_idx": "checkouts (customer_id)",
    "checkouts_undelivered_idx": (
        "checkouts (paid_at) WHERE delivered_at IS NULL AND refunded_at IS NULL"
    ),
    "holds_customer_id_idx": "holds (customer_id)",
    "adjustments_customer_id_idx": "adjustments (customer_id)",
}


def upgrade() -> None:
    for name, columns in INDEXES.items():
        op.execute(f"CREATE INDEX {name} ON {columns}")


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
