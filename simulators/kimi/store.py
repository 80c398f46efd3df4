"""What the Kimi simulator remembers: queued answers and who asked, never what was asked."""

import json
import sqlite3
from pathlib import Path
from typing import Any

REQUESTS_KEPT = 1000
SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY AUTOINCREMENT, spec TEXT NOT NULL, times INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS requests (id INTEGER PRIMARY KEY AUTOINCREMENT, record TEXT NOT NULL);
"""


class Store:
    """Every change is on disk before the call returns."""

    def __init__(self, folder: Path) -> None:
        path = folder / "kimi.sqlite3"
        path.touch(mode=0o600)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.executescript(SCHEMA)

    def add_answer(self, spec: str, times: int) -> None:
        self._db.execute("INSERT INTO answers (spec, times) VALUES (?, ?)", (spec, times))

    def take_answer(self) -> str | None:
        """Return the next answer's spec; an answer with `times` stays until it is used up."""
        row = self._db.execute("SELECT id, spec, times FROM answers ORDER BY id LIMIT 1").fetchone()
        if row is None:
            return None
        answer_id, spec, times = row
        if times > 1:
            self._db.execute("UPDATE answers SET times = times - 1 WHERE id = ?", (answer_id,))
        else:
            self._db.execute("DELETE FROM answers WHERE id = ?", (answer_id,))
        return str(spec)

    def count_answers(self) -> int:
        return int(self._db.execute("SELECT coalesce(sum(times), 0) FROM answers").fetchone()[0])

    def clear_answers(self) -> None:
        self._db.execute("DELETE FROM answers")

    def add_request(self, record: dict[str, Any]) -> None:
        cursor = self._db.execute("INSERT INTO requests (record) VALUES (?)", (json.dumps(record),))
        oldest = (cursor.lastrowid or 0) - REQUESTS_KEPT
        self._db.execute("DELETE FROM requests WHERE id <= ?", (oldest,))

    def count_requests(self) -> int:
        """Return how many requests came since the last clearing, also those no longer kept."""
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'requests'").fetchone()
        return int(row[0]) if row else 0

    def last_requests(self, limit: int) -> list[dict[str, Any]]:
        """Return the latest requests, newest first."""
        rows = self._db.execute(
            "SELECT id, record FROM requests ORDER BY id DESC LIMIT ?", (limit,)
        ).fetchall()
        return [{"number": number, **json.loads(record)} for number, record in rows]

    def clear_requests(self) -> None:
        self._db.execute("DELETE FROM requests")
        self._db.execute("DELETE FROM sqlite_sequence WHERE name = 'requests'")
