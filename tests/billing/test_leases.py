"""One sync at a time for each customer, and none that is forgotten."""

import pytest

from openclaw_web.billing import leases, queries
from openclaw_web.billing import service as billing
from openclaw_web.core.clock import business_now
from tests.factories import make_customer

ONE, TWO = "worker one", "worker two"


@pytest.fixture
async def customer(session, redis):
    assert redis
    return await make_customer(session)


async def test_only_one_worker_gets_the_lease(session, customer):
    await billing.request_sync(session, customer.id)
    assert await leases.take(session, customer.id, owner=ONE) == 1
    assert await leases.take(session, customer.id, owner=TWO) is None
    assert await queries.any_customers_due_for_sync(session, limit=5) == []


async def test_without_a_request_there_is_nothing_to_take(session, customer):
    assert await leases.take(session, customer.id, owner=ONE) is None


async def test_a_request_made_meanwhile_is_served_too(session, customer):
    await billing.request_sync(session, customer.id)
    served = await leases.take(session, customer.id, owner=ONE) or 0
    await billing.request_sync(session, customer.id)
    now = await business_now(session)
    assert not await leases.finish(session, customer.id, owner=ONE, served=served, now=now)
    again = await leases.take(session, customer.id, owner=ONE) or 0
    assert await leases.finish(session, customer.id, owner=ONE, served=again, now=now)
    assert await leases.take(session, customer.id, owner=TWO) is None


async def test_a_worker_that_lost_its_lease_writes_nothing(session, customer, monkeypatch):
    monkeypatch.setattr(leases, "LEASE", -leases.LEASE)
    await billing.request_sync(session, customer.id)
    served = await leases.take(session, customer.id, owner=ONE) or 0
    await leases.take(session, customer.id, owner=TWO)
    now = await business_now(session)
    with pytest.raises(leases.LeaseLostError):
        await leases.finish(session, customer.id, owner=ONE, served=served, now=now)


async def test_an_error_keeps_the_request_and_lets_it_rest(session, customer):
    await billing.request_sync(session, customer.id)
    await leases.take(session, customer.id, owner=ONE)
    await leases.fail(session, customer.id, owner=ONE, error="key sk_test_abc", can_retry=True)
    row = await queries.find_sync(session, customer.id)
    assert row is not None
    assert (row.requested_seq, row.synced_seq, row.error) == (1, 0, "key [redacted]")
    assert await leases.take(session, customer.id, owner=TWO) is None


async def test_a_request_comes_back_after_its_rest(session, customer, monkeypatch):
    monkeypatch.setattr(leases, "REST_AFTER_ERROR", -leases.REST_AFTER_ERROR)
    await billing.request_sync(session, customer.id)
    await leases.take(session, customer.id, owner=ONE)
    await leases.fail(session, customer.id, owner=ONE, error="Stripe is away.", can_retry=True)
    assert list(await queries.any_customers_due_for_sync(session, limit=5)) == [customer.id]
    assert await leases.take(session, customer.id, owner=TWO) == 1
