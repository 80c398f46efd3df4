"""Beside the watch: what it misses is seen by a look of our own, and its silence is told."""

from datetime import timedelta
from typing import cast

import pytest
from sqlmodel import select

from openclaw_web.boxes import checking, health, queries, watching
from openclaw_web.boxes.changes import ChangeKind
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.boxes.watching import Watcher
from openclaw_web.core.clock import real_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import VendorError
from openclaw_web.integrations.cluster import Cluster
from openclaw_web.integrations.cluster_objects import Broken, Heard
from openclaw_web.jobs.models import Alert, OperatorJob
from openclaw_web.worker import Worker
from tests.boxes.test_watching import place, pod, read, some_boxes
from tests.factories import now

pytestmark = pytest.mark.usefixtures("database", "redis")
LONG_AGO = now() - timedelta(hours=1)
REFUSAL = "The cluster refused GET /api/v1/pods: you may not watch."


class Listed:
    """As much of a cluster as a look of our own needs; `ready` are the boxes that answer."""

    def __init__(self, boxes, *, ready=()):
        self.names = [box.k8s_namespace for box in boxes]
        self.ready = {box.k8s_namespace for box in ready}
        self.looks = 0

    async def list_namespaces(self):
        self.looks += 1
        return [place(name) for name in self.names]

    async def list_pods(self):
        return [pod(name, is_ready=name in self.ready) for name in self.names]

    async def find_namespace(self, name):
        return place(name)


async def look(cluster):
    return [change.kind for change in await checking.look(cast(Cluster, cluster), "default")]


async def alerts():
    async with session_scope() as session:
        found = await session.exec(select(Alert).where(Alert.code == "watch_silent"))
        return list(found.all())


async def test_a_box_that_the_watch_never_sees_falls_with_the_third_look():
    fallen, well = await some_boxes(2, last_seen=LONG_AGO)
    cluster = Listed([fallen, well], ready=[well])
    assert [await look(cluster) for _ in range(3)] == [[], [], [ChangeKind.UNHEALTHY]]
    assert (await read(fallen)).status is BoxStatus.UNHEALTHY
    well = await read(well)
    assert (well.status, well.health_failures) == (BoxStatus.ACTIVE, 0)
    assert well.last_seen > LONG_AGO
    async with session_scope() as session:
        (job,) = (await session.exec(select(OperatorJob))).all()
    assert (job.box_id, job.requested_by) == (fallen.id, health.REPAIRER)


async def test_what_the_watch_has_just_seen_is_left_to_it():
    (box,) = await some_boxes(1, last_seen=now())
    await checking.note_watch("default", "")
    cluster = Listed([box])
    assert await look(cluster) == []
    assert (cluster.looks, (await read(box)).health_failures) == (0, 0)


async def test_an_unhealthy_box_recovers_though_the_watch_is_silent():
    (box,) = await some_boxes(1, last_seen=LONG_AGO, status=BoxStatus.UNHEALTHY)
    assert await look(Listed([box], ready=[box])) == [ChangeKind.RECOVERED]


async def test_many_that_fall_at_one_look_are_an_incident():
    boxes = await some_boxes(6, last_seen=LONG_AGO)
    for _ in range(health.FAILURES_ALLOWED):
        assert await look(Listed(boxes)) == []
    assert {(await read(box)).status for box in boxes} == {BoxStatus.UNHEALTHY}
    async with session_scope() as session:
        assert (await session.exec(select(OperatorJob))).all() == []


async def test_a_silent_watch_is_told_with_its_cause_and_closed_by_the_next_word(monkeypatch):
    await checking.note_watch("default", "")
    began_at = real_now() - timedelta(hours=1)
    assert not await checking.judge_watch("default", began_at=began_at)
    await checking.note_watch("default", REFUSAL)
    moment = real_now() + checking.SILENT_AFTER
    monkeypatch.setattr(checking, "real_now", lambda: moment)
    assert await checking.judge_watch("default", began_at=began_at)
    assert await checking.judge_watch("default", began_at=began_at)
    (alert,) = await alerts()
    assert (alert.subject, alert.detail["cause"], alert.resolved_at) == ("default", REFUSAL, None)
    assert REFUSAL in alert.detail["sentence"]
    await checking.note_watch("default", "")
    (alert,) = await alerts()
    assert alert.resolved_at is not None
    assert not await checking.judge_watch("default", began_at=began_at)


async def test_a_worker_that_has_just_begun_blames_no_watch():
    assert not await checking.judge_watch("default", began_at=real_now())
    assert await alerts() == []


class Away:
    """A cluster whose API does not answer."""

    async def find_namespace(self, _name):
        raise VendorError("The cluster cannot be reached.", can_retry=True, code="unreachable")


async def test_a_cluster_that_is_away_from_the_beginning_is_told(tmp_path):
    (box,) = await some_boxes(1, last_seen=LONG_AGO)
    worker = Worker(cluster=cast(Cluster, Away()), cluster_name="default", home=tmp_path)
    worker.began_at = real_now() - checking.SILENT_AFTER
    await worker.check_health()
    (alert,) = await alerts()
    assert alert.detail["cause"] == "The cluster cannot be reached."
    assert (await read(box)).health_failures == 0, "nobody saw it: it is not blamed"


def test_a_watch_says_why_it_hears_nothing(monkeypatch):
    watcher = Watcher("default")
    watcher.remember(Heard(kind="Namespace"))
    watcher.remember(Heard(kind="Pod"))
    assert watcher.silent_because == ""
    later = watching.time.monotonic() + watching.QUIET_SECONDS + 1
    monkeypatch.setattr(watching.time, "monotonic", lambda: later)
    assert watcher.silent_because == watching.NOTHING_SAID
    watcher.remember(Broken(why=REFUSAL))
    assert watcher.silent_because == REFUSAL


async def test_the_documented_question_finds_whom_nobody_saw():
    await some_boxes(1, last_seen=now())
    old, never = [(await some_boxes(1, last_seen=at))[0] for at in (LONG_AGO, None)]
    await some_boxes(1, last_seen=None, status=BoxStatus.SUSPENDED)
    await some_boxes(1, last_seen=None, cluster="far")
    async with session_scope() as session:
        found = await queries.any_customers_unseen(session, "default")
    assert set(found) == {old.k8s_namespace, never.k8s_namespace}
