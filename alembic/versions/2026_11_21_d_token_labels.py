"""The name that a customer gives to a key of their own.

Revision ID: 2026_11_21_d_token_labels
Revises: 2026_11_21_c_meter_checks
"""

from alembic import op

revision = "2026_11_21_d_token_labels"
down_revision = "2026_11_21_c_meter_checks"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE proxy_tokens ADD COLUMN label TEXT")


def downgrade() -> None:
    op.execute("ALTER TABLE proxy_tokens DROP COLUMN label")
