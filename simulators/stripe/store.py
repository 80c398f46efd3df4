"""Everything the simulator remembers, in one SQLite file that survives a kill.

Objects are kept as Stripe shows them. Keys that begin with an underscore are our own notes and
never leave (`public`).
"""

import json
import os
import sqlite3
import string
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Json = dict[str, Any]

BATCH = 100
NEWEST = 2**62
VERSION = 1  # of the tables; an older file is brought up to it when it is opened
ALPHABET = string.ascii_letters + string.digits
AS_ALPHABET = bytes(ord(ALPHABET[byte % len(ALPHABET)]) for byte in range(256))
GLOBAL = ""  # the timeline of everybody who is on no test clock
OBJECTS = """
CREATE TABLE IF NOT EXISTS objects (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, object TEXT NOT NULL,
  customer TEXT, due_at INTEGER, body TEXT NOT NULL);
"""
COLUMNS = """
ALTER TABLE objects ADD COLUMN parent TEXT;
ALTER TABLE objects ADD COLUMN clock TEXT NOT NULL DEFAULT '';
"""
TABLES = """
CREATE INDEX IF NOT EXISTS objects_kind ON objects (object, seq);
CREATE INDEX IF NOT EXISTS objects_customer ON objects (customer, object, seq);
CREATE INDEX IF NOT EXISTS objects_parent ON objects (parent, object, seq)
  WHERE parent IS NOT NULL;
CREATE INDEX IF NOT EXISTS objects_clock ON objects (clock, due_at, seq) WHERE due_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS answers (
  key TEXT PRIMARY KEY, path TEXT NOT NULL, digest TEXT NOT NULL, status INTEGER NOT NULL,
  body TEXT NOT NULL, request_id TEXT NOT NULL, created INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS answers_created ON answers (created);
CREATE TABLE IF NOT EXISTS deliveries (
  id INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL, endpoint TEXT NOT NULL,
  type TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
  due REAL NOT NULL, outcome TEXT NOT NULL DEFAULT '', finished REAL);
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (state, due);
CREATE INDEX IF NOT EXISTS deliveries_event ON deliveries (event);
"""


def new_id(prefix: str, length: int = 24) -> str:
    """Return an id that nobody can guess."""
    return f"{prefix}_{os.urandom(length).translate(AS_ALPHABET).decode()}"


def public(value: Any) -> Any:
    """Return a copy without our own notes."""
    if isinstance(value, dict):
        return {key: public(inner) for key, inner in value.items() if key[:1] != "_"}
    if isinstance(value, list):
        return [public(inner) for inner in value]
    return value


def as_shown(stored: Json) -> Json:
    """Return a stored object without our own notes, which it has at its top only."""
    return {key: value for key, value in stored.items() if key[:1] != "_"}


def _subscription_of(stored: Json) -> str | None:
    parent = stored.get("parent") or {}
    return (parent.get("subscription_details") or {}).get("subscription")


def _invoice_or_subscription(item: Json) -> str | None:
    return item["invoice"] or _subscription_of(item)


PARENTS: dict[str, Callable[[Json], str | None]] = {
    "invoice": _subscription_of,
    "invoiceitem": _invoice_or_subscription,
    "invoice_payment": lambda stored: stored["invoice"],
    "refund": lambda stored: stored["charge"],
    "dispute": lambda stored: stored["charge"],
    "radar.early_fraud_warning": lambda stored: stored["charge"],
    "promotion_code": lambda stored: stored["code"].lower(),
    "price": lambda stored: stored["product"],
    "test_helpers.test_clock": lambda stored: stored.get("status"),
}


