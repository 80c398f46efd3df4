"""What the cluster knows: objects in memory, written through to SQLite, with a history for watches.

A write is in SQLite's log before it is acknowledged, so killing the process loses nothing.
"""

import asyncio
import bisect
import sqlite3
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from simulators.kubernetes import trees
from simulators.kubernetes.errors import expired
from simulators.kubernetes.objects import Object, name_of, namespace_of
from simulators.kubernetes.resources import BY_QUALIFIED, Resource

HISTORY_LENGTH = 600  # changes kept of each kind at least; an older watch is told to list again
HISTORY_PER_OBJECT = 1  # more where there are many objects, so that a list of them can be followed
ADDED, MODIFIED, DELETED = "ADDED", "MODIFIED", "DELETED"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (kind, namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS revision (id INTEGER PRIMARY KEY CHECK (id = 1), value INTEGER NOT NULL);
INSERT OR IGNORE INTO revision VALUES (1, 1);
"""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One step of an object's life. `before` is what a selector may have matched until now."""

    revision: int
    kind: str
    resource: Resource
    obj: Object
    before: Object | None


@dataclass
class _History:
    floor: int
    changes: list[Change] = field(default_factory=list)
    bell: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, change: Change, *, longest: int) -> None:
        self.changes.append(change)
        if len(self.changes) > longest:
            kept = longest // 2
            self.floor = self.changes[-kept - 1].revision
            self.changes = self.changes[-kept:]
        self.ring()

    def forget(self, revision: int) -> None:
        self.floor, self.changes = revision, []
        self.ring()

    def ring(self) -> None:
        self.bell.set()
        self.bell = asyncio.Event()


