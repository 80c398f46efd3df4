"""One Stripe for all stories about money taken back; nobody moves its clock."""

import pytest

from tests.billing.stripe_world import stripe_world
from tests.workflows.money_world import adapter_of


@pytest.fixture(scope="session")
def stripe_process(tmp_path_factory):
    with stripe_world(tmp_path_factory.mktemp("stripe")) as world:
        yield world


@pytest.fixture
async def stripe(stripe_process, database, redis):
    """Open our adapter towards a Stripe that knows the catalogue."""
    assert database
    assert redis
    async with adapter_of(stripe_process) as world:
        yield world
