"""Is this a Telegram bot that can become somebody's assistant? And the words when it is not."""

import re

from openclaw_web.boxes.service import Bot
from openclaw_web.core.errors import ValidationError
from openclaw_web.integrations import telegram

LONGEST_TEXT = 500  # a token, and what somebody copied around it
# A form's answer carries the word in the address; its page shows the sentence.
SENTENCES = {
    "not_a_token": (
        "That is not a bot token. BotFather's looks like 123456789:AAF… with letters "
        "and digits after the colon."
    ),
    "unknown": "Telegram does not know this token. Copy it again from BotFather.",
    "webhook": (
        "Another program receives this bot's messages. Make a new bot with /newbot, or remove "
        "its webhook."
    ),
    "in_use": "This bot already belongs to an assistant. Make a new one with /newbot.",
    "same": "Your assistant uses this token already.",
    "tries": "Too many tokens were tried. Try again in an hour.",
}
_TOKEN = re.compile(r"\d{6,12}:[A-Za-z0-9_-]{30,50}")


class BotRefusedError(ValidationError):
    """This bot cannot become the assistant; `word` is a key of `SENTENCES`."""

    def __init__(self, word: str) -> None:
        super().__init__(SENTENCES[word])
        self.word = word


def token_in(text: str) -> str:
    """Return the bot token in a text that somebody copied.

    Raises:
        BotRefusedError: there is none.
    """
    found = _TOKEN.search(text[:LONGEST_TEXT])
    if found is None:
        raise BotRefusedError("not_a_token")
    return found.group()


async def identified(token: str) -> Bot:
    """Ask Telegram whose token this is, and whether its messages would come to us.

    Raises:
        BotRefusedError: Telegram does not know it, or another program receives its messages.
        VendorError: Telegram cannot be reached.
    """
    try:
        bot = await telegram.identify_bot(token)
        if not await telegram.has_webhook(token):
            return Bot(token=token, bot_id=bot.bot_id, username=bot.username)
    except telegram.BadTokenError as error:
        raise BotRefusedError("unknown") from error
    raise BotRefusedError("webhook")
