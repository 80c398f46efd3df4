"""The mails that came in, the latest few hundred, in one SQLite file."""

import json
import sqlite3
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MAILS_KEPT = 500
SCHEMA = """
CREATE TABLE IF NOT EXISTS mails (
    id INTEGER PRIMARY KEY AUTOINCREMENT, sender TEXT NOT NULL, recipients TEXT NOT NULL,
    subject TEXT NOT NULL, text TEXT NOT NULL, html TEXT NOT NULL, received_at TEXT NOT NULL);
"""


@dataclass(frozen=True, kw_only=True)
class Mail:
    """A mail as people read it; `recipients` are those of the envelope."""

    sender: str
    recipients: list[str]
    subject: str
    text: str
    html: str
    received_at: str
    id: int = 0

    def as_json(self) -> dict[str, Any]:
        body = asdict(self)
        return {"from": body.pop("sender"), "to": body.pop("recipients"), **body}


class Store:
    """Every change is on disk before the call returns."""

    def __init__(self, folder: Path) -> None:
        path = folder / "mail.sqlite3"
        path.touch(mode=0o600)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(SCHEMA)
        self._changes = 0

    @property
    def version(self) -> str:
        """Return a text that differs after every change."""
        row = self._db.execute("SELECT coalesce(max(id), 0) FROM mails").fetchone()
        return f"{row[0]}-{self._changes}"

    def add(self, mail: Mail) -> None:
        values = (mail.sender, json.dumps(mail.recipients), mail.subject, mail.text, mail.html)
        cursor = self._db.execute(
            "INSERT INTO mails (sender, recipients, subject, text, html, received_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (*values, mail.received_at),
        )
        oldest = (cursor.lastrowid or 0) - MAILS_KEPT
        self._db.execute("DELETE FROM mails WHERE id <= ?", (oldest,))
        self._changes += 1

    def mails(self, to: str = "") -> list[Mail]:
        """Return the mails, newest first; `to` is a part of a recipient's address."""
        rows = self._db.execute("SELECT * FROM mails ORDER BY id DESC")
        wanted = to.strip().lower()
        found = [_mail(row) for row in rows]
        return [
            one for one in found if any(wanted in address.lower() for address in one.recipients)
        ]

    def find(self, mail_id: int) -> Mail | None:
        row = self._db.execute("SELECT * FROM mails WHERE id = ?", (mail_id,)).fetchone()
        return _mail(row) if row else None

    def clear(self) -> None:
        self._db.execute("DELETE FROM mails")
        self._changes += 1


def _mail(row: sqlite3.Row) -> Mail:
    fields = dict(row)
    return Mail(**fields | {"recipients": json.loads(fields["recipients"])})
