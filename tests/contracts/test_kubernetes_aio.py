"""The official asynchronous client: the same cluster, by the client that the product uses."""

import asyncio
from typing import Any

from kubernetes.aio import client, config, watch

from tests.contracts.kubernetes_bodies import config_map, secret
from tests.contracts.kubernetes_clusters import REAL, pod

pytest_plugins = ["tests.contracts.kubernetes_fixtures"]


async def opened(cluster):
    settings = client.Configuration()
    await config.load_kube_config(str(cluster.kubeconfig), client_configuration=settings)
    return client.ApiClient(settings)


async def test_objects_are_made_changed_listed_and_deleted(cluster, namespace):
    async with await opened(cluster) as api:
        core: Any = client.CoreV1Api(api)
        made = await core.create_namespaced_secret(namespace, secret("one", word="abc"))
        assert made.data == {"word": "YWJj"}
        await core.patch_namespaced_secret("one", namespace, {"stringData": {"word": "xyz"}})
        found = await core.list_namespaced_secret(namespace, label_selector="tier=a")
        assert [one.data for one in found.items] == [{"word": "eHl6"}]
        await core.delete_namespaced_secret("one", namespace)
        assert not (await core.list_namespaced_secret(namespace, label_selector="tier=a")).items


async def test_a_watch_follows_while_something_happens(cluster, namespace):
    async with await opened(cluster) as api:
        core: Any = client.CoreV1Api(api)
        since = (await core.list_namespaced_config_map(namespace)).metadata.resource_version
        seen = []

        async def follow():
            async with watch.Watch() as watching:
                events = watching.stream(
                    core.list_namespaced_config_map,
                    namespace,
                    resource_version=since,
                    timeout_seconds=20,
                )
                async for event in events:
                    seen.append(event["type"])
                    if len(seen) == 3:
                        return

        following = asyncio.create_task(follow())
        await core.create_namespaced_config_map(namespace, config_map("one"))
        await core.patch_namespaced_config_map("one", namespace, {"data": {"key": "new"}})
        await core.delete_namespaced_config_map("one", namespace)
        await asyncio.wait_for(following, 20)
        assert seen == ["ADDED", "MODIFIED", "DELETED"]


async def test_an_apply_of_this_client_owns_its_fields(cluster, namespace):
    async with await opened(cluster) as api:
        core: Any = client.CoreV1Api(api)
        body = {"apiVersion": "v1", "kind": "ConfigMap", **config_map("one", {"a": "1"})}
        made = await core.patch_namespaced_config_map(
            "one",
            namespace,
            body,
            field_manager="async",
            _content_type="application/apply-patch+yaml",
        )
        assert made.metadata.managed_fields[0].manager == "async"


async def test_logs_are_read(cluster, namespace):
    if REAL:
        return  # needs the simulator's image
    await asyncio.to_thread(cluster.core.create_namespaced_pod, namespace, pod("one"))
    await asyncio.to_thread(cluster.ready_pod, namespace)
    async with await opened(cluster) as api:
        core: Any = client.CoreV1Api(api)
        text = await core.read_namespaced_pod_log("one", namespace, tail_lines=1)
        assert text.startswith("ready at")
