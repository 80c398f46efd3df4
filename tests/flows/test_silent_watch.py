"""A cluster that goes away is told with its cause, and what is heard of it again closes that."""

import asyncio
import contextlib
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest

from openclaw_web import worker as operator
from openclaw_web.boxes import checking, watching
from openclaw_web.core.clock import real_now
from openclaw_web.core.database import session_scope
from openclaw_web.integrations import cluster as adapter
from openclaw_web.jobs import queries
from tests.contracts.simulator_process import running
from tests.flows.box_world import eventually

pytestmark = [pytest.mark.usefixtures("database", "redis"), pytest.mark.slow]


@pytest.fixture
def later(monkeypatch):
    """Return a function that moves the real time of whoever judges the watch."""
    moved = timedelta()
    monkeypatch.setattr(checking, "real_now", lambda: real_now() + moved)
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + moved.total_seconds())
    monkeypatch.setattr(watching, "time", clock)

    def move(by):
        nonlocal moved
        moved += by

    return move


async def find_alert():
    async with session_scope() as session:
        return await queries.find_open_alert(session, code=queries.WATCH_SILENT, subject="default")


async def heard():
    async with session_scope() as session:
        return (await checking.read_switch(session, "watch_heard_default") or {}).get("heard_at")


async def test_a_cluster_that_goes_away_is_told_until_it_is_heard_again(
    tmp_path, monkeypatch, later
):
    monkeypatch.setattr(operator, "EVALUATE_SECONDS", 0.05)
    monkeypatch.setattr(adapter, "LONGEST_PAUSE_SECONDS", 0.2)
    kubeconfig, images = tmp_path / "kubeconfig", tmp_path / "images.json"
    images.write_text("{}", encoding="utf-8")
    arguments = ("--images", str(images), "--kubeconfig", str(kubeconfig))
    with running("kubernetes", tmp_path / "cluster", *arguments) as simulator:
        opened = await adapter.connect(str(kubeconfig))
        worker = operator.Worker(cluster=opened, cluster_name="default", home=tmp_path)
        watch = asyncio.create_task(worker.watch())
        try:
            await eventually(heard, seconds=60)
            simulator.stop()
            later(checking.SILENT_AFTER)
            await eventually(lambda: is_told(worker, "cannot be reached"), seconds=60)
            simulator._start()  # noqa: SLF001 - on the same port and state
            await eventually(lambda: is_none(find_alert()), seconds=60)
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            with contextlib.suppress(OSError):
                await opened.close()


async def is_told(worker, cause):
    await worker.check_health()
    alert = await find_alert()
    return alert is not None and cause in alert.detail["cause"]


async def is_none(look):
    return await look is None
