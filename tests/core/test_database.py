"""One unit of work: what happens after its commit, and what its errors may say."""

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.psycopg import PGDialectAsync_psycopg
from sqlalchemy.exc import IntegrityError

from openclaw_web.accounts.models import Customer
from openclaw_web.core import database as core
from openclaw_web.core.database import after_commit, session_scope

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def greetings(monkeypatch):
    """Return the connections that were greeted."""
    greeted = []
    ping = PGDialectAsync_psycopg.do_ping

    def ping_and_tell(self, connection):
        greeted.append(connection)
        return ping(self, connection)

    monkeypatch.setattr(PGDialectAsync_psycopg, "do_ping", ping_and_tell)
    return greeted


async def test_what_waits_for_the_commit_runs_after_it():
    seen = []

    async def look() -> None:
        async with session_scope() as other:
            seen.append(await other.get(Customer, customer.id))

    async with session_scope() as session:
        customer = Customer(email="a@box.test")
        session.add(customer)
        after_commit(session, look)
    assert [one.email for one in seen] == ["a@box.test"]


async def test_what_waits_for_the_commit_never_runs_after_a_failure():
    rung = []

    async def ring() -> None:
        rung.append(True)

    async def fail() -> None:
        async with session_scope() as session:
            after_commit(session, ring)
            int("no number")

    with pytest.raises(ValueError, match="no number"):
        await fail()
    assert rung == []


async def test_an_error_of_the_database_hides_the_values_of_its_statement():
    async with session_scope() as session:
        session.add(Customer(email="not an address of Jane Doe", stripe_customer_id="cus_jane"))
        with pytest.raises(IntegrityError) as caught:
            await session.flush()
        await session.rollback()
    assert "cus_jane" not in str(caught.value).partition("DETAIL")[0]
    assert "parameters hidden" in str(caught.value)


async def test_a_transaction_that_stands_still_locks_nobody_out_for_long(session):
    found = await session.scalar(sa.text("SHOW idle_in_transaction_session_timeout"))
    assert found == "1min"


async def test_a_connection_that_was_used_a_moment_ago_is_not_greeted(greetings, monkeypatch):
    monkeypatch.setattr(core, "RESTED_SECONDS", 3_600.0)
    for _ in range(3):
        async with session_scope() as session:
            await session.scalar(sa.select(1))
    assert greetings == []


async def test_a_connection_that_has_rested_is_greeted(greetings, monkeypatch):
    async with session_scope() as session:
        await session.scalar(sa.select(1))
    monkeypatch.setattr(core, "RESTED_SECONDS", 0.0)
    async with session_scope() as session:
        await session.scalar(sa.select(1))
    assert len(greetings) == 1


async def test_a_database_that_restarts_fails_no_unit_of_work_after_it(database):
    async with session_scope() as session:
        await session.scalar(sa.select(1))
    await core.at_once(sa.select(1), {})
    with psycopg.connect(database, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    async with session_scope() as session:
        assert await session.scalar(sa.select(1)) == 1
    assert await core.at_once(sa.select(sa.literal(2)), {}) == (2,)


async def test_a_statement_by_itself_is_committed_at_once():
    customer = Customer(email="a@box.test")
    values = {"id": customer.id, "email": customer.email}
    await core.at_once(sa.insert(Customer).returning(sa.literal(1)), values)
    async with session_scope() as session:
        assert await session.get(Customer, customer.id) is not None
