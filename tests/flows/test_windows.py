"""A customer looks at what their box writes: live, without secrets, and only at their own."""

import asyncio
import json
from datetime import timedelta

import pytest

from openclaw_web import worker as operator
from openclaw_web.boxes import looking, windows
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.windows import Seen
from openclaw_web.core.clock import real_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import VendorError
from openclaw_web.integrations import redis
from openclaw_web.integrations.cluster_objects import EventView
from tests.flows.box_world import box_world, cluster_process, eventually

pytestmark = pytest.mark.usefixtures("database", "redis")


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory):
    with cluster_process(tmp_path_factory.mktemp("cluster")) as path:
        yield path


@pytest.fixture
async def world(kubeconfig, tmp_path, monkeypatch, database):
    assert database
    async with box_world(kubeconfig, tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(looking, "EVERY_SECONDS", 0.05)


def serving(world, box_id, owner="worker-a"):
    return asyncio.create_task(
        looking.serve_box(world.cluster, box_id, cluster_name="default", owner=owner)
    )


async def clear_token(box):
    async with session_scope() as session:
        return await boxes.bot_token(session, box.id)


async def test_a_watched_box_shows_its_lines_and_events_until_nobody_looks(world):
    box = await world.live_box()
    world.worker.cluster_name = "default"
    assert await windows.watch_box(box.id) is None
    turn = asyncio.create_task(world.worker.show_windows())  # the bell has rung already
    await turn

    async def looks():
        return await windows.watch_box(box.id)

    found = await eventually(looks)
    assert found.seen is Seen.OK
    assert any("Started" in one.text for one in found.events)
    await windows.stop_watching(box.id)

    async def is_over():
        return await redis.kept(f"window:lock:{box.id}") == [None]

    await eventually(is_over)


async def test_what_the_box_writes_comes_without_its_secrets(world, monkeypatch):
    box = await world.live_box()
    token, gateway = await clear_token(box), boxes.gateway_token(box.id)
    stamp = "2026-11-21T14:00:00.123456789Z"
    said = (
        f"polling with {token} now",
        f"\x1b[31mred\x1b[0m gateway {gateway}",
        "key ocp_abcdefghijk_1234567890 and sk-kimi-abcdefghijklmnop",
        "x" * 1_500 + token,
        "plain words",
    )

    async def logs(*_place, **options):
        return "" if options.get("is_previous") else "\n".join(f"{stamp} {one}" for one in said)

    async def events(_namespace):
        return [
            EventView(
                at=stamp,
                is_warning=True,
                reason="Failed",
                message=f"env {token}",
                subject="Pod",
                count=3,
            )
        ]

    monkeypatch.setattr(world.cluster, "logs", logs)
    monkeypatch.setattr(world.cluster, "events", events)
    found = await looking.look(world.cluster, box.id, cluster_name="default")
    assert found is not None
    assert [one.text for one in found.lines[:3]] == [
        "polling with [redacted] now",
        "red gateway [redacted]",
        "key [redacted] and [redacted]",
    ]
    assert found.lines[3].text == "x" * 1_000 + "…"
    assert found.lines[4] == windows.Line(at=stamp, text="plain words")
    assert found.events == (
        windows.Happening(at=stamp, is_warning=True, text="Failed: env [redacted] (3 times)"),
    )


async def test_a_secret_across_a_colour_code_is_found_all_the_same(world):
    box = await world.new_box()
    token = await clear_token(box)
    (line,) = looking.lines_of(f"t {token[:20]}\x1b[0m{token[20:]}", (token,))
    assert line.text == "[redacted]"


async def test_only_the_newest_lines_that_fit_are_shown():
    text = "\n".join(f"t {number} " + "y" * 900 for number in range(300))
    lines = looking.lines_of(text, ())
    assert lines[-1].text.startswith("299 ")
    assert len(lines) <= looking.LINES
    assert sum(len(one.text) for one in lines) <= looking.VIEW_CHARACTERS


async def test_the_run_before_a_crash_is_shown_apart(world, monkeypatch):
    box = await world.live_box()
    (pod,) = await world.cluster.pods(box.k8s_namespace)
    before = await world.cluster.logs(
        box.k8s_namespace, pod.name, container="openclaw", is_previous=True
    )
    assert before == ""  # there was none, and that is no error

    async def logs(*_place, is_previous=False, **_options):
        return "t it fell over" if is_previous else "t it runs again"

    async def pods(_namespace):
        return [operator.cluster.pod_view(document)]

    document = {
        "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": pod.labels},
        "status": {"phase": "Running", "containerStatuses": [{"restartCount": 1, "ready": True}]},
    }
    monkeypatch.setattr(world.cluster, "logs", logs)
    monkeypatch.setattr(world.cluster, "pods", pods)
    found = await looking.look(world.cluster, box.id, cluster_name="default")
    assert found is not None
    assert [one.text for one in (*found.lines, *found.before)] == [
        "it runs again",
        "it fell over",
    ]


async def test_one_worker_at_a_time_looks_and_another_takes_over(world):
    box = await world.new_box()
    await windows.watch_box(box.id)
    assert await redis.hold(f"window:lock:{box.id}", "worker-b", seconds=10)
    await serving(world, box.id)  # ends at once: the other one is at it
    assert await redis.kept(f"window:lock:{box.id}") == ["worker-b"]
    assert await windows.watch_box(box.id) is None
    await redis.let_go(f"window:lock:{box.id}", "worker-b")
    task = serving(world, box.id)

    async def looks():
        return await windows.watch_box(box.id)

    found = await eventually(looks)
    assert found.seen is Seen.NO_POD
    await windows.stop_watching(box.id)
    await task


async def test_a_cluster_that_does_not_answer_is_said(world, monkeypatch):
    box = await world.new_box()

    async def gone(_namespace):
        raise VendorError("The cluster cannot be reached.", can_retry=True, code="unreachable")

    monkeypatch.setattr(world.cluster, "pods", gone)
    found = await looking.look(world.cluster, box.id, cluster_name="default")
    assert found is not None
    assert (found.seen, found.lines, found.events) == (Seen.UNREACHABLE, (), ())
    at = windows.moment(found.at)
    assert at is not None
    assert real_now() - at < timedelta(minutes=1)


async def test_a_box_of_another_cluster_is_left_to_its_own_worker(world):
    box = await world.new_box()
    assert await looking.look(world.cluster, box.id, cluster_name="elsewhere") is None


@pytest.mark.parametrize("text", ["", "{}", "[]", "no json", json.dumps({"seen": "else"})])
async def test_a_view_that_cannot_be_read_is_none(world, text):
    box = await world.new_box()
    await redis.keep(f"window:view:{box.id}", text, seconds=5)
    assert await windows.watch_box(box.id) is None
