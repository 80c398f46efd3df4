"""BotFather, the bot that makes bots, with the dialogue that people know."""

import re
from typing import Any

from simulators.telegram.errors import ApiError
from simulators.telegram.formatting import format_text
from simulators.telegram.messenger import Messenger
from simulators.telegram.store import BOTFATHER_ID, Bot, Content, Person

USERNAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{3,30}[A-Za-z0-9]")
NAME_LIMIT = 64
CONFIRMATION = "Yes, I am totally sure."
NO_BOTS = "You don't have any bots yet. Use the /newbot command to create a new bot first."
REVOKED = ApiError(401, "Unauthorized")

HELP = """\
I can help you create and manage Telegram bots. If you're new to the Bot API, please <a \
href="https://core.telegram.org/bots">see the manual</a>.

You can control me by sending these commands:

/newbot - create a new bot
/mybots - edit your bots

<b>Edit Bots</b>
/setname - change a bot's name
/deletebot - delete a bot

<b>Bot Settings</b>
/token - get authorization token
/revoke - revoke bot access token

/cancel - cancel the current operation"""

CREATED = """\
Done! Congratulations on your new bot. You will find it at t.me/{username}. You can now add a \
description, about section and profile picture for your bot, see /help for a list of commands. \
By the way, when you've finished creating your cool bot, ping our Bot Support if you want a \
better username for it. Just make sure the bot is fully operational before you do this.

Use this token to access the HTTP API:
<code>{token}</code>
Keep your token <b>secure</b> and <b>store it safely</b>, it can be used by anyone to control \
your bot.

For a description of the Bot API, see this page: https://core.telegram.org/bots/api"""

HERE_IS_IT = """\
You can use this token to access HTTP API:
<code>{token}</code>

For a description of the Bot API, see this page: https://core.telegram.org/bots/api"""

QUESTIONS = {
    "setname": "Choose a bot to change name.",
    "deletebot": "Choose a bot to delete.",
    "token": "Choose a bot to generate a new token.",
    "revoke": "Choose a bot to generate a new token. Warning: your old token will stop working.",
}


