"""A worker that is pointed to another cluster does nothing there, until a person says so."""

import pytest
from sqlmodel import col, select

from openclaw_web.boxes import same_cluster
from openclaw_web.boxes.same_cluster import OtherClusterError
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import NotFoundError, ValidationError, VendorError
from openclaw_web.integrations.cluster_objects import NamespaceState, NamespaceView
from openclaw_web.jobs.models import Alert
from openclaw_web.workflows import operations
from openclaw_web.workflows.operations import By

pytestmark = pytest.mark.usefixtures("database")


class Somewhere:
    """As much of a cluster as tells one from another."""

    def __init__(self, uid):
        self.uid = uid

    async def find_namespace(self, name):
        if not self.uid:
            return None
        return NamespaceView(name=name, uid=self.uid, state=NamespaceState.ACTIVE)


async def make_sure(uid):
    await same_cluster.make_sure(Somewhere(uid), "default")


async def open_alerts():
    async with session_scope() as session:
        found = await session.exec(select(Alert).where(col(Alert.resolved_at).is_(None)))
        return [(one.code, one.subject) for one in found.all()]


async def accept(reason):
    async with session_scope() as session:
        await operations.accept_cluster(session, "default", by=By(reason=reason))


async def test_the_first_cluster_of_a_name_is_known_from_then_on():
    await make_sure("here")
    await make_sure("here")
    assert await open_alerts() == []


async def test_another_cluster_is_refused_and_told_until_the_right_one_is_back():
    await make_sure("here")
    with pytest.raises(OtherClusterError, match="another cluster than the one"):
        await make_sure("elsewhere")
    assert await open_alerts() == [(same_cluster.ALERT, "default")]
    await make_sure("here")
    assert await open_alerts() == []


async def test_a_cluster_that_does_not_say_who_it_is_is_asked_again_later():
    await make_sure("here")
    with pytest.raises(VendorError) as refused:
        await make_sure("")
    assert refused.value.can_retry


async def test_an_admin_with_a_reason_lets_another_cluster_take_the_name():
    await make_sure("here")
    with pytest.raises(NotFoundError):
        await accept("It burnt down.")
    with pytest.raises(OtherClusterError):
        await make_sure("elsewhere")
    with pytest.raises(ValidationError):
        await accept("")
    await accept("It burnt down.")
    with pytest.raises(OtherClusterError):
        await make_sure("here")
    await make_sure("elsewhere")
