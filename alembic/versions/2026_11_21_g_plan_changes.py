"""Until when one tab of a customer changes their plan; another one is told to wait.

Revision ID: 2026_11_21_g_plan_changes
Revises: 2026_11_21_f_billing_indexes
"""

from alembic import op

revision = "2026_11_21_g_plan_changes"
down_revision = "2026_11_21_f_billing_indexes"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE subscriptions ADD COLUMN changing_until TIMESTAMPTZ")


def downgrade() -> None:
    op.execute("ALTER TABLE subscriptions DROP COLUMN changing_until")