class BotFather:
    """Answers one person at a time; where each stands is kept in the store."""

    def __init__(self, messenger: Messenger) -> None:
        self._messenger = messenger
        self._store = messenger.store
        self._steps = {
            "name": self._take_name,
            "username": self._take_username,
            "choose": self._take_choice,
            "new_name": self._take_new_name,
            "confirm": self._take_confirmation,
        }

    def answer(self, person: Person, text: str) -> None:
        """Take a person's message and write back."""
        step, draft = self._store.dialogue(person.id)
        if text.startswith("/"):
            command = text[1:].split(maxsplit=1)[0].partition("@")[0].lower() if text[1:] else ""
            self._take_command(person, command, step, draft)
        elif step:
            self._steps[step](person, text, draft)
        else:
            self._say(person, "I can't find what you need. Send /help for a list of commands.")

    # Commands

    def _take_command(self, person: Person, command: str, step: str, draft: str) -> None:
        if command == "cancel":
            self._cancel(person, step, draft)
            return
        self._store.set_dialogue(person.id, "")
        if command in {"start", "help"}:
            self._say(person, HELP)
        elif command == "newbot":
            self._store.set_dialogue(person.id, "name")
            self._say(
                person,
                "Alright, a new bot. How are we going to call it?"
                " Please choose a name for your bot.",
            )
        elif command == "mybots":
            self._list_bots(person)
        elif command in QUESTIONS:
            self._ask_which_bot(person, command)
        else:
            self._say(person, "Unrecognized command. Say what?")

    def _cancel(self, person: Person, step: str, draft: str) -> None:
        self._store.set_dialogue(person.id, "")
        if not step:
            self._say(
                person, "No active command to cancel. I wasn't doing anything anyway. Zzzzz..."
            )
            return
        command = "newbot" if step in {"name", "username"} else draft.partition(" ")[0]
        self._say(
            person,
            f"The command <b>{command}</b> has been cancelled. Anything else I can do for you?"
            "\n\nSend /help for a list of commands. To learn more about Telegram Bots,"
            " see https://core.telegram.org/bots",
        )

    def _ask_which_bot(self, person: Person, command: str) -> None:
        mine = self._store.bots_of(person.id)
        if not mine:
            self._say(person, NO_BOTS)
            return
        self._store.set_dialogue(person.id, "choose", command)
        keyboard = [[{"text": f"@{bot.username}"}] for bot in mine]
        self._say(person, QUESTIONS[command], {"keyboard": keyboard, "one_time_keyboard": True})

    # /newbot

    def _take_name(self, person: Person, text: str, _draft: str) -> None:
        if len(text) > NAME_LIMIT:
            self._say(person, "Sorry, this name is too long. Please choose a shorter one.")
            return
        self._store.set_dialogue(person.id, "username", text)
        self._say(
            person,
            "Good. Now let's choose a username for your bot. It must end in `bot`."
            " Like this, for example: TetrisBot or tetris_bot.",
        )

    def _take_username(self, person: Person, text: str, name: str) -> None:
        username = text.removeprefix("@")
        problem = username_problem(self._messenger, username)
        if problem:
            self._say(person, problem)
            return
        bot = self._store.add_bot(name, username, person.id)
        self._store.set_dialogue(person.id, "")
        self._say(person, CREATED.format(username=bot.username, token=bot.token))

    # One of the person's bots

    def _take_choice(self, person: Person, text: str, command: str) -> None:
        bot = self._store.find_bot_by_username(text)
        if bot is None or bot.owner_id != person.id:
            self._say(person, "Invalid bot selected.")
            return
        self._store.set_dialogue(person.id, "")
        if command == "token":
            self._say(person, HERE_IS_IT.format(token=bot.token))
        elif command == "revoke":
            self._revoke(person, bot)
        elif command == "setname":
            self._store.set_dialogue(person.id, "new_name", f"setname {bot.id}")
            self._say(person, "OK. Send me the new name for your bot.")
        else:
            self._store.set_dialogue(person.id, "confirm", f"deletebot {bot.id}")
            self._say(
                person,
                f"OK, you selected @{bot.username}. Are you sure?\n\nSend '{CONFIRMATION}'"
                " to confirm you really want to delete this bot.",
            )

    def _take_new_name(self, person: Person, text: str, draft: str) -> None:
        self._store.rename_bot(int(draft.split()[1]), text[:NAME_LIMIT])
        self._store.set_dialogue(person.id, "")
        self._say(person, "Success! Name updated. /help")

    def _take_confirmation(self, person: Person, text: str, draft: str) -> None:
        if text != CONFIRMATION:
            self._say(
                person,
                "Please enter the confirmation text exactly like this:"
                f"\n{CONFIRMATION}\n\nType /cancel to cancel the operation.",
            )
            return
        bot_id = int(draft.split()[1])
        self._store.delete_bot(bot_id)
        self._messenger.updates.interrupt(bot_id, REVOKED)
        self._store.set_dialogue(person.id, "")
        self._say(person, "Done! The bot is gone. /help")

    def _revoke(self, person: Person, bot: Bot) -> None:
        token = self._store.replace_token(bot.id)
        self._messenger.updates.interrupt(bot.id, REVOKED)
        self._say(
            person,
            "Your token was replaced with a new one. You can use this token to access HTTP API:"
            f"\n<code>{token}</code>\n\nFor a description of the Bot API, see this page:"
            " https://core.telegram.org/bots/api",
        )

    # /mybots and its buttons

    def _list_bots(self, person: Person) -> None:
        mine = self._store.bots_of(person.id)
        if not mine:
            self._say(person, NO_BOTS)
            return
        buttons = [_button(f"@{bot.username}", f"bot:{bot.id}") for bot in mine]
        rows = [buttons[at : at + 2] for at in range(0, len(buttons), 2)]
        self._say(person, "Choose a bot from the list below:", {"inline_keyboard": rows})

    def press(self, person: Person, data: str) -> None:
        """Take a pressed button and write back."""
        action, _, bot_id = data.partition(":")
        bot = self._store.find_bot(int(bot_id)) if bot_id.isdigit() else None
        if action == "list":
            self._list_bots(person)
        elif bot is None or bot.owner_id != person.id:
            self._say(person, "Invalid bot selected.")
        elif action == "token":
            buttons = [
                [_button("Revoke current token", f"revoke:{bot.id}")],
                [_button("« Back to Bot", f"bot:{bot.id}")],
            ]
            self._say(
                person,
                f"Here is the token for bot {_escape(bot.name)} @{bot.username}:"
                f"\n\n<code>{bot.token}</code>",
                {"inline_keyboard": buttons},
            )
        elif action == "revoke":
            self._revoke(person, bot)
        elif action == "delete":
            self._take_choice(person, bot.username, "deletebot")
        else:
            self._show_bot(person, bot)

    def _show_bot(self, person: Person, bot: Bot) -> None:
        buttons = [
            [_button("API Token", f"token:{bot.id}"), _button("Delete Bot", f"delete:{bot.id}")],
            [_button("« Back to Bot List", "list:")],
        ]
        self._say(
            person,
            f"Here it is: {_escape(bot.name)} @{bot.username}."
            "\nWhat do you want to do with the bot?",
            {"inline_keyboard": buttons},
        )

    def _say(self, person: Person, html: str, markup: dict[str, Any] | None = None) -> None:
        botfather = self._store.find_bot(BOTFATHER_ID)
        if botfather is None:
            return
        text, entities = format_text(html, "HTML")
        content = Content(text=text, entities=entities, reply_markup=markup)
        self._messenger.bot_writes(botfather, person.id, content)


def username_problem(messenger: Messenger, username: str) -> str | None:
    """Return what is wrong with a new bot's username, in BotFather's words."""
    if not username.lower().endswith("bot"):
        return "Sorry, the username must end in 'bot'. E.g. 'Tetris_bot' or 'Tetrisbot'"
    if not USERNAME.fullmatch(username) or "__" in username:
        return "Sorry, this username is invalid."
    if messenger.store.find_bot_by_username(username):
        return "Sorry, this username is already taken. Please try something different."
    return None


def _button(text: str, data: str) -> dict[str, str]:
    return {"text": text, "callback_data": data}


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
