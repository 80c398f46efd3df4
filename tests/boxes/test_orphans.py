"""Namespaces of ours without a box: what is done with them, and what never is."""

from dataclasses import replace
from datetime import timedelta
from typing import cast

import pytest
from sqlmodel import select

from openclaw_web.accounts.models import AuditLog
from openclaw_web.boxes import orphans
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import VendorError
from openclaw_web.core.switches import advance_clock
from openclaw_web.integrations.cluster import Cluster
from openclaw_web.integrations.cluster_objects import NamespaceState, NamespaceView
from openclaw_web.jobs.models import Alert
from tests.factories import make_box

pytestmark = pytest.mark.usefixtures("database", "redis")


class Namespaces:
    """As much of a cluster as this loop uses; it has no way to delete anything."""

    def __init__(self, *names, **labels):
        self.scaled = []
        self.failing = set()
        self.views = {
            name: NamespaceView(name=name, uid=name, state=NamespaceState.ACTIVE, labels=labels)
            for name in names
        }

    async def list_namespaces(self):
        return list(self.views.values())

    async def annotate_namespace(self, name, notes):
        view = self.views[name]
        kept = {**view.annotations, **notes}
        self.views[name] = replace(
            view, annotations={key: value for key, value in kept.items() if value is not None}
        )

    async def scale(self, namespace, name, replicas):
        if namespace in self.failing:
            raise VendorError("It does not answer.", can_retry=True, code="timeout")
        self.scaled.append((namespace, name, replicas))
        return True


async def look(cluster, **later):
    """Look twice after a while: the second time must do nothing."""
    async with session_scope() as session:
        await advance_clock(session, timedelta(**later).total_seconds(), by="test")
    stopped = await orphans.look_after(cast(Cluster, cluster), "default")
    assert await orphans.look_after(cast(Cluster, cluster), "default") == []
    return stopped


async def alerts():
    async with session_scope() as session:
        rows = (await session.exec(select(Alert))).all()
    return sorted(one.code for one in rows if one.resolved_at is None)


async def test_an_orphan_is_noted_first_and_stopped_after_an_hour_with_a_line_in_the_audit():
    cluster = Namespaces("customer-nobody")
    assert await look(cluster) == []
    assert orphans.FIRST_SEEN in cluster.views["customer-nobody"].annotations
    assert await look(cluster, minutes=59) == []
    assert await look(cluster, minutes=2) == ["customer-nobody"]
    assert cluster.scaled == [("customer-nobody", "openclaw", 0)]
    assert await alerts() == ["orphan_namespace"]
    async with session_scope() as session:
        (line,) = (await session.exec(select(AuditLog))).all()
    assert (line.action, line.resource_id) == ("orphan.stopped", "customer-nobody")


async def test_one_that_cannot_be_stopped_holds_up_no_other_and_is_audited_once():
    cluster = Namespaces("customer-a", "customer-b")
    cluster.failing = {"customer-a"}
    await look(cluster)
    assert await look(cluster, hours=2) == ["customer-b"]
    cluster.failing = set()
    assert await look(cluster) == ["customer-a"]
    async with session_scope() as session:
        lines = (await session.exec(select(AuditLog))).all()
    assert sorted(line.resource_id or "" for line in lines) == ["customer-a", "customer-b"]


async def test_more_than_five_at_once_stop_everything():
    cluster = Namespaces(*[f"customer-{number}" for number in range(6)])
    await look(cluster)
    assert await look(cluster, hours=2) == []
    assert cluster.scaled == []
    assert await alerts() == ["many_orphan_namespaces", "orphan_namespace"]


async def test_orphans_that_were_stopped_long_ago_do_not_count_as_many():
    cluster = Namespaces(*[f"customer-{number}" for number in range(5)])
    await look(cluster)
    assert len(await look(cluster, hours=2)) == 5
    cluster.views |= Namespaces("customer-late").views
    await look(cluster)
    assert await look(cluster, hours=2) == ["customer-late"]


async def test_a_box_that_is_there_again_is_no_orphan_any_more():
    cluster = Namespaces()
    async with session_scope() as session:
        box = await make_box(session, status=BoxStatus.DESTROYED)
    cluster.views = Namespaces(box.k8s_namespace).views
    await look(cluster)
    assert orphans.FIRST_SEEN in cluster.views[box.k8s_namespace].annotations
    async with session_scope() as session:
        (await session.merge(box)).status = BoxStatus.ACTIVE
    assert await look(cluster, hours=2) == []
    assert cluster.views[box.k8s_namespace].annotations == {}
    assert cluster.scaled == []


@pytest.mark.parametrize(
    "labels",
    [{"openclaw.cloud/managed": "false"}, {"openclaw.cloud/platform": "true"}],
    ids=["unlabelled", "our own"],
)
async def test_what_is_no_box_is_never_touched(labels):
    cluster = Namespaces("somebody-else", **labels)
    await look(cluster)
    await look(cluster, hours=2)
    assert cluster.views["somebody-else"].annotations == {}
    assert cluster.scaled == []
