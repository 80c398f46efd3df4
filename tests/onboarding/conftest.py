"""What the onboarding tests share: a Telegram, a Stripe, and somebody who begins to chat."""

from dataclasses import replace

import pytest

from openclaw_web.billing import service as billing
from openclaw_web.core.settings import settings
from openclaw_web.integrations import payment_client
from openclaw_web.integrations import telegram as adapter
from tests.billing.stripe_world import KEY, stripe_world
from tests.contracts.simulator_process import running
from tests.onboarding.visiting import Telegram, Visitor


@pytest.fixture(scope="session")
def telegram_process(tmp_path_factory):
    with running("telegram", tmp_path_factory.mktemp("telegram")) as simulator:
        yield simulator


@pytest.fixture
def telegram(telegram_process, monkeypatch):
    """Let our adapter talk to the simulator, and be on its other side."""
    chosen = replace(
        settings(), telegram_api_url=telegram_process.url, telegram_link_url="https://t.me"
    )
    monkeypatch.setattr(adapter, "settings", lambda: chosen)
    yield Telegram(telegram_process.http)
    telegram_process.http.delete("/_control/faults")


@pytest.fixture(scope="session")
def stripe_process(tmp_path_factory):
    with stripe_world(tmp_path_factory.mktemp("stripe")) as world:
        yield world


@pytest.fixture
async def stripe(stripe_process, database, redis):
    """Open our adapter towards a Stripe that knows the catalogue."""
    assert database
    assert redis
    payment_client.open_payments(KEY, stripe_process.url)
    await billing.publish_catalogue()
    yield stripe_process
    await payment_client.close_payments()


@pytest.fixture
def visitor(database, redis) -> Visitor:
    assert database
    assert redis
    return Visitor()
