"""A visitor of the chat, for tests: what they know, what they say, and what became of it."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import httpx
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import service as accounts
from openclaw_web.billing.models import Tier
from openclaw_web.core.database import session_scope
from openclaw_web.core.security import new_token
from openclaw_web.onboarding import chats, listening, queries, service
from openclaw_web.onboarding.conversation import Step
from openclaw_web.onboarding.models import OnboardingSecret, OnboardingSession

PERSON = 111222333
STRANGER = 444555666


class Telegram:
    """The Telegram simulator, as people and BotFather use it."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def new_bot(self) -> dict[str, Any]:
        """Make a bot and return its id, username and token."""
        username = f"a{uuid4().hex[:12]}_bot"
        return self._post("/_control/bots", {"name": "Helper", "username": username})

    def write(self, bot: dict[str, Any], text: str, *, person: int = PERSON) -> None:
        body = {"from": person, "bot": bot["username"], "text": text, "name": f"Person {person}"}
        self._post("/_control/messages", body)

    def press_start(self, bot: dict[str, Any], link: str, *, person: int = PERSON) -> None:
        """Press Start behind a link of ours."""
        self.write(bot, f"/start {link.partition('start=')[2]}", person=person)

    def fail(self, method: str, error_code: int, description: str, *, times: int = 1) -> None:
        fault = {"method": method, "error_code": error_code, "description": description}
        self._post("/_control/faults", {**fault, "times": times})

    def call(self, bot: dict[str, Any], method: str, **parameters: Any) -> Any:
        return self._post(f"/bot{bot['token']}/{method}", parameters)["result"]

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        answer = self._http.post(path, json=body)
        assert answer.is_success, answer.text
        return answer.json()


class Visitor:
    """Somebody with a cookie of ours."""

    def __init__(self) -> None:
        self.token = new_token()

    async def do(self, act: Callable[..., Awaitable[Any]], *values: Any, **named: Any) -> Any:
        """Let a function of the service act on this visitor's chat, in a transaction of its own."""
        async with session_scope() as session:
            return await act(session, self.token, *values, **named)

    async def arrive(self, tier: str = "") -> OnboardingSession:
        return await self.do(service.open_chat, tier=tier)

    async def say(self, text: str, client_id: str = "", seen: str = "") -> None:
        await self.do(service.answer, text, client_id=client_id, seen=seen)

    async def chat(self) -> OnboardingSession:
        async with session_scope() as session:
            chat = await queries.find_chat(session, self.token)
        assert chat is not None
        return chat

    async def step(self) -> Step:
        async with session_scope() as session:
            chat = await queries.find_chat(session, self.token)
            assert chat is not None
            return await chats.step_of(session, chat)

    async def texts(self, sender: str = "") -> list[str]:
        messages = (await self.chat()).messages
        return [one["text"] for one in messages if sender in {"", one["from"]}]

    async def link(self) -> str:
        chat = await self.chat()
        async with session_scope() as session:
            return await service.start_link(session, chat)

    async def looks(self) -> bool:
        return await listening.look_for_start(self.token)

    async def reach_bot(self) -> None:
        await self.arrive()
        await self.say("Yes, let's go")
        await self.say("Organise my days")

    async def reach_start(self, telegram: Telegram) -> dict[str, Any]:
        await self.reach_bot()
        bot = telegram.new_bot()
        await self.do(service.give_bot, bot["token"])
        return bot

    async def reach_language(self, telegram: Telegram) -> dict[str, Any]:
        bot = await self.reach_start(telegram)
        telegram.press_start(bot, await self.link())
        assert await self.looks()
        await self.do(service.confirm_person, is_me=True)
        return bot

    async def reach_tier(self, telegram: Telegram) -> dict[str, Any]:
        bot = await self.reach_language(telegram)
        await self.say("English")
        await self.say("Short and direct")
        return bot

    async def reach_payment(self, telegram: Telegram, email: str = "ada@example.com") -> Any:
        """Come to the payment and return the customer."""
        await self.reach_tier(telegram)
        await self.do(service.choose_tier, Tier.STARTER)
        await self.do(service.give_email, email, ip="198.51.100.7")
        async with session_scope() as session:
            customer = await accounts.ensure_customer(session, email)
        assert await self.do(service.attach_customer, customer.id)
        return customer


async def secrets_kept() -> list[OnboardingSecret]:
    async with session_scope() as session:
        return list((await session.exec(select(OnboardingSecret))).all())


async def change(session: AsyncSession, chat: OnboardingSession, **fields: Any) -> None:
    """Put a chat where a test wants it."""
    for name, value in fields.items():
        setattr(chat, name, value)
    session.add(chat)
    await session.commit()
