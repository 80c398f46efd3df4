"""The messenger itself: who may write to whom, what arrives where, who is typing."""

import secrets
import time
from typing import Any, Protocol

from simulators.telegram.errors import ApiError, bad_request
from simulators.telegram.formatting import detect_entities
from simulators.telegram.store import Bot, ChatMessage, Content, Person, Store
from simulators.telegram.updates import Updates

MESSAGE_LIMIT = 4096
TYPING_SECONDS = 5  # Telegram: the status is set for 5 seconds or less


class OfficialBot(Protocol):
    """A bot that lives in this simulator instead of behind the Bot API."""

    def answer(self, person: Person, text: str) -> None: ...

    def press(self, person: Person, data: str) -> None: ...


class Messenger:
    """People and bots write to each other through this; pages watch its version to see changes."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.updates = Updates(store)
        self._official: dict[int, OfficialBot] = {}
        self._typing_until: dict[tuple[int, int], float] = {}
        self._run = secrets.token_hex(4)
        self._changes = 0

    @property
    def version(self) -> str:
        """Return a text that differs after every change and after every restart."""
        return f"{self._run}-{self._changes}"

    def touch(self) -> None:
        self._changes += 1

    def employ(self, bot_id: int, official: OfficialBot) -> None:
        """Let code of this simulator answer for a bot."""
        self._official[bot_id] = official

    # What people do

    def person_writes(self, person: Person, bot: Bot, text: str) -> ChatMessage:
        """Send a person's words to a bot; the first ones start the chat, blocking ends there."""
        content = Content(text=text, entities=detect_entities(text))
        self.store.start_chat(person.id, bot.id)
        sent = self.store.add_message(person.id, bot.id, content, is_from_bot=False)
        self._typing_until.pop((person.id, bot.id), None)
        self.touch()
        if bot.id in self._official:
            self._official[bot.id].answer(person, text)
        else:
            self.updates.add(bot.id, {"message": self.as_json(sent)})
        return sent

    def person_presses(self, person: Person, message: ChatMessage, data: str) -> None:
        """Press an inline button of a bot's message."""
        if message.bot_id in self._official:
            self._official[message.bot_id].press(person, data)
            return
        query = {
            "id": str(secrets.randbits(62)),
            "from": person.as_user(),
            "message": self.as_json(message),
            "chat_instance": str(message.bot_id),
            "data": data,
        }
        self.updates.add(message.bot_id, {"callback_query": query})

    def person_blocks(self, person: Person, bot: Bot) -> None:
        self.store.block_chat(person.id, bot.id)
        self._typing_until.pop((person.id, bot.id), None)
        self.touch()

    # What bots do

    def bot_writes(self, bot: Bot, person_id: int, content: Content) -> ChatMessage:
        self.check_may_write(bot, person_id)
        sent = self.store.add_message(person_id, bot.id, content, is_from_bot=True)
        self._typing_until.pop((person_id, bot.id), None)
        self.touch()
        return sent

    def bot_types(self, bot: Bot, person_id: int) -> None:
        self.check_may_write(bot, person_id)
        self._typing_until[person_id, bot.id] = time.monotonic() + TYPING_SECONDS
        self.touch()

    def check_may_write(self, bot: Bot, person_id: int) -> None:
        """Refuse a bot that nobody started.

        Raises:
            ApiError: the person does not exist, never wrote to the bot, or blocked it.
        """
        if self.store.find_bot(person_id):
            raise ApiError(403, "Forbidden: bots can't send messages to bots")
        if self.store.find_person(person_id) is None:
            raise bad_request("chat not found")
        state = self.store.chat_state(person_id, bot.id)
        if state == "new":
            raise ApiError(403, "Forbidden: bot can't initiate conversation with a user")
        if state == "blocked":
            raise ApiError(403, "Forbidden: bot was blocked by the user")

    def typing_seconds(self, person_id: int, bot_id: int) -> float:
        """Return for how long the bot still shows as typing."""
        until = self._typing_until.get((person_id, bot_id), 0.0)
        return max(0.0, until - time.monotonic())

    def as_json(self, message: ChatMessage) -> dict[str, Any]:
        """Return Telegram's Message object."""
        person = self.store.find_person(message.person_id)
        bot = self.store.find_bot(message.bot_id)
        if person is None or bot is None:
            raise bad_request("chat not found")
        body = {
            "message_id": message.id,
            "from": (bot if message.is_from_bot else person).as_user(),
            "chat": person.as_chat(),
            "date": message.sent_at,
            "text": message.content.text,
        }
        optional = {
            "edit_date": message.edited_at,
            "entities": message.content.entities,
            "reply_markup": _inline_keyboard(message.content),
        }
        return body | {key: value for key, value in optional.items() if value}


def _inline_keyboard(content: Content) -> dict[str, Any] | None:
    """Only inline keyboards stay with the message; other keyboards belong to the input field."""
    markup = content.reply_markup or {}
    return markup if "inline_keyboard" in markup else None
