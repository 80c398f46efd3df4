"""Runs the migrations.

One short lock at a time, against the database of the settings or of `-x url=…`.
"""

import sqlalchemy as sa

from alembic import context
from openclaw_web.core.database import driver_url
from openclaw_web.core.settings import settings
from openclaw_web.tables import METADATA

LOCK_TIMEOUT = "5s"
STATEMENT_TIMEOUT = "60s"
MIGRATION_LOCK = 7_236_001  # any number of our own: two migrations never run at once


def run() -> None:
    url = context.get_x_argument(as_dictionary=True).get("url") or settings().database_url
    engine = sa.create_engine(driver_url(url), poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
        connection.execute(sa.text(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'"))
        connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=METADATA,
            compare_type=True,
            compare_server_default=True,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()


run()
