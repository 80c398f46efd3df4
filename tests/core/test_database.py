"""One unit of work: what happens after its commit, and what its errors may say."""

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from openclaw_web.accounts.models import Customer
from openclaw_web.core.database import after_commit, session_scope

pytestmark = pytest.mark.usefixtures("database")


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
