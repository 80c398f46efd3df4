"""The Bot API: what programs call at /bot<token>/<method>."""

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from simulators.telegram.errors import ApiError, bad_request
from simulators.telegram.faults import Faults
from simulators.telegram.formatting import format_text, utf16_length
from simulators.telegram.messenger import MESSAGE_LIMIT, Messenger
from simulators.telegram.store import Bot, Content
from simulators.telegram.updates import MOST_UPDATES, Poll

TOKEN_SHAPE = re.compile(r"\d{6,12}:[A-Za-z0-9_-]{30,50}")
NOT_FOUND = ApiError(404, "Not Found")
UNAUTHORIZED = ApiError(401, "Unauthorized")
WEBHOOK_IS_ACTIVE = ApiError(
    409,
    "Conflict: can't use getUpdates method while webhook is active;"
    " use deleteWebhook to delete the webhook first",
)
POLL_ENDED_BY_WEBHOOK = ApiError(409, "Conflict: terminated by setWebhook request")
CHAT_ACTIONS = frozenset(
    {
        "typing",
        "upload_photo",
        "record_video",
        "upload_video",
        "record_voice",
        "upload_voice",
        "upload_document",
        "choose_sticker",
        "find_location",
        "record_video_note",
        "upload_video_note",
    }
)
TEXTS = {"name": 64, "description": 512, "short_description": 120}
MOST_COMMANDS = 100


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of one bot, with parameters as the client sent them."""

    bot: Bot
    parameters: dict[str, Any]
    messenger: Messenger

    def text(self, name: str) -> str:
        value = self.parameters.get(name)
        return "" if value is None else str(value)

    def number(self, name: str, default: int = 0) -> int:
        value = self.text(name)
        try:
            return int(value) if value else default
        except ValueError:
            raise bad_request(f"{name} must be a number") from None

    def structure(self, name: str) -> Any:
        """Return a JSON parameter; forms and query strings carry it as text."""
        value = self.parameters.get(name)
        if not isinstance(value, str) or not value:
            return value
        try:
            return json.loads(value)
        except ValueError:
            raise bad_request(f"can't parse {name} JSON object") from None


Method = Callable[[Call], Awaitable[Any]]


class BotApi:
    def __init__(self, messenger: Messenger, faults: Faults) -> None:
        self._messenger = messenger
        self._faults = faults

    async def answer(self, request: Request) -> Response:
        try:
            result = await self._result(request)
        except ApiError as error:
            headers = {"retry-after": str(error.retry_after)} if error.retry_after else None
            return JSONResponse(error.as_json(), status_code=error.code, headers=headers)
        return JSONResponse({"ok": True, "result": result})

    async def _result(self, request: Request) -> Any:
        token, name = request.path_params["token"], request.path_params["method"]
        if not TOKEN_SHAPE.fullmatch(token):
            raise NOT_FOUND
        bot = self._messenger.store.find_bot_by_token(token)
        if bot is None or bot.is_official:
            raise UNAUTHORIZED
        if fault := self._faults.take(name):
            raise fault
        method = METHODS.get(name.lower())
        if method is None:
            raise NOT_FOUND
        parameters = await _parameters(request)
        return await method(Call(bot=bot, parameters=parameters, messenger=self._messenger))


async def _parameters(request: Request) -> dict[str, Any]:
    given: dict[str, Any] = dict(request.query_params)
    if request.headers.get("content-type", "").startswith("application/json"):
        raw = await request.body()
        try:
            sent = json.loads(raw) if raw else {}
        except ValueError:
            raise bad_request("can't parse JSON object") from None
        if not isinstance(sent, dict):
            raise bad_request("can't parse JSON object")
        return given | sent
    form: FormData = await request.form()
    return given | {key: value for key, value in form.items() if isinstance(value, str)}


# Updates


async def get_me(call: Call) -> dict[str, Any]:
    return call.bot.as_user() | {
        "can_join_groups": True,
        "can_read_all_group_messages": False,
        "supports_inline_queries": False,
        "can_connect_to_business": False,
        "has_main_web_app": False,
    }


async def get_updates(call: Call) -> list[dict[str, Any]]:
    if call.bot.settings.get("webhook_url"):
        raise WEBHOOK_IS_ACTIVE
    allowed = call.structure("allowed_updates")
    if isinstance(allowed, list) and allowed != call.bot.settings.get("allowed_updates"):
        call.messenger.store.change_settings(call.bot, allowed_updates=allowed)
    limit = min(max(call.number("limit", MOST_UPDATES), 1), MOST_UPDATES)
    poll = Poll(offset=call.number("offset"), limit=limit, timeout_seconds=call.number("timeout"))
    return await call.messenger.updates.poll(call.bot.id, poll)


async def set_webhook(call: Call) -> bool:
    url = call.text("url")
    if not url:
        return await delete_webhook(call)
    if not url.startswith("https://"):
        raise bad_request("bad webhook: An HTTPS URL must be provided for webhook")
    call.messenger.store.change_settings(call.bot, webhook_url=url)
    call.messenger.updates.interrupt(call.bot.id, POLL_ENDED_BY_WEBHOOK)
    _drop_if_asked(call)
    return True


async def delete_webhook(call: Call) -> bool:
    call.messenger.store.change_settings(call.bot, webhook_url=None)
    _drop_if_asked(call)
    return True


def _drop_if_asked(call: Call) -> None:
    if call.text("drop_pending_updates").lower() == "true":
        store = call.messenger.store
        for update in store.waiting_updates(call.bot.id, limit=-1):
            store.forget_updates(call.bot.id, before=update["update_id"] + 1)


async def get_webhook_info(call: Call) -> dict[str, Any]:
    url = call.bot.settings.get("webhook_url", "")
    info = {
        "url": url,
        "has_custom_certificate": False,
        "pending_update_count": call.messenger.store.waiting_count(call.bot.id),
    }
    if url and info["pending_update_count"]:
        # Nothing leaves this machine, so a webhook stays unanswered; Telegram says so here.
        info["last_error_message"] = "Connection timed out (the simulator calls no webhooks)"
    return info


# Messages


def _content(call: Call) -> Content:
    source = call.text("text")
    if not source.strip():
        raise bad_request("message text is empty")
    text, entities = format_text(source, call.text("parse_mode"))
    given = call.structure("entities")
    text = text.rstrip()
    if not text:
        raise bad_request("message text is empty")
    if utf16_length(text) > MESSAGE_LIMIT:
        raise bad_request("message is too long")
    markup = call.structure("reply_markup")
    if markup is not None and not isinstance(markup, dict):
        raise bad_request("object expected as reply markup")
    return Content(
        text=text, entities=given if isinstance(given, list) else entities, reply_markup=markup
    )


def _chat_id(call: Call) -> int:
    value = call.text("chat_id")
    if not value:
        raise bad_request("chat_id is empty")
    try:
        return int(value)
    except ValueError:
        raise bad_request("chat not found") from None


async def send_message(call: Call) -> dict[str, Any]:
    chat_id = _chat_id(call)
    content = _content(call)
    sent = call.messenger.bot_writes(call.bot, chat_id, content)
    return call.messenger.as_json(sent)


async def edit_message_text(call: Call) -> dict[str, Any]:
    message = _own_message(call, "edit")
    content = _content(call)
    if content == message.content:
        raise bad_request(
            "message is not modified: specified new message content and reply markup are exactly"
            " the same as a current content and reply markup of the message"
        )
    call.messenger.store.edit_message(message.id, content)
    call.messenger.touch()
    return call.messenger.as_json(_own_message(call, "edit"))


async def delete_message(call: Call) -> bool:
    call.messenger.store.delete_message(_own_message(call, "delete").id)
    call.messenger.touch()
    return True


def _own_message(call: Call, act: str) -> Any:
    chat_id = _chat_id(call)
    message = call.messenger.store.find_message(call.number("message_id"))
    if message is None or (message.person_id, message.bot_id) != (chat_id, call.bot.id):
        raise bad_request(f"message to {act} not found")
    if act == "edit" and not message.is_from_bot:
        raise bad_request("message can't be edited")
    return message


async def send_chat_action(call: Call) -> bool:
    chat_id = _chat_id(call)
    if call.text("action") not in CHAT_ACTIONS:
        raise bad_request("wrong parameter action in request")
    call.messenger.bot_types(call.bot, chat_id)
    return True


async def answer_callback_query(call: Call) -> bool:
    if not call.text("callback_query_id"):
        raise bad_request("query is too old and response timeout expired or query ID is invalid")
    return True


async def get_chat(call: Call) -> dict[str, Any]:
    person = call.messenger.store.find_person(_chat_id(call))
    if person is None or call.messenger.store.chat_state(person.id, call.bot.id) == "new":
        raise bad_request("chat not found")
    return person.as_chat() | {"accent_color_id": 0, "max_reaction_count": 11}


# What a bot says about itself


def _scope(call: Call) -> str:
    scope = call.structure("scope") or {"type": "default"}
    return json.dumps([scope, call.text("language_code")], sort_keys=True)


async def set_my_commands(call: Call) -> bool:
    commands = call.structure("commands")
    if not isinstance(commands, list):
        raise bad_request("parameter commands is required")
    if len(commands) > MOST_COMMANDS:
        raise bad_request("BOT_COMMANDS_TOO_MUCH")
    for command in commands:
        if not re.fullmatch(r"[a-z0-9_]{1,32}", str(command.get("command", ""))):
            raise bad_request("BOT_COMMAND_INVALID")
        if not command.get("description"):
            raise bad_request("BOT_COMMAND_DESCRIPTION_INVALID")
    kept = call.bot.settings.get("commands", {}) | {_scope(call): commands}
    call.messenger.store.change_settings(call.bot, commands=kept)
    call.messenger.touch()
    return True


async def delete_my_commands(call: Call) -> bool:
    kept = dict(call.bot.settings.get("commands", {}))
    kept.pop(_scope(call), None)
    call.messenger.store.change_settings(call.bot, commands=kept)
    call.messenger.touch()
    return True


async def get_my_commands(call: Call) -> list[dict[str, str]]:
    return call.bot.settings.get("commands", {}).get(_scope(call), [])


def _setter(field: str) -> Method:
    async def change(call: Call) -> bool:
        text = call.text(field)
        if len(text) > TEXTS[field]:
            raise bad_request(f"BOT_{field.upper()}_INVALID")
        if field == "name":
            call.messenger.store.rename_bot(call.bot.id, text or call.bot.username)
        else:
            call.messenger.store.change_settings(call.bot, **{field: text or None})
        call.messenger.touch()
        return True

    return change


def _getter(field: str) -> Method:
    async def read(call: Call) -> dict[str, str]:
        text = call.bot.name if field == "name" else call.bot.settings.get(field, "")
        return {field: text}

    return read


METHODS: dict[str, Method] = {
    "getme": get_me,
    "getupdates": get_updates,
    "setwebhook": set_webhook,
    "deletewebhook": delete_webhook,
    "getwebhookinfo": get_webhook_info,
    "sendmessage": send_message,
    "editmessagetext": edit_message_text,
    "deletemessage": delete_message,
    "sendchataction": send_chat_action,
    "answercallbackquery": answer_callback_query,
    "getchat": get_chat,
    "setmycommands": set_my_commands,
    "deletemycommands": delete_my_commands,
    "getmycommands": get_my_commands,
    "setmyname": _setter("name"),
    "getmyname": _getter("name"),
    "setmydescription": _setter("description"),
    "getmydescription": _getter("description"),
    "setmyshortdescription": _setter("short_description"),
    "getmyshortdescription": _getter("short_description"),
}
