"""One cluster of records for all of chaos: its boxes have namespaces of their own anyway."""

import gc

import pytest
import uvloop

from openclaw_web.core import collecting
from tests.chaos.boundaries import watch_boundaries
from tests.chaos.keepers import keepers_of
from tests.chaos.matrix import matrix_of
from tests.chaos.records import cluster_of_records
from tests.flows.box_world import box_world


def pytest_asyncio_loop_factories():
    """Run on the worker's own event loop, which takes a fifth off thousands of cells."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def _collected_like_a_worker():
    usual = gc.get_threshold()
    collecting.leave_start_alone()
    yield
    gc.set_threshold(*usual)
    gc.unfreeze()


@pytest.fixture(scope="session")
def cluster_and_config(tmp_path_factory):
    with cluster_of_records(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
async def matrix(cluster_and_config, tmp_path, monkeypatch, database, redis):
    assert database
    assert redis
    simulator, kubeconfig = cluster_and_config
    simulator.http.delete("/_control/faults").raise_for_status()
    watch_boundaries(monkeypatch)
    async with (
        box_world(kubeconfig, tmp_path, monkeypatch) as world,
        keepers_of(world.cluster, simulator, tmp_path, monkeypatch) as keepers,
        matrix_of(world, simulator, tmp_path, keepers.memory) as made,
    ):
        yield made
