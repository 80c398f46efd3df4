"""What Telegram remembers: people, bots, chats, messages and updates, in one SQLite file."""

import json
import secrets
import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BOTFATHER_ID = 93372553
DEFAULT_PERSON = (111222333, "Alex")
FIRST_PERSON_ID, LAST_PERSON_ID = 100_000_000, 7_999_999_999
FIRST_BOT_ID, LAST_BOT_ID = 7_000_000_000, 8_999_999_999
TOKEN_SECRET_LENGTH = 35
MESSAGES_SHOWN = 300

SCHEMA = """
CREATE TABLE IF NOT EXISTS people (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS bots (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, username TEXT NOT NULL UNIQUE COLLATE NOCASE,
    token TEXT NOT NULL UNIQUE, owner_id INTEGER, settings TEXT NOT NULL DEFAULT '{}');
CREATE TABLE IF NOT EXISTS chats (
    person_id INTEGER NOT NULL, bot_id INTEGER NOT NULL, is_blocked INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (person_id, bot_id));
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, person_id INTEGER NOT NULL, bot_id INTEGER NOT NULL,
    is_from_bot INTEGER NOT NULL, text TEXT NOT NULL, entities TEXT NOT NULL, reply_markup TEXT,
    sent_at INTEGER NOT NULL, edited_at INTEGER);
CREATE INDEX IF NOT EXISTS messages_of_chat ON messages (person_id, bot_id, id);
CREATE TABLE IF NOT EXISTS updates (
    id INTEGER PRIMARY KEY AUTOINCREMENT, bot_id INTEGER NOT NULL, payload TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS dialogues (
    person_id INTEGER PRIMARY KEY, step TEXT NOT NULL, draft TEXT NOT NULL);
"""


@dataclass(frozen=True, kw_only=True)
class Person:
    id: int
    name: str

    def as_user(self) -> dict[str, Any]:
        """Return Telegram's User object."""
        first, _, last = self.name.partition(" ")
        named = {"first_name": first} | ({"last_name": last} if last else {})
        return {"id": self.id, "is_bot": False, **named, "language_code": "en"}

    def as_chat(self) -> dict[str, Any]:
        """Return Telegram's Chat object of the private chat with this person."""
        first, _, last = self.name.partition(" ")
        named = {"first_name": first} | ({"last_name": last} if last else {})
        return {"id": self.id, **named, "type": "private"}


@dataclass(frozen=True, kw_only=True)
class Bot:
    id: int
    name: str
    username: str
    token: str
    owner_id: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def is_official(self) -> bool:
        return self.id == BOTFATHER_ID

    def as_user(self) -> dict[str, Any]:
        """Return Telegram's User object."""
        return {
            "id": self.id,
            "is_bot": True,
            "first_name": self.name,
            "username": self.username,
        }


@dataclass(frozen=True, kw_only=True)
class Content:
    """A message's words, where they are formatted, and the buttons under them."""

    text: str
    entities: list[dict[str, Any]] = field(default_factory=list)
    reply_markup: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class ChatMessage:
    id: int
    person_id: int
    bot_id: int
    is_from_bot: bool
    content: Content
    sent_at: int
    edited_at: int | None


