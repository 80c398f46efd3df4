"""How the development cluster bears thousands of boxes: `python -m bench.cluster --boxes 5000`.

It starts a cluster of its own on a free port, makes boxes from the product's manifests the way the
worker does (server-side apply, one after the other per box), with pods that are records, then
lists and watches them. Nothing here is asserted: it prints figures.
"""

import argparse
import asyncio
import dataclasses
import json
import tempfile
import time
import uuid
from pathlib import Path

import httpx
import psutil

from openclaw_web.boxes import manifests
from openclaw_web.boxes.manifests import BoxSpec, Credentials
from openclaw_web.integrations.cluster import KINDS
from tests.contracts.simulator_process import TOKEN, running

SPEC = BoxSpec(
    box_id="",
    customer_id="",
    namespace="",
    image="agent:1",
    cpu_request="250m",
    cpu_limit="1",
    memory_request="1280Mi",
    memory_limit="2Gi",
    storage="5Gi",
    generation=1,
    config=json.dumps({"agents": {"defaults": {"model": "kimi-coding/k2p5"}}}),
    user_text="A person.",
    destinations=("http://127.0.0.1:3000/proxy/v1",),
)
CREDENTIALS = Credentials(
    proxy_token_id="t",  # noqa: S106 - an id
    proxy_token="ocp_" + "x" * 40,
    telegram_token="1234567:" + "A" * 35,
    gateway_token="g" * 64,
)
QUERY = {"fieldManager": "openclaw-cloud", "force": "true", "fieldValidation": "Strict"}
PARALLEL = 4
READY_SECONDS, STEP_SECONDS = 300, 0.2


async def make_box(client: httpx.AsyncClient) -> None:
    box_id = str(uuid.uuid4())
    spec = dataclasses.replace(
        SPEC, box_id=box_id, customer_id=str(uuid.uuid4()), namespace=f"customer-{box_id}"
    )
    for one in (
        *manifests.surroundings(spec, fence=1),
        manifests.secret(spec, CREDENTIALS),
        manifests.deployment(spec, token_id="t", fence=1),  # noqa: S106 - an id
    ):
        meta = one["metadata"]
        path = KINDS[one["kind"]].path(meta.get("namespace"), meta["name"])
        headers = {"content-type": "application/apply-patch+yaml"}
        answer = await client.patch(path, params=QUERY, content=json.dumps(one), headers=headers)
        answer.raise_for_status()


async def make_boxes(client: httpx.AsyncClient, count: int, pid: int) -> None:
    left = count

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await make_box(client)

    begun, step = time.monotonic(), max(1, count // 5)
    workers = [asyncio.create_task(work()) for _ in range(PARALLEL)]
    shown = count
    while not all(one.done() for one in workers):
        await asyncio.sleep(0.5)
        if shown - left >= step:
            shown -= step
            rate = (count - left) / (time.monotonic() - begun)
            print(f"{count - left:6d} boxes, {rate:6.1f}/s, {megabytes(pid):6.0f} MB")
    await asyncio.gather(*workers)
    took = time.monotonic() - begun
    print(f"made {count} boxes in {took:.1f} s: {count / took:.1f}/s")


async def list_all(client: httpx.AsyncClient, kind: str) -> tuple[int, str]:
    begun, found, query, pages = time.monotonic(), 0, {"limit": "500"}, 0
    while True:
        answer = (await client.get(KINDS[kind].path(), params=query)).json()
        found, pages = found + len(answer["items"]), pages + 1
        if "continue" not in answer["metadata"]:
            break
        query["continue"] = answer["metadata"]["continue"]
    took = time.monotonic() - begun
    print(f"list {found} {kind}s in {pages} pages: {took:.2f} s")
    return found, answer["metadata"]["resourceVersion"]


async def ready_pods(client: httpx.AsyncClient) -> int:
    answer = await client.get(KINDS["Pod"].path(), params={"fieldSelector": "status.phase=Running"})
    return len(answer.json()["items"])


async def watch_initial(client: httpx.AsyncClient) -> None:
    query = {
        "watch": "true",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": "60",
    }
    begun, lines = time.monotonic(), 0
    async with client.stream("GET", KINDS["Pod"].path(), params=query) as answer:
        async for line in answer.aiter_lines():
            lines += 1
            if "initial-events-end" in line:
                break
    print(f"watch with {lines - 1} initial events: {time.monotonic() - begun:.2f} s")


def megabytes(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / 1024**2


async def measure(url: str, pid: int, count: int) -> None:
    bearer = {"authorization": f"Bearer {TOKEN}"}
    limits = httpx.Limits(max_connections=PARALLEL + 2)
    async with httpx.AsyncClient(
        base_url=url, headers=bearer, trust_env=False, timeout=120, limits=limits
    ) as client:
        before = psutil.Process(pid).cpu_times().user
        await make_boxes(client, count, pid)
        begun = time.monotonic()
        async with asyncio.timeout(READY_SECONDS):
            while await ready_pods(client) < count:  # noqa: ASYNC110 - another process's pods
                await asyncio.sleep(STEP_SECONDS)
        print(f"all pods ready {time.monotonic() - begun:.1f} s later")
        print(f"server: {psutil.Process(pid).cpu_times().user - before:.1f} s of processor time")
        for kind in ("Pod", "Namespace"):
            await list_all(client, kind)
        await watch_initial(client)
        print(f"server: {megabytes(pid):.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boxes", type=int, default=500)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-cluster-") as name:
        folder = Path(name)
        (folder / "images.json").write_text("{}")
        arguments = (
            "--images",
            str(folder / "images.json"),
            "--kubeconfig",
            str(folder / "config"),
        )
        with running("kubernetes", folder, *arguments) as simulator:
            simulator.http.patch("/_control/settings", json={"records": True}).raise_for_status()
            pid = simulator.process.pid
            print(f"empty: {megabytes(pid):.0f} MB")
            asyncio.run(measure(simulator.url, pid, given.boxes))
            begun = time.monotonic()
            simulator.restart()
            print(f"restarted with everything in {time.monotonic() - begun:.1f} s")
            print(f"after the restart: {megabytes(simulator.process.pid):.0f} MB")


if __name__ == "__main__":
    main()
