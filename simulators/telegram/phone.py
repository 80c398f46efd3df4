"""The phone: the page where a person chats, and what its script asks for."""

import json
import secrets
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from simulators.telegram.messenger import MESSAGE_LIMIT, Messenger
from simulators.telegram.store import BOTFATHER_ID, Bot, ChatMessage, Person

FOLDER = Path(__file__).parent
NAME_LIMIT = 64
START_PAYLOAD_LIMIT = 64
POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self';"
    " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


class UnknownError(Exception):
    """The page named a person, chat or message that does not exist."""


class Phone:
    def __init__(self, messenger: Messenger) -> None:
        self._messenger = messenger
        self._store = messenger.store
        self._page = (FOLDER / "phone.html").read_text(encoding="utf-8")
        self._style = (FOLDER / "phone.css").read_text(encoding="utf-8")
        self._script = (FOLDER / "phone.js").read_text(encoding="utf-8")

    def routes(self) -> list[Route]:
        return [
            Route("/", self.page),
            Route("/t.me/{username}", self.page),
            Route("/api/view", self.view),
            Route("/api/people", self.add_person, methods=["POST"]),
            Route("/api/messages", self.send, methods=["POST"]),
            Route("/api/start", self.start, methods=["POST"]),
            Route("/api/presses", self.press, methods=["POST"]),
            Route("/api/blocks", self.block, methods=["POST"]),
        ]

    async def page(self, _request: Request) -> HTMLResponse:
        nonce = secrets.token_urlsafe(16)
        html = (
            self._page.replace("{{nonce}}", nonce)
            .replace("{{style}}", self._style)
            .replace("{{script}}", self._script)
        )
        headers = {
            "content-security-policy": POLICY.format(nonce=nonce),
            "cache-control": "no-store",
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
        }
        return HTMLResponse(html, headers=headers)

    async def view(self, request: Request) -> Response:
        """Everything the page shows; only the version when nothing changed since `since`."""
        version = self._messenger.version
        if request.query_params.get("since") == version:
            return JSONResponse({"version": version})
        person = self._person_or_first(request.query_params.get("person"))
        bot = self._store.find_bot_by_username(request.query_params.get("chat", ""))
        body = {
            "version": version,
            "people": [{"id": one.id, "name": one.name} for one in self._store.people()],
            "person": {"id": person.id, "name": person.name},
            "chats": self._chats(person),
            "bots": [_bot_json(one) for one in self._store.bots()],
            "chat": self._chat(person, bot) if bot else None,
        }
        return JSONResponse(body)

    async def add_person(self, request: Request) -> Response:
        name = " ".join(str((await _json(request)).get("name", "")).split())
        if not name or len(name) > NAME_LIMIT:
            return _refusal(f"A name has 1 to {NAME_LIMIT} characters.")
        person = self._store.add_person(name)
        self._messenger.touch()
        return JSONResponse({"id": person.id, "name": person.name}, status_code=201)

    async def send(self, request: Request) -> Response:
        body = await _json(request)
        text = str(body.get("text", "")).strip()
        if not text or len(text) > MESSAGE_LIMIT:
            return _refusal(f"A message has 1 to {MESSAGE_LIMIT} characters.")
        return self._write(body, text)

    async def start(self, request: Request) -> Response:
        """Press START; with the payload of a t.me link the bot receives `/start payload`."""
        body = await _json(request)
        payload = str(body.get("payload") or "")
        if len(payload) > START_PAYLOAD_LIMIT:
            return _refusal(f"A start payload has at most {START_PAYLOAD_LIMIT} characters.")
        return self._write(body, f"/start {payload}".strip())

    async def press(self, request: Request) -> Response:
        body = await _json(request)
        try:
            person, bot = self._both(body)
        except UnknownError as error:
            return _refusal(str(error), 404)
        message = self._store.find_message(_number(body.get("message")))
        if message is None or (message.person_id, message.bot_id) != (person.id, bot.id):
            return _refusal("There is no such message.", 404)
        self._messenger.person_presses(person, message, str(body.get("data", "")))
        return JSONResponse({})

    async def block(self, request: Request) -> Response:
        try:
            person, bot = self._both(await _json(request))
        except UnknownError as error:
            return _refusal(str(error), 404)
        self._messenger.person_blocks(person, bot)
        return JSONResponse({})

    def _write(self, body: dict[str, Any], text: str) -> Response:
        try:
            person, bot = self._both(body)
        except UnknownError as error:
            return _refusal(str(error), 404)
        sent = self._messenger.person_writes(person, bot, text)
        return JSONResponse(_message_json(sent), status_code=201)

    def _both(self, body: dict[str, Any]) -> tuple[Person, Bot]:
        person = self._store.find_person(_number(body.get("person")))
        bot = self._store.find_bot_by_username(str(body.get("chat", "")))
        if person is None:
            raise UnknownError("There is no such person.")
        if bot is None:
            raise UnknownError("There is no such bot.")
        return person, bot

    def _person_or_first(self, given: str | None) -> Person:
        return self._store.find_person(_number(given)) or self._store.people()[0]

    def _chats(self, person: Person) -> list[dict[str, Any]]:
        chats = [
            _bot_json(bot) | {"last": _message_json(last) if last else None}
            for bot, last in self._store.chats_of(person.id)
        ]
        botfather = self._store.find_bot(BOTFATHER_ID)
        if botfather and not any(chat["is_official"] for chat in chats):
            chats.append(_bot_json(botfather) | {"last": None})
        return chats

    def _chat(self, person: Person, bot: Bot) -> dict[str, Any]:
        messages = self._store.messages(person.id, bot.id)
        last = next((one for one in reversed(messages) if one.is_from_bot), None)
        markup = (last.content.reply_markup or {}) if last and last is messages[-1] else {}
        keyboard = markup.get("keyboard") or []
        return _bot_json(bot) | {
            "description": bot.settings.get("description", ""),
            "state": self._store.chat_state(person.id, bot.id),
            "typing_seconds": round(self._messenger.typing_seconds(person.id, bot.id), 1),
            "commands": _commands(bot),
            "keyboard": [[_label(key) for key in row] for row in keyboard],
            "messages": [_message_json(message) for message in messages],
        }


