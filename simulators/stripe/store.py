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

    def every(self, kind: str, customer: str | None = None) -> Iterator[Json]:
        """Walk all objects of a kind, newest first, a few in memory at a time."""
        below = NEWEST
        while True:
            rows = self.sql.execute(
                "SELECT seq, body FROM objects WHERE object = ? AND seq < ?"
                " AND (? IS NULL OR customer = ?) ORDER BY seq DESC LIMIT ?",
                (kind, below, customer, customer, BATCH),
            ).fetchall()
            for row in rows:
                yield json.loads(row["body"])
            if len(rows) < BATCH:
                return
            below = rows[-1]["seq"]

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
