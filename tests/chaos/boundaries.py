"""Where a job can be disturbed: each call of the cluster's API, and each write to the database.

The list is not written down: it is what an undisturbed run passes. Every run has its own list and
its own disturbance, so that many of them share one process, one database and one cluster.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio.session import AsyncSessionTransaction

from openclaw_web import worker as operator
from openclaw_web.integrations.cluster import Cluster
from openclaw_web.jobs import leases

# The process of a transaction that wrote something, else 0.
WRITER = sa.text(
    "SELECT CASE WHEN pg_current_xact_id_if_assigned() IS NULL THEN 0 ELSE pg_backend_pid() END"
)
PLUMBING = frozenset({"boundaries.py", "cluster.py", "database.py", "runs.py", "leases.py"})
BEFORE, AFTER = "before", "after"
READ = "GET"


@dataclass(frozen=True)
class Boundary:
    """One moment of a job: before or after a call, a commit, or a statement by itself."""

    when: str
    what: str
    is_call: bool
    is_statement: bool = False

    def __str__(self) -> str:
        return f"{self.when} {self.what}"

    @property
    def is_read(self) -> bool:
        return f" {READ} " in self.what


@dataclass
class Passage:
    """One run on its way: what it has passed, and what happens to it where."""

    disturb_at: Boundary | None = None
    disturb: Callable[["Passage"], Awaitable[None]] | None = None
    passed: list[Boundary] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    backend: int = 0  # the PostgreSQL process of the transaction at hand
    was_disturbed: bool = False

    async def come_to(self, boundary: Boundary) -> None:
        if boundary in self.passed:
            return
        self.passed.append(boundary)
        if boundary == self.disturb_at and self.disturb is not None:
            self.was_disturbed = True
            await self.disturb(self)

    def name(self, what: str) -> str:
        """Number what happens more than once; looks repeat while waiting and are one boundary."""
        again = sum(one.what.partition(" #")[0] == what for one in self.passed if one.when == AFTER)
        return what if f" {READ} " in what or not again else f"{what} #{again + 1}"


PASSAGE: ContextVar[Passage | None] = ContextVar("PASSAGE", default=None)


def watch_boundaries(monkeypatch: Any) -> None:
    """Have every run tell its passage where it is; runs without one are left alone."""

    async def beat_never(_claimed: Any, _doing: Any) -> None:
        await asyncio.Event().wait()  # the dead do not say that they live

    _watch_calls(monkeypatch)
    _watch_commits(monkeypatch)
    _watch_statements(monkeypatch)
    monkeypatch.setattr(operator, "_beat", beat_never)
    # Nobody's lease runs out by itself on a busy machine: time is moved by hand.
    monkeypatch.setattr(leases, "LEASE", timedelta(hours=1))


def _watch_calls(monkeypatch: Any) -> None:
    send = Cluster._send  # noqa: SLF001

    async def send_and_tell(self: Cluster, method: str, path: str, **options: Any) -> bytes:
        passage = PASSAGE.get()
        if passage is None:
            return await send(self, method, path, **options)
        passage.calls.append((method, path))
        what = passage.name(f"{_place()} {method} {_kind(path)}")
        await passage.come_to(Boundary(BEFORE, what, is_call=True))
        answer = await send(self, method, path, **options)
        if method != READ:  # a look changes nothing: after it is before what follows
            await passage.come_to(Boundary(AFTER, what, is_call=True))
        return answer

    monkeypatch.setattr(Cluster, "_send", send_and_tell)


def _watch_commits(monkeypatch: Any) -> None:
    commit = AsyncSessionTransaction.__aexit__

    async def commit_and_tell(self: Any, kind: Any, value: Any, traceback: Any) -> Any:
        passage = PASSAGE.get()
        if passage is None or kind is not None or self.nested:
            return await commit(self, kind, value, traceback)
        place = _place()
        backend = await self.session.scalar(WRITER)
        if not backend:
            return await commit(self, kind, value, traceback)
        what = passage.name(f"{place} commit")
        passage.backend = backend
        await passage.come_to(Boundary(BEFORE, what, is_call=False))
        answer = await commit(self, kind, value, traceback)
        passage.backend = 0
        await passage.come_to(Boundary(AFTER, what, is_call=False))
        return answer

    monkeypatch.setattr(AsyncSessionTransaction, "__aexit__", commit_and_tell)


def _watch_statements(monkeypatch: Any) -> None:
    """What is written outside any unit of work, by a statement that commits itself."""
    at_once = leases.at_once

    async def run_and_tell(statement: sa.Executable, values: Any) -> Any:
        passage = PASSAGE.get()
        if passage is None or not isinstance(statement, sa.Update):
            return await at_once(statement, values)
        what = passage.name(f"{_place()} line")
        await passage.come_to(Boundary(BEFORE, what, is_call=False, is_statement=True))
        answer = await at_once(statement, values)
        await passage.come_to(Boundary(AFTER, what, is_call=False, is_statement=True))
        return answer

    monkeypatch.setattr(leases, "at_once", run_and_tell)


def _place() -> str:
    """Return the module and the function of the product that is at work."""
    frame = sys._getframe(2)  # noqa: SLF001 - who called is what a boundary is named after
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.name not in PLUMBING and {"openclaw_web", "tests"} & set(path.parts):
            return f"{path.stem}.{frame.f_code.co_name}"
        frame = frame.f_back
    return "somewhere"


def _kind(path: str) -> str:
    """Return what kind of object an address names, without names: those differ every time."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if parts[0] == "namespaces" and len(parts) > 2:
        parts = parts[2:]
    return "/".join([parts[0], *parts[2:]])
