import json
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from aiohttp import web
from sqlmodel import select

from openclaw_web.boxes import (
    health,
    incidents,
    manifests,
    openclaw_config,
    queries,
    sentences,
    service,
)
from openclaw_web.boxes.changes import ChangeKind
from openclaw_web.boxes.health import Sight
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.integrations import agent
from openclaw_web.integrations.cluster_objects import REAL_PORTS, NamespaceState, PodView
from openclaw_web.jobs import leases
from openclaw_web.jobs.models import Alert, JobType, OperatorJob
from tests.factories import make_box, now

pytestmark = pytest.mark.usefixtures("redis")
GONE = Sight(state=NamespaceState.ABSENT)
EMPTY = Sight(state=NamespaceState.ACTIVE, uid="u1")
READY_POD = PodView(
    name="openclaw-1",
    namespace="n",
    phase="Running",
    is_ready=True,
    is_terminating=False,
    restarts=0,
    reason="",
    message="",
    address="",
)


def sight(*, failing=(), **fields):
    return Sight(
        state=NamespaceState.ACTIVE, uid="u1", pod=replace(READY_POD, **fields), failing=failing
    )


async def a_box(session, **fields):
    fields.setdefault("activated_at", now())
    fields.setdefault("health", {"namespace_uid": "u1"})
    return await make_box(session, **fields)


async def observe(session, box, seen, **options):
    return [
        change.kind for change in await health.observe(session, box.k8s_namespace, seen, **options)
    ]


async def view_of(session, box):
    view = await queries.box_status_view(session, box.customer_id)
    assert view is not None
    return view


async def count(session, table):
    return len((await session.exec(select(table))).all())


async def test_memory_that_was_taken_over_can_be_lost_before_the_first_answer(session):
    facts = {"namespace_uid": "u1", queries.RESTORED_AT: now().isoformat()}
    box = await a_box(session, activated_at=None, status=BoxStatus.SUSPENDED, health=facts)
    assert await observe(session, box, GONE) == [ChangeKind.MEMORY_LOST]
    empty = {"namespace_uid": "u1"}
    box = await a_box(session, activated_at=None, status=BoxStatus.SUSPENDED, health=empty)
    assert await observe(session, box, GONE) == []


async def test_lost_memory_is_told_once_and_repaired_once(session):
    box = await a_box(session)
    assert await observe(session, box, GONE) == [ChangeKind.MEMORY_LOST]
    assert await observe(session, box, GONE) == []
    assert (box.status, box.status_reason) == (BoxStatus.UNHEALTHY, "namespace_deleted")
    assert await count(session, OperatorJob) == 1
    assert await count(session, Alert) == 1


async def test_a_terminating_namespace_counts_as_lost_already(session):
    box = await a_box(session)
    ending = Sight(state=NamespaceState.TERMINATING, uid="u1")
    assert await observe(session, box, ending) == [ChangeKind.MEMORY_LOST]


async def test_a_second_loss_is_told_again(session):
    box = await a_box(session)
    await observe(session, box, GONE)
    box.status = BoxStatus.ACTIVE
    box.health = {**box.health, "namespace_uid": "u2"}
    assert await observe(session, box, GONE) == [ChangeKind.MEMORY_LOST]


async def test_a_suspended_box_loses_its_memory_too_and_stays_suspended(session):
    box = await a_box(session, status=BoxStatus.SUSPENDED)
    assert await observe(session, box, GONE) == [ChangeKind.MEMORY_LOST]
    assert box.status is BoxStatus.SUSPENDED
    assert queries.memory_lost_at(box) is not None


async def test_a_box_that_never_answered_had_no_memory_to_lose(session):
    box = await a_box(session, status=BoxStatus.PROVISIONING, activated_at=None, health={})
    assert await observe(session, box, GONE) == []
    assert box.status is BoxStatus.PROVISIONING


@pytest.mark.parametrize("status", [BoxStatus.DESTROYING, BoxStatus.DESTROYED])
async def test_a_box_that_goes_away_misses_nothing(session, status):
    box = await a_box(session, status=status)
    assert await observe(session, box, GONE) == []


async def test_the_dying_pod_of_a_lost_namespace_does_not_heal_its_box(session):
    box = await a_box(session)
    await observe(session, box, GONE)
    assert await observe(session, box, sight()) == []
    assert box.status is BoxStatus.UNHEALTHY


async def test_the_third_missed_check_counts_and_asks_for_a_repair(session):
    box = await a_box(session)
    seen = sight(is_ready=False, reason="CrashLoopBackOff")
    assert await observe(session, box, seen) == []
    for _ in range(2):
        assert await observe(session, box, seen, is_strike=True) == []
    assert await observe(session, box, seen, is_strike=True) == [ChangeKind.UNHEALTHY]
    assert (box.status, box.status_reason) == (BoxStatus.UNHEALTHY, "CrashLoopBackOff")
    job = (await session.exec(select(OperatorJob))).one()
    assert job.job_type is JobType.PROVISION


