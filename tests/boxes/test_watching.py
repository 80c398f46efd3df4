"""The watch: many events are a few statements, and what is gone is looked at twice."""

from dataclasses import replace

import pytest

from openclaw_web.boxes import health, incidents, queries, watching
from openclaw_web.boxes.changes import ChangeKind
from openclaw_web.boxes.models import BoxBackup, BoxStatus
from openclaw_web.boxes.watching import Watcher
from openclaw_web.core.database import session_scope
from openclaw_web.core.leadership import NotLeaderError, only_one
from openclaw_web.integrations.cluster_objects import (
    Heard,
    NamespaceChanged,
    NamespacesListed,
    NamespaceState,
    NamespaceView,
    PodChanged,
    PodsListed,
    PodView,
)
from tests.factories import make_box, now

pytestmark = pytest.mark.usefixtures("database", "redis")


def place(name, state=NamespaceState.ACTIVE):
    return NamespaceView(name=name, uid=f"uid-{name}", state=state)


def pod(namespace, *, is_ready=True):
    return PodView(
        name="openclaw-1",
        namespace=namespace,
        phase="Running",
        is_ready=is_ready,
        is_terminating=False,
        restarts=0,
        reason="",
        message="",
        address="",
    )


async def some_boxes(count, **fields):
    async with session_scope() as session:
        return [await make_box(session, activated_at=now(), **fields) for _ in range(count)]


async def a_watcher(boxes, **options):
    watcher = Watcher("default", **options)
    names = [box.k8s_namespace for box in boxes]
    watcher.remember(NamespacesListed(views=tuple(place(name) for name in names)))
    watcher.remember(PodsListed(views=tuple(pod(name) for name in names)))
    await watcher.settle()
    return watcher


async def jobs_of(boxes):
    async with session_scope() as session:
        ids = [box.id for box in boxes]
        return list(await health.jobs.any_customers_busy_boxes(session, ids))


async def read(box):
    async with session_scope() as session:
        return await queries.get_any_box(session, box.id)


async def test_events_that_come_together_are_settled_together():
    boxes = await some_boxes(3)
    watcher = await a_watcher(boxes)
    for box in boxes[:2]:
        watcher.remember(PodChanged(view=pod(box.k8s_namespace, is_ready=False)))
    assert await watcher.settle() == []
    ready = [(await read(box)).health[health.POD]["is_ready"] for box in boxes]
    assert ready == [False, False, True]


async def test_an_unhealthy_box_whose_pod_is_ready_again_recovers_at_once():
    (box,) = await some_boxes(1)
    watcher = await a_watcher([box])
    watcher.remember(PodChanged(view=pod(box.k8s_namespace, is_ready=False)))
    for _ in range(health.FAILURES_ALLOWED):
        await watcher.evaluate()
    assert (await read(box)).status is BoxStatus.ACTIVE or await finish(box)
    found = await watcher.take(PodChanged(view=pod(box.k8s_namespace)))
    assert [change.kind for change in found] == [ChangeKind.RECOVERED]


async def finish(box):
    """End the repair that was asked for: a job at work says by itself when it is done."""
    async with session_scope() as session:
        job = await health.jobs.find_live_job_of_box(session, box.customer_id, box.id)
        await session.delete(job)
    return True


async def test_a_namespace_that_only_lost_its_label_is_not_called_gone():
    (box,) = await some_boxes(1)

    async def find(name):
        return place(name)

    watcher = await a_watcher([box], find=find)
    gone = place(box.k8s_namespace, NamespaceState.ABSENT)
    seen = (await read(box)).health[health.POD]
    assert await watcher.take(NamespaceChanged(view=gone)) == []
    box = await read(box)
    assert (box.status, box.health[health.POD]) == (BoxStatus.ACTIVE, seen)
    assert await watcher.take(NamespaceChanged(view=place(box.k8s_namespace))) == []
    assert (await read(box)).health[health.POD] == seen


async def test_memory_that_has_a_backup_is_not_called_lost():
    (box,) = await some_boxes(1)
    async with session_scope() as session:
        session.add(
            BoxBackup(
                box_id=box.id,
                reason="suspend",
                location="x",
                key_ct=b"k",
                key_id="k1",
                created_at=now(),
                finished_at=now(),
            )
        )
    watcher = await a_watcher([box])
    gone = NamespaceChanged(view=place(box.k8s_namespace, NamespaceState.ABSENT))
    assert [change.kind for change in await watcher.take(gone)] == [ChangeKind.PLACE_LOST]
    box = await read(box)
    assert (box.status, queries.memory_lost_at(box)) == (BoxStatus.UNHEALTHY, None)
    async with session_scope() as session:
        view = await queries.box_status_view(session, box.customer_id)
    assert view is not None
    assert "comes back from the newest backup" in view.sentence


async def test_many_namespaces_that_go_at_once_are_neither_told_nor_rebuilt():
    boxes = await some_boxes(8)
    watcher = await a_watcher(boxes)
    for box in boxes:
        watcher.remember(
            NamespaceChanged(view=place(box.k8s_namespace, NamespaceState.TERMINATING))
        )
    changes = await watcher.settle()
    assert changes == []
    assert {(await read(box)).status for box in boxes} == {BoxStatus.UNHEALTHY}
    assert await jobs_of(boxes) == []
    async with session_scope() as session:
        assert await incidents.is_incident(session, "default")  # who asks later knows as much


async def test_many_that_fall_at_one_check_are_neither_told_nor_repaired():
    boxes = await some_boxes(8)
    watcher = await a_watcher(boxes)
    for box in boxes:
        watcher.remember(PodChanged(view=pod(box.k8s_namespace, is_ready=False)))
    for _ in range(health.FAILURES_ALLOWED):
        assert await watcher.evaluate() == []
    assert {(await read(box)).status for box in boxes} == {BoxStatus.UNHEALTHY}
    assert await jobs_of(boxes) == []


async def test_a_watch_that_hears_nothing_counts_and_stamps_nothing(monkeypatch):
    boxes = await some_boxes(2)
    watcher = await a_watcher(boxes)
    watcher.remember(PodChanged(view=pod(boxes[0].k8s_namespace, is_ready=False)))
    later = watching.time.monotonic() + watching.QUIET_SECONDS + 1
    monkeypatch.setattr(watching.time, "monotonic", lambda: later)
    watcher.remember(Heard(kind="Namespace"))
    await watcher.evaluate()
    assert [(await read(box)).health_failures for box in boxes] == [0, 0]
    watcher.remember(Heard(kind="Pod"))
    await watcher.evaluate()
    assert [(await read(box)).health_failures for box in boxes] == [1, 0]


async def test_a_pod_of_no_box_changes_nothing():
    watcher = await a_watcher([])
    stranger = replace(pod("elsewhere"), is_ready=False)
    assert await watcher.take(PodChanged(view=stranger)) == []


async def test_each_cluster_has_a_leader_of_its_own():
    async with only_one(42, "east"):
        async with only_one(42, "west"):
            pass
        with pytest.raises(NotLeaderError):
            async with only_one(42, "east"):
                pass
