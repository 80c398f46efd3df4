"""Everything the simulator remembers, in one SQLite file that survives a kill.

Objects are kept as Stripe shows them. Keys that begin with an underscore are our own notes and
never leave (`public`).
"""

import json
import secrets
import sqlite3
import string
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Json = dict[str, Any]

BATCH = 100
NEWEST = 2**62
ALPHABET = string.ascii_letters + string.digits
TABLES = """
CREATE TABLE IF NOT EXISTS objects (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, object TEXT NOT NULL,
  customer TEXT, due_at INTEGER, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS objects_kind ON objects (object, seq);
CREATE INDEX IF NOT EXISTS objects_customer ON objects (customer, object, seq);
CREATE INDEX IF NOT EXISTS objects_due ON objects (due_at, seq) WHERE due_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS answers (
  key TEXT PRIMARY KEY, path TEXT NOT NULL, digest TEXT NOT NULL, status INTEGER NOT NULL,
  body TEXT NOT NULL, request_id TEXT NOT NULL, created INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS deliveries (
  id INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL, endpoint TEXT NOT NULL,
  type TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
  due REAL NOT NULL, outcome TEXT NOT NULL DEFAULT '', finished REAL);
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (state, due);
CREATE INDEX IF NOT EXISTS deliveries_event ON deliveries (event);
"""


def new_id(prefix: str, length: int = 24) -> str:
    return f"{prefix}_" + "".join(secrets.choice(ALPHABET) for _ in range(length))


def public(value: Any) -> Any:
    """Return a copy without our own notes."""
    if isinstance(value, dict):
        return {key: public(inner) for key, inner in value.items() if not key.startswith("_")}
    if isinstance(value, list):
        return [public(inner) for inner in value]
    return value


class Store:
    """Objects by id, small settings, remembered answers and webhook deliveries.

    `due_at` says when the passing of time will change an object by itself.
    """

    def __init__(self, path: Path, due_at: Callable[[Json], int | None]) -> None:
        path.touch(mode=0o600)
        self._due_at = due_at
        self.sql = sqlite3.connect(path, isolation_level=None)
        self.sql.row_factory = sqlite3.Row
        self.sql.execute("PRAGMA journal_mode = WAL")
        self.sql.execute("PRAGMA synchronous = NORMAL")  # survives our death, not a power cut
        self.sql.executescript(TABLES)
        self._depth = 0

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
        row = self.sql.execute(
            "SELECT body FROM objects WHERE id = ? AND object = coalesce(?, object)",
            (identifier, kind),
        ).fetchone()
        return json.loads(row["body"]) if row else None

    def put(self, stored: Json) -> Json:
        customer = stored.get("customer")
        self.sql.execute(
            "INSERT INTO objects (id, object, customer, due_at, body) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET customer = excluded.customer,"
            " due_at = excluded.due_at, body = excluded.body",
            (
                stored["id"],
                stored["object"],
                customer if isinstance(customer, str) else None,
                self._due_at(stored),
                json.dumps(stored, separators=(",", ":")),
            ),
        )
        return stored

    def remove(self, identifier: str) -> None:
        self.sql.execute("DELETE FROM objects WHERE id = ?", (identifier,))

    def every(self, kind: str, customer: str | None = None) -> "Shelf":
        return Shelf(self.sql, kind, customer)

    def next_due(self) -> tuple[int, Json] | None:
        """Return the earliest moment at which an object changes by itself, and that object."""
        row = self.sql.execute(
            "SELECT due_at, body FROM objects WHERE due_at IS NOT NULL ORDER BY due_at, seq LIMIT 1"
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
    """All objects of a kind, perhaps of one customer, a few in memory at a time."""

    def __init__(self, sql: sqlite3.Connection, kind: str, customer: str | None) -> None:
        self._sql = sql
        self._kind = kind
        self._customer = customer

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
            "SELECT seq FROM objects WHERE id = ? AND object = ?", (identifier, self._kind)
        ).fetchone()
        return row["seq"] if row else None

    def _walk(self, start: int, side: str, order: str) -> Iterator[Json]:
        of_customer = "AND customer = :customer" if self._customer else ""
        query = (
            "SELECT seq, body FROM objects WHERE object = :kind"  # noqa: S608 - our own words only
            f" {of_customer} AND seq {side} :seq ORDER BY seq {order} LIMIT :batch"
        )
        known = {"kind": self._kind, "customer": self._customer, "batch": BATCH}
        while True:
            rows = self._sql.execute(query, {**known, "seq": start}).fetchall()
            for row in rows:
                yield json.loads(row["body"])
            if len(rows) < BATCH:
                return
            start = rows[-1]["seq"]
