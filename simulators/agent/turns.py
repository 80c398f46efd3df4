"""A turn: a person's message goes to the model with what was said before, the answer goes back."""

import asyncio
import contextlib
import json
import logging
import time
from collections import defaultdict
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx

from simulators.agent import model as models
from simulators.agent.config import Config
from simulators.agent.markup import chunks, to_html
from simulators.agent.memory import Memory, user_notes
from simulators.agent.reload import LiveConfig
from simulators.agent.telegram import COMMANDS, Spool, TelegramClient, TelegramError

TYPING_EVERY_SECONDS = 4.0
SEND_TRIES = 3
SYSTEM = (
    "You are a personal assistant running inside OpenClaw."
    " You talk with one person on Telegram: be helpful, brief and honest."
)
TEXT_ONLY = "I can only read text messages."
log = logging.getLogger("agent.turns")


class Cooldown:
    """Providers that are left alone until a time; kept on disk, because OpenClaw does so too."""

    def __init__(self, state: Path) -> None:
        self._path = state / "cooldown.json"

    def block(self, provider: str, seconds: float) -> None:
        kept = self._read() | {provider: time.time() + seconds}
        self._path.write_text(json.dumps(kept), encoding="utf-8")

    def is_blocked(self, provider: str) -> bool:
        return self._read().get(provider, 0.0) > time.time()

    def _read(self) -> dict[str, float]:
        try:
            return json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}


class Assistant:
    """Answers messages: those of one session in order, sessions beside each other."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        live: LiveConfig,
        client: TelegramClient,
        spool: Spool,
        *,
        state: Path,
        mounted_user_file: Path | None,
    ) -> None:
        self._http = http
        self._live = live
        self._client = client
        self._spool = spool
        self._state = state
        self._mounted_user_file = mounted_user_file
        self._memory = Memory(state)
        self._cooldown = Cooldown(state)
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._turns: set[asyncio.Task[None]] = set()

    def take(self, update: dict[str, Any]) -> None:
        """Answer an update in the background; what nobody may ask is dropped without a word."""
        message = update.get("message") or {}
        person_id = int((message.get("from") or {}).get("id") or 0)
        telegram = self._live.current.telegram
        is_private = (message.get("chat") or {}).get("type") == "private"
        if not is_private or telegram is None or not telegram.may_write(person_id):
            log.info("update dropped: the sender is not allowed")
            self._spool.done(update)
            return
        task = asyncio.create_task(self._answer(update, person_id, message.get("text") or ""))
        self._turns.add(task)
        task.add_done_callback(self._turn_ended)

    def _turn_ended(self, task: asyncio.Task[None]) -> None:
        self._turns.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("turn broke: %s", type(task.exception()).__name__)

    async def drain(self, seconds: float) -> None:
        """Wait for the turns on their way; what is not done stays in the spool."""
        if self._turns:
            await asyncio.wait(self._turns, timeout=seconds)
        for turn in list(self._turns):
            turn.cancel()

    async def _answer(self, update: dict[str, Any], person_id: int, text: str) -> None:
        session = "agent:main:main"
        if self._live.current.has_session_per_person:
            session = f"agent:main:telegram:direct:{person_id}"
        began = time.monotonic()
        async with self._locks[session]:
            outcome = await self._outcome(session, person_id, text)
            if outcome:
                await self._send(person_id, outcome)
        self._spool.done(update)
        log.info("turn finished in %.1f s", time.monotonic() - began)

    async def _outcome(self, session: str, person_id: int, text: str) -> str:
        if not text:
            return TEXT_ONLY
        local = self._command(session, person_id, text)
        if local is not None:
            return local
        async with self._typing(person_id):
            return await self._ask(session, text)

    async def _ask(self, session: str, text: str) -> str:
        config = self._live.current
        key = config.model.provider
        if self._cooldown.is_blocked(key):
            return self._error_text(config, models.GENERIC)
        messages = [*self._memory.recent(session), {"role": "user", "content": text}]
        try:
            answer = await models.ask(self._http, config.model, self._system(config), messages)
        except models.ModelError as error:
            log.warning("model call failed: %s", error)
            if error.block_seconds:
                self._cooldown.block(key, error.block_seconds)
            return self._error_text(config, error.text)
        if not answer.strip():
            log.warning("model call failed: empty answer")
            return self._error_text(config, models.GENERIC)
        self._memory.add_turn(session, text, answer)
        return answer

    def _error_text(self, config: Config, text: str) -> str:
        is_silent = config.telegram is not None and config.telegram.is_silent_on_errors
        return "" if is_silent else text

    def _system(self, config: Config) -> str:
        workspace = Path(config.workspace) if config.workspace else self._state / "workspace"
        notes = user_notes(workspace, self._mounted_user_file)
        return f"{SYSTEM}\n\n## USER.md\n{notes}" if notes else SYSTEM

    def _command(self, session: str, person_id: int, text: str) -> str | None:
        """Return the answer to a command that needs no model; None for everything else."""
        command = text.split(maxsplit=1)[0].partition("@")[0].lower()
        if command in {"/new", "/reset"}:
            self._memory.forget(session)
            return "✅ New session started."
        if command == "/help":
            return "\n".join(f"/{name} - {what}" for name, what in COMMANDS)
        if command == "/whoami":
            return f"Your Telegram id is {person_id}."
        if command == "/status":
            model = self._live.current.model
            turns = len(self._memory.recent(session)) // 2
            return (
                f"🦞 OpenClaw stand-in\nModel: {model.provider}/{model.id}"
                f"\nThinking: {model.thinking}\nTurns remembered: {turns}"
            )
        return None

    @contextlib.asynccontextmanager
    async def _typing(self, person_id: int) -> AsyncGenerator[None]:
        async def show() -> None:
            while True:
                with contextlib.suppress(TelegramError):
                    await self._client.call("sendChatAction", chat_id=person_id, action="typing")
                await asyncio.sleep(TYPING_EVERY_SECONDS)

        shown = asyncio.create_task(show())
        try:
            yield
        finally:
            shown.cancel()

    async def _send(self, person_id: int, text: str) -> None:
        for piece in chunks(text):
            for attempt in range(SEND_TRIES):
                try:
                    await self._client.call(
                        "sendMessage", chat_id=person_id, text=to_html(piece), parse_mode="HTML"
                    )
                    break
                except TelegramError as error:
                    log.warning("sending failed: %s", error)
                    if attempt == SEND_TRIES - 1 or _is_final(error.code):
                        return
                    await asyncio.sleep(error.retry_after or 1.0)


def _is_final(code: int) -> bool:
    """Say whether Telegram would refuse the same call again."""
    return httpx.codes.is_client_error(code) and code != httpx.codes.TOO_MANY_REQUESTS
