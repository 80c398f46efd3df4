"""Comparing a customer with Stripe by hand, and applying a stored event once more."""

from dataclasses import replace

import pytest

from openclaw_web.billing import leases
from openclaw_web.billing import service as billing
from openclaw_web.billing.models import Subscription
from openclaw_web.core.database import close_database, open_database
from openclaw_web.core.errors import NotFoundError
from openclaw_web.core.settings import settings
from openclaw_web.integrations import payment_client
from openclaw_web.integrations.redis import close_redis, open_redis
from openclaw_web.local import syncing
from openclaw_web.local.syncing import SyncFailedError
from tests.billing.buying import come_to_pay, deliver, only, stripe_id_of
from tests.billing.stripe_world import KEY, stripe_world
from tests.factories import make_customer


@pytest.fixture(scope="module")
def stripe_process(tmp_path_factory):
    with stripe_world(tmp_path_factory.mktemp("stripe")) as world:
        yield world


@pytest.fixture
async def stripe(stripe_process, database, redis, monkeypatch):
    assert database
    assert redis
    payment_client.open_payments(KEY, stripe_process.url)
    await billing.publish_catalogue()
    monkeypatch.setattr(payment_client, "settings", lambda: payments_of(stripe_process.url))
    yield stripe_process
    await payment_client.close_payments()


def payments_of(url):
    return replace(settings(), stripe_secret_key=KEY, stripe_api_url=url)


@pytest.fixture
async def chosen(database, valkey_server):
    """Settings for a command, which opens and closes everything itself."""
    return replace(settings(), database_url=database, redis_url=valkey_server.url)


async def by_hand(chosen, act):
    """Run a command as a shell does, and open the test's own connections again."""
    await close_database()
    await close_redis()
    try:
        return await act
    finally:
        open_database(chosen.database_url)
        open_redis(chosen.redis_url)


async def test_a_sync_by_hand_says_what_changed_and_then_that_nothing_did(stripe, chosen):
    visitor = await come_to_pay()
    stripe.pay(visitor.page)
    changes = await by_hand(chosen, syncing.sync(chosen, visitor.customer.email))
    assert "subscription.status: nothing -> active" in changes
    assert "box.status: nothing -> pending" in changes
    assert any("4900 cents paid, 0 back" in line for line in changes)
    again = await by_hand(chosen, syncing.sync(chosen, visitor.customer.email))
    assert again == []


async def test_nobody_is_synced_who_is_not_known(stripe, chosen):
    assert stripe
    with pytest.raises(NotFoundError, match="Nobody is known as"):
        await by_hand(chosen, syncing.sync(chosen, "nobody@example.com"))


async def test_a_sync_by_hand_says_why_it_failed_and_does_not_wait_for_the_rest(
    stripe, chosen, monkeypatch
):
    visitor = await come_to_pay()
    stripe.pay(visitor.page)
    monkeypatch.setattr(payment_client, "settings", lambda: payments_of("http://127.0.0.1:9"))
    monkeypatch.setattr(payment_client, "NETWORK_RETRIES", 0)
    await payment_client.close_payments()
    with pytest.raises(SyncFailedError, match="Stripe cannot be reached"):
        await by_hand(chosen, syncing.sync(chosen, visitor.customer.email))
    monkeypatch.setattr(payment_client, "settings", lambda: payments_of(stripe.url))
    changes = await by_hand(chosen, syncing.sync(chosen, visitor.customer.email))
    assert "subscription.status: nothing -> active" in changes


async def test_an_event_is_applied_once_more(stripe, chosen):
    visitor = await come_to_pay()
    stripe.pay(visitor.page)
    events = stripe.events_of(await stripe_id_of(visitor))
    paid = next(event for event in events if event["type"] == "invoice.paid")
    await deliver([paid])
    stripe.api("DELETE", f"/subscriptions/{(await only(Subscription)).stripe_subscription_id}")
    found = await by_hand(chosen, syncing.replay(chosen, paid["id"]))
    assert (found.event_type, found.outcome, found.is_applied) == ("invoice.paid", "applied", True)
    assert "subscription.status: active -> cancelled" in found.changes


async def test_an_event_that_never_came_cannot_be_applied(stripe, chosen):
    assert stripe
    with pytest.raises(NotFoundError, match="No event evt_none is stored here"):
        await by_hand(chosen, syncing.replay(chosen, "evt_none"))


async def test_the_rest_after_an_error_is_not_ended_under_a_worker_at_work(session, redis):
    assert redis
    customer = await make_customer(session)
    await billing.request_sync(session, customer.id)
    assert await leases.take(session, customer.id, owner="a worker")
    await leases.end_rest(session, customer.id)
    assert await leases.take(session, customer.id, owner="another") is None