class Store:
    """All objects by kind, namespace and name; every write gets the next revision."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.executescript(_SCHEMA)
        # by kind, namespace and name: with thousands of namespaces, nothing may look at all of them
        self._objects: dict[str, dict[str, dict[str, Object]]] = {
            kind: defaultdict(dict) for kind in BY_QUALIFIED
        }
        self._counts = dict.fromkeys(BY_QUALIFIED, 0)
        self._owned: dict[str, dict[tuple[str, str, str], None]] = {}
        self._listeners: list[Callable[[Change], None]] = []
        self.is_closing = False
        self.cuts = 0  # how often all watches were cut; each notices by comparing
        (self.revision,) = self._database.execute("SELECT value FROM revision").fetchone()
        self._history = {kind: _History(self.revision) for kind in BY_QUALIFIED}
        for kind, namespace, name, body in self._database.execute("SELECT * FROM objects"):
            if kind in BY_QUALIFIED:
                one = trees.with_shared_parts(orjson.loads(body))
                self._keep(BY_QUALIFIED[kind], (namespace, name), one)

    def end_watches(self) -> None:
        self.is_closing = True
        for history in self._history.values():
            history.ring()

    def cut_watches(self) -> None:
        """End the watches that are open; new ones are welcome."""
        self.cuts += 1
        for history in self._history.values():
            history.ring()

    def close(self) -> None:
        self._database.close()

    def listen(self, listener: Callable[[Change], None]) -> None:
        """Call `listener` after each write; it must be quick and must not write itself."""
        self._listeners.append(listener)

    def find(self, resource: Resource, namespace: str, name: str) -> Object | None:
        inside = self._objects[resource.qualified].get(namespace)
        return None if inside is None else inside.get(name)

    def objects(self, resource: Resource, namespace: str = "") -> list[Object]:
        found = self._objects[resource.qualified]
        if namespace:
            return list(found.get(namespace, {}).values())
        return [one for inside in found.values() for one in inside.values()]

    def count(self, resource: Resource) -> int:
        return self._counts[resource.qualified]

    def everything(self) -> list[tuple[Resource, Object]]:
        return [
            (resource, one) for resource in BY_QUALIFIED.values() for one in self.objects(resource)
        ]

    def owned_by(self, uid: str) -> list[tuple[Resource, Object]]:
        """Return the objects that name this one among their owners."""
        return [
            (BY_QUALIFIED[kind], self._objects[kind][namespace][name])
            for kind, namespace, name in self._owned.get(uid, ())
        ]

    def forget_history(self) -> None:
        """Compact: every watch and list from before now is told that it is too old."""
        for history in self._history.values():
            history.forget(self.revision)

    def write(self, resource: Resource, one: Object) -> Object:
        """Keep this version of the object, and return it with its new revision."""
        revision = self.revision + 1
        metadata = {**one["metadata"], "resourceVersion": str(revision)}
        written = trees.with_shared_parts({**one, "metadata": metadata})
        key = (namespace_of(one), name_of(one))
        with self._transaction(revision):
            self._database.execute(
                "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?)",
                (resource.qualified, *key, orjson.dumps(written)),
            )
        before = self.find(resource, *key)
        self._keep(resource, key, written)
        self._announce(ADDED if before is None else MODIFIED, resource, written, before)
        return written

    def remove(self, resource: Resource, namespace: str, name: str) -> Object | None:
        before = self.find(resource, namespace, name)
        if before is None:
            return None
        revision = self.revision + 1
        with self._transaction(revision):
            self._database.execute(
                "DELETE FROM objects WHERE kind = ? AND namespace = ? AND name = ?",
                (resource.qualified, namespace, name),
            )
        self._drop(resource, (namespace, name))
        metadata = {**before["metadata"], "resourceVersion": str(revision)}
        self._announce(DELETED, resource, {**before, "metadata": metadata}, before)
        return before

    def _keep(self, resource: Resource, key: tuple[str, str], one: Object) -> None:
        if self.find(resource, *key) is None:
            self._counts[resource.qualified] += 1
        else:
            self._disown(resource, key)
        self._objects[resource.qualified][key[0]][key[1]] = one
        for owner in one["metadata"].get("ownerReferences") or ():
            self._owned.setdefault(owner["uid"], {})[resource.qualified, *key] = None

    def _drop(self, resource: Resource, key: tuple[str, str]) -> None:
        self._disown(resource, key)
        inside = self._objects[resource.qualified][key[0]]
        del inside[key[1]]
        if not inside:
            del self._objects[resource.qualified][key[0]]
        self._counts[resource.qualified] -= 1

    def _disown(self, resource: Resource, key: tuple[str, str]) -> None:
        one = self._objects[resource.qualified][key[0]][key[1]]
        for owner in one["metadata"].get("ownerReferences") or ():
            known = self._owned.get(owner["uid"], {})
            known.pop((resource.qualified, *key), None)
            if not known:
                self._owned.pop(owner["uid"], None)

    def since(self, resource: Resource, revision: int) -> list[Change]:
        """Return this kind's changes after `revision`.

        Raises:
            ApiError: 410, the revision is older than the history, or not of this cluster.
        """
        history = self._history[resource.qualified]
        if revision < history.floor or revision > self.revision:
            raise expired(f"too old resource version: {revision} ({history.floor})")
        start = bisect.bisect_right(history.changes, revision, key=lambda one: one.revision)
        return history.changes[start:]

    def bell(self, resource: Resource) -> asyncio.Event:
        """Return the event that the next change of this kind sets."""
        return self._history[resource.qualified].bell

    def _transaction(self, revision: int) -> "_Transaction":
        return _Transaction(self._database, revision)

    def _announce(self, kind: str, resource: Resource, one: Object, before: Object | None) -> None:
        self.revision = int(one["metadata"]["resourceVersion"])
        change = Change(
            revision=self.revision, kind=kind, resource=resource, obj=one, before=before
        )
        longest = max(HISTORY_LENGTH, HISTORY_PER_OBJECT * self._counts[resource.qualified])
        self._history[resource.qualified].add(change, longest=longest)
        for listener in self._listeners:
            listener(change)


@dataclass(frozen=True)
class _Transaction:
    """Write an object and the revision together, or neither."""

    database: sqlite3.Connection
    revision: int

    def __enter__(self) -> None:
        self.database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.database.execute("UPDATE revision SET value = ?", (self.revision,))
        self.database.execute("COMMIT" if kind is None else "ROLLBACK")
