"""Killing a process between two of its steps, as SIGKILL does: nothing that it holds is tidied up.

A step is a write to the database that is committed, or a call that changed something at a vendor.
The one that is to be the last never returns: the task is left where it stands, its database
connections are cut, and whoever goes on is somebody else.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio.session import AsyncSessionTransaction

from openclaw_web import worker as operator
from openclaw_web.core.database import engines, open_database
from openclaw_web.integrations import payment_client
from openclaw_web.integrations.cluster import Cluster
from openclaw_web.jobs import leases

WROTE = sa.text("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
CUT_OFF = """SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()"""
PLACES = ("openclaw_web", "tests")
SKIPPED = frozenset({"database.py", "killing.py"})


class Deathbed:
    """Counts the steps of a story, and lets a process die right after one of them."""

    def __init__(self, database_url: str) -> None:
        self.seen: list[str] = []
        self.last_step = ""
        self.resume = asyncio.Event()
        self._url = database_url
        self._died = asyncio.Event()
        self._left: list[tuple[asyncio.Task[Any], Any]] = []

    async def step(self, name: str) -> None:
        if name in self.seen:
            return
        self.seen.append(name)
        if name == self.last_step:
            self._died.set()
            await self.resume.wait()

    async def run(self, story: Callable[[], Awaitable[Any]]) -> asyncio.Task[Any]:
        """Run a story to its end, or to the step after which nothing happens any more."""
        task = asyncio.ensure_future(story())
        died = asyncio.ensure_future(self._died.wait())
        await asyncio.wait({task, died}, return_when=asyncio.FIRST_COMPLETED, timeout=60)
        died.cancel()
        assert task.done() or self._died.is_set(), "The story neither ended nor came to its step."
        return task

    async def kill(self, story: Callable[[], Awaitable[Any]], *, after: str) -> None:
        """Run a story until a step, then take its process away; a new one may begin."""
        self.last_step = after
        task = await self.run(story)
        assert not task.done(), f"The story has no step {after!r}: {self.seen}"
        self._left.append((task, engines()))
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(CUT_OFF)
        open_database(self._url)

    async def bury(self) -> None:
        for task, old in self._left:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for engine in old:
                await engine.dispose()


def watch_steps(monkeypatch: Any, bed: Deathbed) -> None:
    """Have every step of this process told to the deathbed."""

    async def beat_never(_claimed, _doing):
        await asyncio.Event().wait()  # the dead do not say that they live

    _watch_writes(monkeypatch, bed)
    _watch_vendors(monkeypatch, bed)
    monkeypatch.setattr(operator, "_beat", beat_never)


def _watch_writes(monkeypatch: Any, bed: Deathbed) -> None:
    commit, at_once = AsyncSessionTransaction.__aexit__, leases.at_once

    async def commit_and_tell(self, kind, value, traceback):
        name = _place() if kind is None and not self.nested else ""
        has_written = bool(name) and await self.session.scalar(WROTE)
        answer = await commit(self, kind, value, traceback)
        if has_written:
            await bed.step(name)
        return answer

    async def run_and_tell(statement, values):
        answer = await at_once(statement, values)
        if isinstance(statement, sa.Update):
            await bed.step(_place())
        return answer

    monkeypatch.setattr(AsyncSessionTransaction, "__aexit__", commit_and_tell)
    monkeypatch.setattr(leases, "at_once", run_and_tell)


def _watch_vendors(monkeypatch: Any, bed: Deathbed) -> None:
    send, apply, create = (
        payment_client._Http.request_async,  # noqa: SLF001 - the one place all calls pass
        Cluster.apply,
        Cluster.create,
    )

    async def send_and_tell(self, method, url, headers, post_data=None):
        answer = await send(self, method, url, headers, post_data)
        if method.upper() != "GET":
            await bed.step(f"stripe {method.upper()} {_path(url)}")
        return answer

    async def apply_and_tell(self, manifest):
        answer = await apply(self, manifest)
        await bed.step(f"cluster {manifest['kind']}")
        return answer

    async def create_and_tell(self, manifest):
        answer = await create(self, manifest)
        await bed.step(f"cluster new {manifest['kind']}")
        return answer

    monkeypatch.setattr(payment_client._Http, "request_async", send_and_tell)  # noqa: SLF001
    monkeypatch.setattr(Cluster, "apply", apply_and_tell)
    monkeypatch.setattr(Cluster, "create", create_and_tell)


def _place() -> str:
    """Return the module and the function whose transaction this is."""
    frame = sys._getframe(2)  # noqa: SLF001 - who called is what a step is named after
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.name not in SKIPPED and any(place in path.parts for place in PLACES):
            return f"{path.stem}.{frame.f_code.co_name}"
        frame = frame.f_back
    return "somewhere"


def _path(url: str) -> str:
    """Return an address without its ids, which differ from run to run."""
    _, _, path = url.partition("/v1/")
    return "/".join(part for part in path.split("/") if "_" not in part)
