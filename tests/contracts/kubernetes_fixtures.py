"""A cluster for the contract tests: the simulator, or the real one that TEST_KUBECONFIG names."""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes.client.rest import ApiException

from tests.contracts.kubernetes_clusters import REAL, Cluster, Control, connect, simulated
from tests.contracts.simulator_process import eventually


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Return the cluster that object tests run against: the real one where it is given."""
    if REAL:
        yield connect(Path(REAL))
        return
    with simulated(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture
def simulator(cluster: Cluster) -> Cluster:
    if cluster.simulator is None:
        pytest.skip("says what only the simulator promises; unset TEST_KUBECONFIG")
    return cluster


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    name = f"test-{secrets.token_hex(4)}"
    cluster.core.create_namespace({"metadata": {"name": name}})
    if REAL:
        eventually(lambda: cluster.core.list_namespaced_service_account(name).items)
    yield name
    with contextlib.suppress(ApiException):
        cluster.core.delete_namespace(name)


@pytest.fixture
def control(simulator: Cluster) -> Iterator[Control]:
    """Return the simulator's own switches; after the test all of them are as before."""
    found = Control(simulator.simulator)
    before = found.settings()
    yield found
    found.ask("DELETE", "faults")
    found.settings(**before)