async def test_one_good_check_between_starts_the_count_anew(session):
    box = await a_box(session)
    for seen in (EMPTY, EMPTY, sight(), EMPTY, EMPTY):
        await observe(session, box, seen, is_strike=True)
    assert box.status is BoxStatus.ACTIVE


async def test_a_good_check_heals_unless_a_job_is_at_it(session):
    box = await a_box(session, status=BoxStatus.UNHEALTHY)
    assert await observe(session, box, sight()) == [ChangeKind.RECOVERED]
    assert (box.status, box.status_reason) == (BoxStatus.ACTIVE, None)
    for _ in range(3):
        await observe(session, box, EMPTY, is_strike=True)
    assert await leases.claim_job(session, owner="a")
    assert await observe(session, box, sight()) == []
    assert box.status is BoxStatus.UNHEALTHY


async def test_trouble_with_telegram_is_named_without_blame_and_not_repaired(session):
    box = await a_box(session)
    for _ in range(3):
        await observe(session, box, sight(is_ready=False, failing=("telegram",)), is_strike=True)
    view = await view_of(session, box)
    said = f"{sentences.NO_TELEGRAM}; we are watching it."
    assert view.sentence == f"Not answering: {said}"
    assert {"may", "down"} <= set(said.split()), "in an outage it is not the token"
    assert [(link.name, link.is_ok) for link in view.links][1:3] == [
        ("gateway", True),
        ("telegram", False),
    ]
    assert await count(session, OperatorJob) == 0


async def test_many_failures_at_once_are_one_incident_without_repairs(session):
    boxes = [await a_box(session) for _ in range(6)]
    for box in boxes:
        for _ in range(3):
            await observe(session, box, EMPTY, is_strike=True)
    alerts = {alert.code for alert in (await session.exec(select(Alert))).all()}
    assert incidents.ALERT in alerts
    assert await count(session, OperatorJob) == incidents.MINIMUM - 1


async def test_a_lonely_failure_is_no_incident(session):
    box = await a_box(session, status=BoxStatus.UNHEALTHY)
    assert await incidents.is_incident(session, box.cluster) is False


async def test_what_is_ready_is_stamped_in_one_go(session):
    long_ago = now() - timedelta(hours=1)
    boxes = [await a_box(session, last_seen=long_ago) for _ in range(3)]
    assert await health.stamp_seen(session, [box.k8s_namespace for box in boxes[:2]]) == 2
    for box in boxes:
        await session.refresh(box)
    assert [box.last_seen > long_ago for box in boxes] == [True, True, False]


async def test_a_pod_that_is_not_ready_is_not_called_answering(session):
    box = await a_box(session)
    await observe(session, box, sight(is_ready=False))
    view = await view_of(session, box)
    assert view.sentence.startswith("Not ready at this moment")


@pytest.fixture
async def gateway():
    """Serve a gateway whose Telegram fails; yield its port and the credentials it was shown."""
    shown = []

    async def answer(request):
        shown.append(request.headers["authorization"])
        return web.json_response({"ready": False, "failing": ["telegram"]}, status=503)

    app = web.Application()
    app.router.add_get("/readyz", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1], shown
    await runner.cleanup()


def unready(box_id, address, **ports):
    """Return a pod that runs and is not ready, with its kubelet's note where its ports are."""
    notes = {REAL_PORTS: json.dumps(ports)} if ports else {}
    labels = {manifests.BOX_LABEL: str(box_id)}
    return replace(READY_POD, is_ready=False, address=address, labels=labels, annotations=notes)


async def test_a_pod_without_an_address_of_its_own_is_asked_where_its_kubelet_says(gateway):
    port, shown = gateway
    box_id = uuid4()
    pod = unready(box_id, "127.0.0.1", **{str(openclaw_config.PORT): port})
    assert await health.ask_gateway(pod) == ("telegram",)
    assert shown == [f"Bearer {service.gateway_token(box_id)}"]


async def test_a_token_is_shown_to_no_other_program_of_the_machine(gateway, monkeypatch):
    port, shown = gateway
    monkeypatch.setattr(openclaw_config, "PORT", port)  # somebody else listens there
    notes = ({}, {"80": port}, {str(port): "other"}, {str(port): None})
    for ports in notes:
        assert await health.ask_gateway(unready(uuid4(), "127.0.0.1", **ports)) == ()
    assert shown == []


async def test_no_note_leads_away_from_a_pod_with_an_address_of_its_own(monkeypatch):
    asked = []

    async def failing_parts(address, port, _token):
        asked.append((address, port))
        return ()

    monkeypatch.setattr(agent, "failing_parts", failing_parts)
    await health.ask_gateway(unready(uuid4(), "10.0.0.7", **{str(openclaw_config.PORT): 666}))
    assert asked == [("10.0.0.7", openclaw_config.PORT)]
