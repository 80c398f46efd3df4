"""What the adapter makes of a cluster's answers, played by a small scripted server."""

import asyncio
import contextlib
import json

import pytest
import yaml
from aiohttp import web

from openclaw_web.core.errors import SettingsError, VendorError
from openclaw_web.integrations import cluster as adapter
from openclaw_web.integrations.cluster_objects import (
    Broken,
    NamespaceChanged,
    NamespacesListed,
    NamespaceState,
    PodsListed,
    namespace_view,
    pod_view,
)
from openclaw_web.local.ports import free_port

POD = {
    "metadata": {"name": "p", "namespace": "n"},
    "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
}


@contextlib.asynccontextmanager
async def cluster_that(answer, tmp_path):
    """Open an adapter to a server that answers each request by calling `answer`."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    opened = await adapter.connect(str(kubeconfig(tmp_path, port)))
    try:
        yield opened
    finally:
        await opened.close()
        await runner.cleanup()


def kubeconfig(folder, port, host="127.0.0.1", scheme="http"):
    path = folder / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": f"{scheme}://{host}:{port}"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "c"}}
    user = {"name": "c", "user": {"token": "bearer-of-a-test"}}
    found = {"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "c"}
    path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **found}))
    return path


def refusal(status, message):
    found = {"kind": "Status", "status": "Failure", "message": message, "code": status}

    async def answer(_request):
        return web.json_response(found, status=status)

    return answer


@pytest.mark.parametrize(
    ("status", "message", "code", "can_retry"),
    [
        (401, "Unauthorized", "unauthorized", True),
        (403, "exceeded quota: openclaw", "quota", True),
        (403, "unable to create: it is being terminated", "forbidden", False),
        (403, "because it is being terminated", "namespace_terminating", True),
        (403, "user cannot patch", "forbidden", False),
        (409, "the object has been modified", "conflict", True),
        (410, "too old resource version", "gone", True),
        (422, "spec.replicas: Invalid value", "invalid", False),
        (429, "too many requests", "busy", True),
        (500, "internal error", "server_error", True),
        (503, "unavailable", "server_error", True),
    ],
)
async def test_a_refusal_says_what_it_is_and_whether_to_try_again(
    tmp_path, status, message, code, can_retry
):
    async with cluster_that(refusal(status, message), tmp_path) as opened:
        with pytest.raises(VendorError, match="refused") as caught:
            await opened.pods("n")
    assert (caught.value.code, caught.value.can_retry) == (code, can_retry)


async def test_a_cluster_that_is_not_there_may_come_back(tmp_path):
    opened = await adapter.connect(str(kubeconfig(tmp_path, free_port())))
    try:
        with pytest.raises(VendorError) as caught:
            await opened.pods("n")
        assert (caught.value.code, caught.value.can_retry) == ("unreachable", True)
    finally:
        await opened.close()


async def test_a_slow_cluster_is_a_time_out(tmp_path, monkeypatch):
    monkeypatch.setattr(adapter, "TIMEOUT_SECONDS", 0.1)

    async def answer(request):
        await request.content.read()
        await asyncio.sleep(1)

    async with cluster_that(answer, tmp_path) as opened:
        with pytest.raises(VendorError) as caught:
            await opened.pods("n")
    assert (caught.value.code, caught.value.can_retry) == ("timeout", True)


async def test_a_missing_kubeconfig_names_the_setting(tmp_path):
    with pytest.raises(SettingsError, match="KUBECONFIG"):
        await adapter.connect(str(tmp_path / "nothing"))


async def test_what_is_not_there_is_nothing_and_no_error(tmp_path):
    async with cluster_that(refusal(404, "not found"), tmp_path) as opened:
        assert await opened.namespace_state("n") is NamespaceState.ABSENT
        assert await opened.find_deployment("n", "d") is None
        assert await opened.scale("n", "d", 0) is False
        await opened.delete_namespace("n")


@pytest.mark.parametrize("is_ending", [True, False])
async def test_a_conflict_is_a_deletion_only_where_the_namespace_is_ending(tmp_path, is_ending):
    found = namespace("n", "1")
    found["status"] = {"phase": "Terminating" if is_ending else "Active"}

    async def answer(request):
        if request.method == "GET":
            return web.json_response(found)
        return web.json_response({"message": "the object has been modified"}, status=409)

    expected = contextlib.nullcontext() if is_ending else pytest.raises(VendorError)
    async with cluster_that(answer, tmp_path) as opened:
        with expected:
            await opened.delete_namespace("n")


def namespace(name, version):
    return {"metadata": {"name": name, "uid": f"u-{name}", "resourceVersion": version}}


async def test_a_watch_resumes_and_lists_anew_when_it_is_too_late(tmp_path):
    seen = []

    async def answer(request):
        if request.path.endswith("/pods"):
            return web.json_response({"items": [], "metadata": {"resourceVersion": "1"}})
        if "watch" not in request.query:
            seen.append("list")
            listed = {"items": [namespace("a", "5")], "metadata": {"resourceVersion": "5"}}
            return web.json_response(listed)
        seen.append(request.query["resourceVersion"])
        events = {
            "5": [{"type": "MODIFIED", "object": namespace("a", "6")}],
            "6": [{"type": "ERROR", "object": {"code": 410, "message": "too old"}}],
        }.get(request.query["resourceVersion"], [])
        if len(seen) > 4:
            return web.json_response({"message": "enough"}, status=503)
        return web.Response(text="".join(f"{json.dumps(one)}\n" for one in events))

    async with cluster_that(answer, tmp_path) as opened:
        found = []
        async with contextlib.aclosing(opened.watch()) as events:
            async for event in events:
                if not isinstance(event, PodsListed):
                    found.append(type(event))
                if len(found) == 4:
                    break
    assert found == [NamespacesListed, NamespaceChanged, NamespacesListed, Broken]
    assert seen[:4] == ["list", "5", "6", "list"]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({"phase": "Running"}, ""),
        ({"phase": "Failed", "reason": "Evicted"}, "Evicted"),
        (
            {"containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]},
            "CrashLoopBackOff",
        ),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}, ""),
        (
            {
                "containerStatuses": [
                    {
                        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                        "lastState": {"terminated": {"reason": "OOMKilled"}},
                        "ready": False,
                    }
                ]
            },
            "OOMKilled",
        ),
        (
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
                ]
            },
            "Unschedulable",
        ),
        (
            {
                "initContainerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}],
                "containerStatuses": [{"state": {"waiting": {"reason": "PodInitializing"}}}],
            },
            "ErrImagePull",
        ),
    ],
)
def test_the_most_telling_reason_of_a_pod_is_kept(status, reason):
    assert pod_view({**POD, "status": status}).reason == reason


def test_a_ready_pod_is_ready_until_it_is_told_to_end():
    assert pod_view(POD).is_ready
    ending = {**POD["metadata"], "deletionTimestamp": "2026-11-21T00:00:00Z"}
    assert pod_view({**POD, "metadata": ending}).is_terminating


async def test_an_answer_that_is_no_json_may_be_a_better_one_next_time(tmp_path):
    async def answer(_request):
        return web.Response(text="<html>a gateway in between</html>")

    async with cluster_that(answer, tmp_path) as opened:
        with pytest.raises(VendorError, match="cannot be read") as caught:
            await opened.pods("n")
    assert caught.value.can_retry


async def test_of_a_secret_only_its_metadata_is_asked_for(tmp_path):
    asked = []

    async def answer(request):
        asked.append(request.headers["accept"])
        meta = {"name": "s", "resourceVersion": "7", "annotations": {"a": "b"}}
        return web.json_response({"metadata": meta})

    async with cluster_that(answer, tmp_path) as cluster:
        found = await cluster.find_object("Secret", "n", "s")
    assert found is not None
    assert (found.annotations, found.resource_version) == ({"a": "b"}, "7")
    assert asked[0].startswith("application/json;as=PartialObjectMetadata")


async def test_a_pod_that_is_gone_takes_no_note(tmp_path):
    async with cluster_that(refusal(404, "pods not found"), tmp_path) as cluster:
        assert await cluster.annotate_pod("n", "p", {"a": "b"}) is False
    async with cluster_that(refusal(409, "modified"), tmp_path) as cluster:
        with pytest.raises(VendorError):
            await cluster.annotate_pod("n", "p", {"a": "b"})


async def test_a_proxys_password_reaches_the_proxy_and_no_error(tmp_path, monkeypatch):
    heard = []

    async def refuse(reader, writer):
        heard.extend((await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n"))
        writer.write(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    port = free_port()
    async with await asyncio.start_server(refuse, "127.0.0.1", port):
        monkeypatch.setenv("https_proxy", f"http://ada:s%40cret@127.0.0.1:{port}")
        monkeypatch.delenv("no_proxy", raising=False)
        opened = await adapter.connect(str(kubeconfig(tmp_path, 443, "cluster.invalid", "https")))
        with pytest.raises(VendorError) as refused:
            await opened.find_namespace("n")
        await opened.close()
    assert heard[0] == "CONNECT cluster.invalid:443 HTTP/1.1"
    assert "Proxy-Authorization: Basic YWRhOnNAY3JldA==" in heard
    assert "cret" not in str(refused.value)


def test_a_namespace_that_ends_says_since_when_and_what_remains():
    told = {"type": "NamespaceContentRemaining", "status": "True", "message": "1 pod is left"}
    view = namespace_view(
        {
            "metadata": {"name": "a", "uid": "u", "deletionTimestamp": "2026-11-21T00:00:00Z"},
            "spec": {"finalizers": ["kubernetes"]},
            "status": {
                "phase": "Terminating",
                "conditions": [told, {"type": "NamespaceDeletionDiscoveryFailure"}],
            },
        }
    )
    assert view.state is NamespaceState.TERMINATING
    assert view.ending_since is not None
    assert view.ending_since.isoformat() == "2026-11-21T00:00:00+00:00"
    assert (view.remains, view.finalizers) == (("1 pod is left",), ("kubernetes",))
