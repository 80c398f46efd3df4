"""The Telegram channel: one long poll, and a spool so that a crash loses no message."""

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from simulators.agent.config import Telegram
from simulators.agent.health import Health
from simulators.agent.reload import LiveConfig

PART = "telegram"
POLL_SECONDS = 25
CALL_SECONDS = 15
CONFLICT_PAUSE_SECONDS = 5.0
UNAUTHORIZED_PAUSE_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 15.0
LONGEST_RETRY_AFTER_SECONDS = 60.0
UNAUTHORIZED, CONFLICT, TOO_MANY = 401, 409, 429
COMMANDS = (
    ("help", "Show available commands."),
    ("new", "Start a new session."),
    ("reset", "Reset the current session."),
    ("status", "Show current status."),
    ("whoami", "Show your sender id."),
)
log = logging.getLogger("agent.telegram")

Json = dict[str, Any]


class TelegramError(Exception):
    """Telegram refused a call, or could not be reached (code 0)."""

    def __init__(self, code: int, description: str, retry_after: float | None = None) -> None:
        super().__init__(f"{code} {description}")
        self.code = code
        self.retry_after = retry_after


class TelegramClient:
    """Calls the Bot API; addresses hold the token, so they never reach logs or errors."""

    def __init__(self, http: httpx.AsyncClient, live: LiveConfig) -> None:
        self._http = http
        self._live = live

    async def call(self, method: str, *, wait_seconds: int = 0, **parameters: Any) -> Any:
        """Call a method and return its result.

        Raises:
            TelegramError: it was refused, or nobody answered.
        """
        channel = self._channel()
        url = f"{channel.api_root}/bot{channel.token}/{method}"
        try:
            response = await self._http.post(
                url, json=parameters, timeout=CALL_SECONDS + wait_seconds
            )
            body = response.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise TelegramError(0, type(error).__name__) from None
        if not isinstance(body, dict) or not body.get("ok"):
            raise _refused(response.status_code, body)
        return body.get("result")

    def _channel(self) -> Telegram:
        channel = self._live.current.telegram
        if channel is None or not channel.token:
            raise TelegramError(UNAUTHORIZED, "no bot token is configured")
        return channel


class TelegramChannel:
    """Receives messages for as long as it runs and hands each one over, once."""

    def __init__(
        self, client: TelegramClient, health: Health, spool: "Spool", take: Callable[[Json], None]
    ) -> None:
        self._client = client
        self._health = health
        self._spool = spool
        self._take = take
        self._offset = 0
        self._failures = 0

    async def run(self) -> None:
        for update in self._spool.waiting():
            self._take(update)
        while True:
            try:
                await self._connect()
                self._recovered()
                while True:
                    await self._poll()
                    self._recovered()
            except TelegramError as error:
                await self._pause(error)

    async def _connect(self) -> None:
        me = await self._client.call("getMe")
        await self._client.call("deleteWebhook", drop_pending_updates=False)
        await self._client.call("deleteMyCommands")
        commands = [{"command": name, "description": text} for name, text in COMMANDS]
        await self._client.call("setMyCommands", commands=commands)
        log.info("telegram connected as @%s", me.get("username"))

    async def _poll(self) -> None:
        updates = await self._client.call(
            "getUpdates",
            wait_seconds=POLL_SECONDS,
            timeout=POLL_SECONDS,
            offset=self._offset,
            limit=100,
            allowed_updates=["message"],
        )
        for update in updates:
            self._spool.keep(update)
            self._offset = max(self._offset, update["update_id"] + 1)
            self._take(update)

    def _recovered(self) -> None:
        self._failures = 0
        self._health.recover(PART)
        if self._health.phase == "starting":
            self._health.phase = "started"

    async def _pause(self, error: TelegramError) -> None:
        self._failures += 1
        self._health.fail(PART, str(error))
        if self._health.phase == "starting":
            self._health.phase = "started"
        pause = min(2.0 ** (self._failures - 1) / 2, LONGEST_PAUSE_SECONDS)
        if error.code == CONFLICT:
            pause = CONFLICT_PAUSE_SECONDS
        elif error.code == UNAUTHORIZED:
            pause = UNAUTHORIZED_PAUSE_SECONDS
        elif error.code == TOO_MANY and error.retry_after is not None:
            pause = min(error.retry_after, LONGEST_RETRY_AFTER_SECONDS)
        log.warning("telegram failed: %s; next try in %.1f s", error, pause)
        await asyncio.sleep(pause)


class Spool:
    """Updates that were taken from Telegram and are not answered yet, one file each."""

    def __init__(self, state: Path) -> None:
        self._folder = state / "telegram" / "spool"
        self._folder.mkdir(parents=True, exist_ok=True)

    def keep(self, update: Json) -> None:
        path = self._path(update)
        path.with_suffix(".part").write_text(json.dumps(update), encoding="utf-8")
        path.with_suffix(".part").rename(path)

    def done(self, update: Json) -> None:
        self._path(update).unlink(missing_ok=True)

    def waiting(self) -> list[Json]:
        paths = sorted(self._folder.glob("*.json"), key=lambda path: int(path.stem))
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]

    def _path(self, update: Json) -> Path:
        return self._folder / f"{int(update['update_id'])}.json"


def _refused(status: int, body: Any) -> TelegramError:
    fields = body if isinstance(body, dict) else {}
    after = (fields.get("parameters") or {}).get("retry_after")
    return TelegramError(
        int(fields.get("error_code") or status),
        str(fields.get("description") or "no description"),
        float(after) if after is not None else None,
    )
