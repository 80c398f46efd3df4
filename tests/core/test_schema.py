"""The database is what the documentation says, and can only have more."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from openclaw_web.core import migrations
from tests.core.schema_catalogue import deviations, read_catalogue

DOCUMENTED = json.loads((Path(__file__).parent / "documented_schema.json").read_text("utf-8"))
CUSTOMER = "11111111-1111-1111-1111-111111111111"

CURRENT_USAGE = """
SELECT
    um.tokens_used,
    um.tokens_limit,
    ROUND(um.tokens_used::NUMERIC / um.tokens_limit * 100, 1) AS pct_used,
    um.period_start,
    um.period_end
FROM usage_monthly um
WHERE um.customer_id = $1
  AND um.period_start <= now()
  AND um.period_end > now()
ORDER BY um.period_start DESC
LIMIT 1;
"""
LIMIT_CHECK = """
SELECT um.tokens_used, um.tokens_limit, s.tier
FROM usage_monthly um
JOIN subscriptions s ON s.customer_id = um.customer_id
WHERE um.customer_id = $1
  AND um.period_start <= now()
  AND um.period_end > now()
  AND s.status = 'active';
"""
NEEDING_HEALTH_CHECK = """
SELECT id, k8s_namespace, customer_id
FROM boxes
WHERE status = 'active'
  AND (last_seen IS NULL OR last_seen < now() - interval '5 minutes');
"""
RESET_USAGE = """
INSERT INTO usage_monthly (customer_id, period_start, period_end, tokens_limit)
VALUES ($1, $2, $3, $4)
ON CONFLICT (customer_id, period_start)
DO UPDATE SET tokens_used = 0, reset_at = now(), tokens_limit = EXCLUDED.tokens_limit;
"""
A_CUSTOMER_WITH_A_BOX = (
    "INSERT INTO customers (id, email) VALUES ($1, 'a@example.com')",
    """
    INSERT INTO subscriptions
        (id, customer_id, tier, status, tokens_limit, current_period_start, current_period_end)
    VALUES ($1, $1, 'pro', 'active', 1000, now() - interval '1 day', now() + interval '29 days')
    """,
    """
    INSERT INTO usage_monthly (customer_id, period_start, period_end, tokens_used, tokens_limit)
    VALUES ($1, now() - interval '1 day', now() + interval '29 days', 125, 1000)
    """,
    """
    INSERT INTO boxes (customer_id, subscription_id, k8s_namespace, status)
    VALUES ($1, $1, 'customer-' || $1::uuid, 'active')
    """,
)
A_SECOND_BOX = """
INSERT INTO boxes (customer_id, subscription_id, k8s_namespace)
SELECT customer_id, id, 'second' FROM subscriptions
"""
NEGATIVE_TOKENS = """
INSERT INTO usage_events (customer_id, box_id, model, prompt_tokens, completion_tokens)
SELECT customer_id, id, 'm', -1, 0 FROM boxes
"""


@pytest.fixture
def connection(database: str):
    with psycopg.connect(database, cursor_factory=psycopg.RawCursor, autocommit=True) as opened:
        yield opened


@pytest.fixture
def customer_with_a_box(connection: psycopg.Connection[Any]) -> None:
    for statement in A_CUSTOMER_WITH_A_BOX:
        connection.execute(statement, [CUSTOMER])


def test_every_documented_table_column_constraint_index_and_label_is_there(connection):
    assert deviations(DOCUMENTED, read_catalogue(connection)) == []


@pytest.mark.parametrize(
    "sabotage",
    [
        "ALTER TABLE customers ALTER COLUMN email TYPE varchar(300)",
        "ALTER TABLE boxes ALTER COLUMN language SET DEFAULT 'de'",
        "ALTER TABLE boxes ALTER COLUMN last_seen SET NOT NULL",
        "DROP INDEX usage_events_customer_id_timestamp_idx",
        "ALTER TABLE customers DROP CONSTRAINT email_format",
        "ALTER TYPE job_type ADD VALUE 'dance'",
        "ALTER TABLE operator_jobs DROP COLUMN error_log",
    ],
)
def test_the_conformance_check_notices(connection, sabotage):
    connection.execute(sabotage)
    assert deviations(DOCUMENTED, read_catalogue(connection))


@pytest.mark.usefixtures("customer_with_a_box")
def test_the_documented_dashboard_query_answers(connection):
    row = connection.execute(CURRENT_USAGE, [CUSTOMER]).fetchone()
    assert row[:3] == (125, 1000, pytest.approx(12.5))


@pytest.mark.usefixtures("customer_with_a_box")
def test_the_documented_limit_check_answers(connection):
    assert connection.execute(LIMIT_CHECK, [CUSTOMER]).fetchall() == [(125, 1000, "pro")]


@pytest.mark.usefixtures("customer_with_a_box")
def test_the_documented_health_query_finds_a_box_that_nobody_saw(connection):
    assert [row[1] for row in connection.execute(NEEDING_HEALTH_CHECK)] == [f"customer-{CUSTOMER}"]


@pytest.mark.usefixtures("customer_with_a_box")
def test_the_documented_reset_sets_usage_to_zero(connection):
    start, end = connection.execute("SELECT period_start, period_end FROM usage_monthly").fetchone()
    connection.execute(RESET_USAGE, [CUSTOMER, start, end, 2000])
    row = connection.execute("SELECT tokens_used, tokens_limit FROM usage_monthly").fetchone()
    assert row == (0, 2000)


def test_migrations_and_tables_agree(database):
    assert migrations.drift(database) is None


def test_the_drift_check_notices(database, connection):
    connection.execute("ALTER TABLE boxes DROP COLUMN health")
    assert "health" in (migrations.drift(database) or "")


def test_all_migrations_can_be_taken_back_and_applied_again(database, connection):
    migrations.revert(database)
    assert read_catalogue(connection)["tables"].keys() <= {"alembic_version"}
    assert read_catalogue(connection)["enums"] == {}
    migrations.migrate(database)
    assert deviations(DOCUMENTED, read_catalogue(connection)) == []


@pytest.mark.parametrize(
    ("rows", "refused_by"),
    [
        ("INSERT INTO customers (email) VALUES ('no address')", "email_format"),
        ("INSERT INTO customers (email) VALUES ('A@example.com')", "customers_email_ci"),
        (A_SECOND_BOX, "boxes_one_live"),
        (NEGATIVE_TOKENS, "usage_events_nonneg"),
    ],
    ids=[
        "an e-mail without @",
        "the same e-mail in capitals",
        "a second live box",
        "negative tokens",
    ],
)
@pytest.mark.usefixtures("customer_with_a_box")
def test_the_database_refuses(connection, rows, refused_by):
    with pytest.raises(psycopg.IntegrityError, match=refused_by):
        connection.execute(rows)