def _bot_json(bot: Bot) -> dict[str, Any]:
    return {"username": bot.username, "name": bot.name, "is_official": bot.is_official}


def _message_json(message: ChatMessage) -> dict[str, Any]:
    markup = message.content.reply_markup or {}
    return {
        "id": message.id,
        "is_from_bot": message.is_from_bot,
        "text": message.content.text,
        "entities": message.content.entities,
        "buttons": markup.get("inline_keyboard") or [],
        "at": message.sent_at,
        "is_edited": message.edited_at is not None,
    }


def _commands(bot: Bot) -> list[dict[str, str]]:
    """Return the commands of private chats, or else those of every chat."""
    if bot.is_official:
        return [
            {"command": "newbot", "description": "create a new bot"},
            {"command": "mybots", "description": "edit your bots"},
            {"command": "token", "description": "get authorization token"},
            {"command": "revoke", "description": "revoke bot access token"},
            {"command": "deletebot", "description": "delete a bot"},
            {"command": "cancel", "description": "cancel the current operation"},
        ]
    by_kind = {
        json.loads(scope)[0]["type"]: commands
        for scope, commands in bot.settings.get("commands", {}).items()
    }
    return by_kind.get("all_private_chats") or by_kind.get("default") or []


def _label(key: Any) -> str:
    return str(key.get("text", "")) if isinstance(key, dict) else str(key)


async def _json(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _number(value: Any) -> int:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() else 0


def _refusal(reason: str, status: int = 400) -> JSONResponse:
    return JSONResponse({"error": reason}, status_code=status)