class Store:
    """Every change is on disk before the call returns."""

    def __init__(self, folder: Path) -> None:
        path = folder / "telegram.sqlite3"
        path.touch(mode=0o600)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(SCHEMA)
        self._db.execute("INSERT OR IGNORE INTO people VALUES (?, ?)", DEFAULT_PERSON)
        self._db.execute(
            "INSERT OR IGNORE INTO bots (id, name, username, token) VALUES (?, ?, ?, ?)",
            (BOTFATHER_ID, "BotFather", "BotFather", _new_token(BOTFATHER_ID)),
        )

    # People

    def people(self) -> list[Person]:
        return [Person(**row) for row in self._db.execute("SELECT * FROM people ORDER BY rowid")]

    def find_person(self, person_id: int) -> Person | None:
        row = self._row("SELECT * FROM people WHERE id = ?", person_id)
        return Person(**row) if row else None

    def add_person(self, name: str, person_id: int | None = None) -> Person:
        if person_id is None:
            person_id = _random_between(FIRST_PERSON_ID, LAST_PERSON_ID)
        self._db.execute("INSERT OR IGNORE INTO people VALUES (?, ?)", (person_id, name))
        return Person(id=person_id, name=name)

    # Bots

    def bots(self) -> list[Bot]:
        return [_bot(row) for row in self._db.execute("SELECT * FROM bots ORDER BY rowid")]

    def bots_of(self, owner_id: int) -> list[Bot]:
        rows = self._db.execute("SELECT * FROM bots WHERE owner_id = ? ORDER BY rowid", (owner_id,))
        return [_bot(row) for row in rows]

    def find_bot(self, bot_id: int) -> Bot | None:
        row = self._row("SELECT * FROM bots WHERE id = ?", bot_id)
        return _bot(row) if row else None

    def find_bot_by_username(self, username: str) -> Bot | None:
        row = self._row("SELECT * FROM bots WHERE username = ?", username.removeprefix("@"))
        return _bot(row) if row else None

    def find_bot_by_token(self, token: str) -> Bot | None:
        row = self._row("SELECT * FROM bots WHERE token = ?", token)
        return _bot(row) if row else None

    def add_bot(self, name: str, username: str, owner_id: int | None) -> Bot:
        """Make a bot with a fresh token; the caller has checked that the username is free."""
        bot_id = _random_between(FIRST_BOT_ID, LAST_BOT_ID)
        token = _new_token(bot_id)
        self._db.execute(
            "INSERT INTO bots (id, name, username, token, owner_id) VALUES (?, ?, ?, ?, ?)",
            (bot_id, name, username, token, owner_id),
        )
        return Bot(id=bot_id, name=name, username=username, token=token, owner_id=owner_id)

    def replace_token(self, bot_id: int) -> str:
        token = _new_token(bot_id)
        self._db.execute("UPDATE bots SET token = ? WHERE id = ?", (token, bot_id))
        return token

    def rename_bot(self, bot_id: int, name: str) -> None:
        self._db.execute("UPDATE bots SET name = ? WHERE id = ?", (name, bot_id))

    def change_settings(self, bot: Bot, **changes: Any) -> None:
        """Keep the given settings; None forgets one."""
        kept = {key: value for key, value in (bot.settings | changes).items() if value is not None}
        self._db.execute("UPDATE bots SET settings = ? WHERE id = ?", (json.dumps(kept), bot.id))

    def delete_bot(self, bot_id: int) -> None:
        self._db.execute("DELETE FROM bots WHERE id = ?", (bot_id,))
        self._db.execute("DELETE FROM updates WHERE bot_id = ?", (bot_id,))
        self._db.execute("DELETE FROM chats WHERE bot_id = ?", (bot_id,))
        self._db.execute("DELETE FROM messages WHERE bot_id = ?", (bot_id,))

    # Chats and messages

    def start_chat(self, person_id: int, bot_id: int) -> None:
        self._db.execute(
            "INSERT INTO chats (person_id, bot_id) VALUES (?, ?)"
            " ON CONFLICT DO UPDATE SET is_blocked = 0",
            (person_id, bot_id),
        )

    def block_chat(self, person_id: int, bot_id: int) -> None:
        self._db.execute(
            "UPDATE chats SET is_blocked = 1 WHERE person_id = ? AND bot_id = ?",
            (person_id, bot_id),
        )

    def chat_state(self, person_id: int, bot_id: int) -> str:
        """Return "new", "started" or "blocked"."""
        row = self._row(
            "SELECT is_blocked FROM chats WHERE person_id = ? AND bot_id = ?", person_id, bot_id
        )
        if row is None:
            return "new"
        return "blocked" if row["is_blocked"] else "started"

    def chats_of(self, person_id: int) -> list[tuple[Bot, ChatMessage | None]]:
        """Return the person's bots with the last message of each, the latest first."""
        rows = self._db.execute(
            "SELECT bots.*, (SELECT max(id) FROM messages WHERE messages.person_id ="
            " chats.person_id AND messages.bot_id = chats.bot_id) AS last_id"
            " FROM chats JOIN bots ON bots.id = chats.bot_id WHERE person_id = ?"
            " ORDER BY last_id DESC",
            (person_id,),
        )
        return [(_bot(row), self.find_message(row["last_id"])) for row in rows.fetchall()]

    def messages(self, person_id: int, bot_id: int) -> list[ChatMessage]:
        """Return the chat's latest messages, oldest first."""
        rows = self._db.execute(
            "SELECT * FROM messages WHERE person_id = ? AND bot_id = ? ORDER BY id DESC LIMIT ?",
            (person_id, bot_id, MESSAGES_SHOWN),
        )
        return [_message(row) for row in reversed(rows.fetchall())]

    def find_message(self, message_id: int | None) -> ChatMessage | None:
        row = self._row("SELECT * FROM messages WHERE id = ?", message_id)
        return _message(row) if row else None

    def add_message(
        self, person_id: int, bot_id: int, content: Content, *, is_from_bot: bool
    ) -> ChatMessage:
        sent_at = int(time.time())
        markup = json.dumps(content.reply_markup) if content.reply_markup else None
        values = (person_id, bot_id, is_from_bot, content.text)
        cursor = self._db.execute(
            "INSERT INTO messages (person_id, bot_id, is_from_bot, text, entities, reply_markup,"
            " sent_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*values, json.dumps(content.entities), markup, sent_at),
        )
        return ChatMessage(
            id=cursor.lastrowid or 0,
            person_id=person_id,
            bot_id=bot_id,
            is_from_bot=is_from_bot,
            content=content,
            sent_at=sent_at,
            edited_at=None,
        )

    def edit_message(self, message_id: int, content: Content) -> None:
        markup = json.dumps(content.reply_markup) if content.reply_markup else None
        self._db.execute(
            "UPDATE messages SET text = ?, entities = ?, reply_markup = ?, edited_at = ?"
            " WHERE id = ?",
            (content.text, json.dumps(content.entities), markup, int(time.time()), message_id),
        )

    def delete_message(self, message_id: int) -> None:
        self._db.execute("DELETE FROM messages WHERE id = ?", (message_id,))

    # Updates that wait for a bot

    def add_update(self, bot_id: int, payload: dict[str, Any]) -> int:
        cursor = self._db.execute(
            "INSERT INTO updates (bot_id, payload) VALUES (?, ?)", (bot_id, json.dumps(payload))
        )
        return cursor.lastrowid or 0

    def waiting_updates(self, bot_id: int, limit: int) -> list[dict[str, Any]]:
        rows = self._db.execute(
            "SELECT id, payload FROM updates WHERE bot_id = ? ORDER BY id LIMIT ?", (bot_id, limit)
        )
        return [{"update_id": row["id"], **json.loads(row["payload"])} for row in rows]

    def waiting_count(self, bot_id: int) -> int:
        row = self._row("SELECT count(*) AS n FROM updates WHERE bot_id = ?", bot_id)
        return row["n"] if row else 0

    def forget_updates(self, bot_id: int, *, before: int) -> None:
        """Forget the updates below an id; a negative number keeps only that many of the latest."""
        if before < 0:
            row = self._row(
                "SELECT id FROM updates WHERE bot_id = ? ORDER BY id DESC LIMIT 1 OFFSET ?",
                bot_id,
                -before - 1,
            )
            before = row["id"] if row else 0
        self._db.execute("DELETE FROM updates WHERE bot_id = ? AND id < ?", (bot_id, before))

    # BotFather's half-finished dialogues

    def dialogue(self, person_id: int) -> tuple[str, str]:
        """Return the step BotFather waits for and what it noted; two empty strings for none."""
        row = self._row("SELECT step, draft FROM dialogues WHERE person_id = ?", person_id)
        return (row["step"], row["draft"]) if row else ("", "")

    def set_dialogue(self, person_id: int, step: str, draft: str = "") -> None:
        self._db.execute(
            "INSERT INTO dialogues VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET step = excluded.step, draft = excluded.draft",
            (person_id, step, draft),
        )

    def _row(self, query: str, *values: Any) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._db.execute(query, values).fetchone()
        return row


def _bot(row: sqlite3.Row) -> Bot:
    return Bot(
        id=row["id"],
        name=row["name"],
        username=row["username"],
        token=row["token"],
        owner_id=row["owner_id"],
        settings=json.loads(row["settings"]),
    )


def _message(row: sqlite3.Row) -> ChatMessage:
    markup = row["reply_markup"]
    return ChatMessage(
        id=row["id"],
        person_id=row["person_id"],
        bot_id=row["bot_id"],
        is_from_bot=bool(row["is_from_bot"]),
        content=Content(
            text=row["text"],
            entities=json.loads(row["entities"]),
            reply_markup=json.loads(markup) if markup else None,
        ),
        sent_at=row["sent_at"],
        edited_at=row["edited_at"],
    )


def _random_between(first: int, last: int) -> int:
    return first + secrets.randbelow(last - first + 1)


def _new_token(bot_id: int) -> str:
    """Return a token in Telegram's shape: the bot's id, a colon and 35 characters."""
    return f"{bot_id}:{'AA' + secrets.token_urlsafe(40)[: TOKEN_SECRET_LENGTH - 2]}"
