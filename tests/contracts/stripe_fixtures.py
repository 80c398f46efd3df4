"""Fixtures of the Stripe contract tests: one simulator for each test process, shared by all."""

import pytest

from tests.contracts.stripe_running import Receiver, client_for, running


@pytest.fixture(scope="session")
def stripe_simulator(tmp_path_factory):
    with running(tmp_path_factory.mktemp("stripe")) as started:
        yield started


@pytest.fixture(scope="session")
def stripe_account(stripe_simulator):
    """A client of the account that the contract is asked of: Stripe's where a key is given."""
    with client_for(stripe_simulator) as client:
        yield client


@pytest.fixture
def fresh_stripe(tmp_path):
    """A simulator of this test alone, to be stopped or asked about everything in it."""
    with running(tmp_path / "stripe") as started:
        yield started


@pytest.fixture
def stripe_receiver():
    listening = Receiver()
    yield listening
    listening.close()
