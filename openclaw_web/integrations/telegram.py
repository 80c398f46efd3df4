"""Telegram's Bot API, as far as onboarding needs it: is this bot real, and who pressed Start?"""

from dataclasses import dataclass
from typing import Any

import httpx

from openclaw_web.core.errors import VendorError
from openclaw_web.core.settings import settings

TIMEOUT_SECONDS = 8.0
UPDATES_AT_ONCE = 100
UNAUTHORIZED = {401, 404}  # Telegram answers 404 for a token of the wrong form
START_COMMAND = "/start "


@dataclass(frozen=True)
class BotIdentity:
    """What Telegram says of a bot."""

    bot_id: int
    username: str
    name: str


@dataclass(frozen=True)
class StartPress:
    """Somebody pressed Start behind a link of ours."""

    update_id: int
    user_id: int
    name: str
    username: str
    payload: str


class BadTokenError(VendorError):
    """Telegram does not know this bot token."""

    def __init__(self) -> None:
        super().__init__("Telegram does not know this token.", can_retry=False, code="unauthorized")


async def identify_bot(token: str) -> BotIdentity:
    """Ask Telegram whose token this is.

    Raises:
        BadTokenError: the token is wrong or was revoked.
        VendorError: Telegram cannot be reached, or refused.
    """
    result = await _call(token, "getMe")
    return BotIdentity(
        bot_id=result["id"], username=result.get("username", ""), name=result.get("first_name", "")
    )


async def has_webhook(token: str) -> bool:
    """Say whether another program receives this bot's messages by webhook."""
    return bool((await _call(token, "getWebhookInfo")).get("url"))


async def pressed_starts(token: str) -> list[StartPress]:
    """Return who pressed Start with a payload; nothing is marked as read.

    Raises:
        VendorError: code `conflict` when another program reads this bot's messages right now.
    """
    updates = await _call(
        token, "getUpdates", limit=UPDATES_AT_ONCE, timeout=0, allowed_updates=["message"]
    )
    return [press for update in updates if (press := _start_press(update)) is not None]


async def mark_read(token: str, update_id: int) -> None:
    """Take this message and the older ones off the bot's waiting list."""
    await _call(token, "getUpdates", offset=update_id + 1, limit=1, timeout=0)


def bot_link(username: str, payload: str = "") -> str:
    """Return the address that opens a chat with the bot.

    With a Start button that carries the payload.
    """
    address = f"{settings().telegram_link_url.rstrip('/')}/{username}"
    return f"{address}?start={payload}" if payload else address


def _start_press(update: dict[str, Any]) -> StartPress | None:
    message = update.get("message") or {}
    sender, text = message.get("from") or {}, message.get("text") or ""
    if message.get("chat", {}).get("type") != "private" or not text.startswith(START_COMMAND):
        return None
    name = " ".join(part for part in (sender.get("first_name"), sender.get("last_name")) if part)
    return StartPress(
        update_id=update["update_id"],
        user_id=sender["id"],
        name=name,
        username=sender.get("username", ""),
        payload=text.removeprefix(START_COMMAND).strip(),
    )


async def _call(token: str, method: str, **parameters: Any) -> Any:
    address = f"{settings().telegram_api_url.rstrip('/')}/bot{token}/{method}"
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as client:
            response = await client.post(address, json=parameters)
            answer = response.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        # The address holds the token, so the vendor's own text stays out of ours.
        raise VendorError(
            ("Telegram cannot be reached at the moment."), can_retry=True, code="unreachable"
        ) from error
    if answer.get("ok"):
        return answer["result"]
    if response.status_code in UNAUTHORIZED:
        raise BadTokenError
    code = {409: "conflict", 429: "too_many_requests"}.get(response.status_code, "refused")
    raise VendorError(
        f"Telegram refused: {answer.get('description', 'no reason given')}",
        # Too many requests and Telegram's own failures pass by themselves.
        can_retry=response.status_code >= httpx.codes.TOO_MANY_REQUESTS,
        code=code,
    )
