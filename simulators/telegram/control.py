"""What tests and the product's development tools ask of the simulator; not part of Telegram."""

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulators.telegram.botfather import username_problem
from simulators.telegram.errors import ApiError
from simulators.telegram.faults import Fault, Faults
from simulators.telegram.messenger import MESSAGE_LIMIT, Messenger
from simulators.telegram.store import Bot, ChatMessage


class RefusedError(Exception):
    """The request cannot be done as it is written."""


class Control:
    def __init__(self, messenger: Messenger, faults: Faults) -> None:
        self._messenger = messenger
        self._store = messenger.store
        self._faults = faults

    def routes(self) -> list[Route]:
        return [
            Route("/_control/bots", _guarded(self.bots), methods=["GET"]),
            Route("/_control/bots", _guarded(self.add_bot), methods=["POST"]),
            Route("/_control/messages", _guarded(self.messages), methods=["GET"]),
            Route("/_control/messages", _guarded(self.write), methods=["POST"]),
            Route("/_control/faults", _guarded(self.add_fault), methods=["POST"]),
            Route("/_control/faults", _guarded(self.clear_faults), methods=["DELETE"]),
        ]

    async def bots(self, _request: Request) -> Any:
        return [_bot_json(bot) for bot in self._store.bots() if not bot.is_official]

    async def add_bot(self, request: Request) -> Any:
        """Make a bot without BotFather: {"name", "username", "owner"?}."""
        body = await _json(request)
        username = str(body.get("username", ""))
        if problem := username_problem(self._messenger, username):
            raise RefusedError(problem)
        owner = _number(body, "owner") if "owner" in body else None
        bot = self._store.add_bot(str(body.get("name") or username), username, owner)
        self._messenger.touch()
        return _bot_json(bot)

    async def messages(self, request: Request) -> Any:
        """The chat of ?person= with ?bot=, oldest first."""
        bot = self._bot(request.query_params.get("bot", ""))
        person_id = _number(dict(request.query_params), "person")
        return [_message_json(one) for one in self._store.messages(person_id, bot.id)]

    async def write(self, request: Request) -> Any:
        """Write as a person: {"from", "bot", "text", "name"?}; a new id becomes a new person."""
        body = await _json(request)
        bot = self._bot(str(body.get("bot", "")))
        text = str(body.get("text", "")).strip()
        if not text or len(text) > MESSAGE_LIMIT:
            raise RefusedError(f"text has 1 to {MESSAGE_LIMIT} characters")
        person_id = _number(body, "from")
        person = self._store.find_person(person_id)
        if person is None:
            person = self._store.add_person(str(body.get("name") or f"User {person_id}"), person_id)
        return _message_json(self._messenger.person_writes(person, bot, text))

    async def add_fault(self, request: Request) -> Any:
        """Let the next calls of a method ("*" for any) answer an error, `times` times."""
        body = await _json(request)
        error = ApiError(
            _number(body, "error_code"),
            str(body.get("description", "")),
            _number(body, "retry_after") if "retry_after" in body else None,
        )
        times = _number(body, "times") if "times" in body else 1
        self._faults.add(Fault(method=str(body.get("method", "*")), error=error, times=times))
        return {}

    async def clear_faults(self, _request: Request) -> Any:
        self._faults.clear()
        return {}

    def _bot(self, given: str) -> Bot:
        bot = self._store.find_bot_by_username(given) or (
            self._store.find_bot(int(given)) if given.isdigit() else None
        )
        if bot is None:
            raise RefusedError(f"there is no bot {given!r}")
        return bot


def _guarded(endpoint: Any) -> Any:
    async def answer(request: Request) -> Response:
        try:
            return JSONResponse(await endpoint(request))
        except RefusedError as error:
            return JSONResponse({"error": str(error)}, status_code=400)

    return answer


def _bot_json(bot: Bot) -> dict[str, Any]:
    return {"id": bot.id, "name": bot.name, "username": bot.username, "token": bot.token}


def _message_json(message: ChatMessage) -> dict[str, Any]:
    return {
        "id": message.id,
        "from": "bot" if message.is_from_bot else "person",
        "text": message.content.text,
        "entities": message.content.entities,
        "reply_markup": message.content.reply_markup,
        "sent_at": message.sent_at,
        "edited_at": message.edited_at,
    }


async def _json(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except ValueError:
        raise RefusedError("the body is not JSON") from None
    if not isinstance(body, dict):
        raise RefusedError("the body is not a JSON object")
    return body


def _number(body: dict[str, Any], name: str) -> int:
    try:
        return int(body.get(name, ""))
    except (TypeError, ValueError):
        raise RefusedError(f"{name} must be a number") from None