class Store:
    """Objects by id, small settings, remembered answers and webhook deliveries.

    `due_at` says when the passing of time will change an object by itself. An object lives on the
    timeline of its test clock, or else on the global one.
    """

    def __init__(self, path: Path, due_at: Callable[[Json], int | None]) -> None:
        path.touch(mode=0o600)
        self._due_at = due_at
        self.sql = sqlite3.connect(path, isolation_level=None)
        self.sql.row_factory = sqlite3.Row
        self.sql.execute("PRAGMA journal_mode = WAL")
        self.sql.execute("PRAGMA synchronous = NORMAL")  # survives our death, not a power cut
        self._depth = 0
        self._make_tables()

    def _make_tables(self) -> None:
        (version,) = self.sql.execute("PRAGMA user_version").fetchone()
        self.sql.executescript(OBJECTS)
        if version < VERSION:
            self.sql.executescript(COLUMNS)
        self.sql.executescript(TABLES)
        if version < VERSION:
            with self.transaction():
                for row in self.sql.execute("SELECT body FROM objects").fetchall():
                    self.put(json.loads(row["body"]))  # writes the new columns
                self.sql.execute(f"PRAGMA user_version = {VERSION}")

    def close(self) -> None:
        self.sql.close()

    @contextmanager
    def transaction(self) -> Generator[None]:
        """All or nothing; an inner transaction belongs to the outer one."""
        if self._depth == 0:
            self.sql.execute("BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
        except BaseException:
            if self._depth == 1:
                self.sql.execute("ROLLBACK")
            raise
        else:
            if self._depth == 1:
                self.sql.execute("COMMIT")
        finally:
            self._depth -= 1

    def get(self, identifier: str, kind: str | None = None) -> Json | None:
        row = self.sql.execute("SELECT body FROM objects WHERE id = ?", (identifier,)).fetchone()
        found = json.loads(row["body"]) if row else None
        return found if found and kind in {None, found["object"]} else None

    def put(self, stored: Json) -> Json:
        customer = stored.get("customer")
        parent = None if stored.get("deleted") else PARENTS.get(stored["object"])
        clock = stored.get("test_clock")
        self.sql.execute(
            "INSERT INTO objects (id, object, customer, due_at, body, parent, clock)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
            " customer = excluded.customer, due_at = excluded.due_at, body = excluded.body,"
            " parent = excluded.parent, clock = excluded.clock",
            (
                stored["id"],
                stored["object"],
                customer if isinstance(customer, str) else None,
                self._due_at(stored),
                json.dumps(stored, separators=(",", ":"), check_circular=False),
                parent(stored) if parent else None,
                clock if isinstance(clock, str) else GLOBAL,
            ),
        )
        return stored

    def remove(self, identifier: str) -> None:
        self.sql.execute("DELETE FROM objects WHERE id = ?", (identifier,))

    def every(
        self, kind: str, customer: str | None = None, *, parent: str | None = None
    ) -> "Shelf":
        return Shelf(self.sql, kind, customer=customer, parent=parent)

    def next_due(self, clock: str = GLOBAL) -> tuple[int, Json] | None:
        """Return the earliest moment at which an object changes by itself, and that object."""
        row = self.sql.execute(
            "SELECT due_at, body FROM objects WHERE due_at IS NOT NULL AND clock = ?"
            " ORDER BY due_at, seq LIMIT 1",
            (clock,),
        ).fetchone()
        return (row["due_at"], json.loads(row["body"])) if row else None

    def setting(self, name: str, default: Any) -> Any:
        row = self.sql.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return json.loads(row["value"]) if row else default

    def set_setting(self, name: str, value: Any) -> None:
        self.sql.execute(
            "INSERT INTO settings VALUES (?, ?)"
            " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name, json.dumps(value)),
        )


class Shelf:
    """All objects of a kind, perhaps of one customer or parent, a few in memory at a time."""

    def __init__(
        self, sql: sqlite3.Connection, kind: str, *, customer: str | None, parent: str | None
    ) -> None:
        self._sql = sql
        self._known = {"object": kind, "customer": customer, "parent": parent}
        self._where = " AND ".join(
            f"{name} = :{name}" for name, value in self._known.items() if value is not None
        )

    def __iter__(self) -> Iterator[Json]:
        """Walk from the newest to the oldest."""
        return self._walk(NEWEST, "<", "DESC")

    def older_than(self, identifier: str) -> Iterator[Json] | None:
        """Walk from the next older one on; None when the id names nothing here."""
        at = self._place(identifier)
        return None if at is None else self._walk(at, "<", "DESC")

    def newer_than(self, identifier: str) -> Iterator[Json] | None:
        """Walk towards the newest; None when the id names nothing here."""
        at = self._place(identifier)
        return None if at is None else self._walk(at, ">", "ASC")

    def _place(self, identifier: str) -> int | None:
        row = self._sql.execute(
            "SELECT seq FROM objects WHERE id = ? AND object = ?",
            (identifier, self._known["object"]),
        ).fetchone()
        return row["seq"] if row else None

    def _walk(self, start: int, side: str, order: str) -> Iterator[Json]:
        query = (
            "SELECT seq, body FROM objects WHERE"  # noqa: S608 - our own words only
            f" {self._where} AND seq {side} :seq ORDER BY seq {order} LIMIT {BATCH}"
        )
        while True:
            rows = self._sql.execute(query, {**self._known, "seq": start}).fetchall()
            for row in rows:
                yield json.loads(row["body"])
            if len(rows) < BATCH:
                return
            start = rows[-1]["seq"]
