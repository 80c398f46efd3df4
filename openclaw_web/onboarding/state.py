"""What the chat shows.

Rebuilt from the database at each event, so that closing the tab loses nothing.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import reflex as rx
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import cookies
from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.messages import sentence_of
from openclaw_web.billing.models import Tier
from openclaw_web.billing.tiers import plans
from openclaw_web.boxes import queries as boxes
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import OpenClawError
from openclaw_web.integrations import telegram
from openclaw_web.jobs import queries as jobs
from openclaw_web.onboarding import conversation, queries, service
from openclaw_web.onboarding.conversation import Step
from openclaw_web.onboarding.models import OnboardingSession
from openclaw_web.ui import format as fmt
from openclaw_web.ui.navigation import leave_to

logger = logging.getLogger(__name__)

BEGIN = "/start/begin"
# In these steps the outside world moves the chat on, so the page looks again by itself.
WAITING = frozenset({Step.PRESS_START, Step.PAY, Step.WATCH, Step.SAY_HELLO})
MAX_FORM_CHARACTERS = 2_000
SOMETHING_WENT_WRONG = "Something went wrong on our side. Please try again in a moment."


class OnboardingView(rx.State):
    """The chat of one visitor, found by their cookie.

    Public, so each handler works on that chat only.
    """

    messages: list[dict[str, str]] = []
    step: str = ""
    chips: list[dict[str, str]] = []
    offers: list[dict[str, str]] = []
    happenings: list[dict[str, str]] = []
    done: int = 0
    composer_id: str = ""
    bot_name: str = ""
    bot_link: str = ""
    code_email: str = ""
    error: str = ""
    is_loaded: bool = False
    is_busy: bool = False
    is_waiting: bool = False

    @rx.event
    async def load(self) -> Any:
        """Show the chat; without a visitor's cookie fetch one first."""
        token = self._visitor_token()
        query = self.router.url.query_parameters
        tier = str(query.get("tier", ""))
        if not token:
            if query.get("begun"):
                self.error = (
                    "Your browser keeps no cookies for this site. Please allow them and reload."
                )
                self.is_loaded = True
                return None
            return leave_to(f"{BEGIN}?tier={tier}" if tier else BEGIN)
        self.error = sentence_of(str(query.get("error", "")))
        return await self._run(lambda session: self._arrive(session, token, dict(query)))

    @rx.event
    async def send(self, form: dict[str, Any]) -> Any:
        """Take what was typed into the composer."""
        text = _text(form, "text")
        client_id = _text(form, "client_id")
        if self.step in {Step.EMAIL, Step.CODE}:
            return await self._give_email_text(text)
        return await self._act(
            lambda session, token: service.answer(session, token, text, client_id=client_id)
        )

    @rx.event
    async def choose(self, value: str) -> Any:
        """Take a quick reply."""
        label = next((one["label"] for one in self.chips if one["value"] == value), "")
        client_id = self.composer_id
        return await self._act(
            lambda session, token: service.answer(session, token, label, client_id=client_id)
        )

    @rx.event
    async def give_token(self, form: dict[str, Any]) -> Any:
        """Take the bot's token; it goes to Telegram and into the vault, never into the chat."""
        bot_token = _text(form, "bot_token")
        return await self._act(lambda session, token: service.give_bot(session, token, bot_token))

    @rx.event
    async def confirm(self, is_me: bool) -> Any:
        return await self._act(
            lambda session, token: service.confirm_person(session, token, is_me=is_me is True)
        )

    @rx.event
    async def take_tier(self, tier: str) -> Any:
        if tier not in set(Tier):
            return None
        return await self._act(
            lambda session, token: service.choose_tier(session, token, Tier(tier))
        )

    @rx.event
    async def change_tier(self) -> Any:
        return await self._act(service.change_tier)

    @rx.event
    async def give_email(self, form: dict[str, Any]) -> Any:
        return await self._give_email_text(_text(form, "email"))

    @rx.event
    async def other_email(self) -> Any:
        return await self._act(service.forget_email)

    @rx.event
    async def pay(self) -> Any:
        """Go to Stripe's page."""
        token = self._visitor_token()
        addresses: list[str] = []

        async def open_page(session: AsyncSession) -> None:
            checkout = await service.checkout(session, token)
            addresses.append(checkout.url or "")

        self.is_busy = True
        yield
        await self._run(open_page)
        self.is_busy = False
        if addresses and addresses[0]:
            yield leave_to(addresses[0])

    @rx.event
    async def retry(self) -> Any:
        """Try the set-up again, after a failure."""
        return await self._act(service.retry)

    @rx.event
    async def tick(self, _date: str = "") -> Any:
        """Look again.

        Did somebody press Start, did the payment arrive, does the assistant answer?
        """
        if self.step not in WAITING or not (token := self._visitor_token()):
            return None
        if self.step == Step.PRESS_START:
            return await self._act(service.look_for_start)
        return await self._run(lambda session: self._reload(session, token))

    async def _give_email_text(self, email: str) -> Any:
        ip = self.router.session.client_ip
        return await self._act(
            lambda session, token: service.give_email(session, token, email, ip=ip)
        )

    async def _act(self, act: Callable[[AsyncSession, str], Awaitable[object]]) -> Any:
        """Do one thing to this visitor's chat and show what became of it."""
        token = self._visitor_token()
        if not token:
            return leave_to(BEGIN)

        async def act_and_show(session: AsyncSession) -> None:
            await act(session, token)
            await self._reload(session, token)

        self.error = ""
        return await self._run(act_and_show)

    async def _run(self, work: Callable[[AsyncSession], Awaitable[Any]]) -> Any:
        try:
            async with session_scope() as session:
                return await work(session)
        except OpenClawError as error:
            self.error = str(error)
        except Exception:
            logger.exception("The onboarding page failed.")
            self.error = SOMETHING_WENT_WRONG
        self.is_loaded = True
        return None

    async def _arrive(self, session: AsyncSession, token: str, query: dict[str, str]) -> Any:
        chat = await service.open_chat(session, token, tier=query.get("tier", ""))
        principal = await accounts.find_principal(session, self._session_token())
        signed_in = principal.customer_id if principal else None
        if chat.customer_id is not None and chat.customer_id != signed_in:
            # Somebody else's chat on a shared browser: begin a new one.
            return leave_to(f"{BEGIN}?fresh=true")
        if signed_in is not None:
            await service.attach_customer(session, token, signed_in)
        if query.get("checkout"):
            await service.came_back_from_payment(
                session, token, stripe_session_id=query["checkout"]
            )
        if query.get("payment") == "cancelled":
            await service.note_cancelled_payment(session, token)
        await self._show(session, chat)
        return None

    async def _reload(self, session: AsyncSession, token: str) -> None:
        chat = await queries.find_chat(session, token)
        if chat is not None:
            await self._show(session, chat)

    async def _show(self, session: AsyncSession, chat: OnboardingSession) -> None:
        known = await service.known_of(session, chat)
        step = conversation.step_of(chat.state, known)
        self.step = step.value
        self.is_waiting = step in WAITING
        self.messages = [
            {"id": str(one["id"]), "side": one["from"], "text": one["text"]}
            for one in chat.messages
        ]
        self.chips = [
            {"label": one.label, "value": one.value} for one in conversation.choices(step)
        ]
        self.done = conversation.progress(chat.state)
        self.composer_id = str(uuid4())
        self.code_email = str(known.config.get("email", ""))
        self.offers = _offers(known.config) if step is Step.TIER else []
        await self._show_bot(session, chat, step)
        await self._show_happenings(session, chat.customer_id, step)
        self.is_loaded = True

    async def _show_bot(self, session: AsyncSession, chat: OnboardingSession, step: Step) -> None:
        secret = await queries.find_secret(session, chat.id)
        box = (
            await boxes.find_box_of_customer(session, chat.customer_id)
            if chat.customer_id
            else None
        )
        bot = await boxes.find_bot(session, box.id) if box else None
        self.bot_name = bot.bot_username or "" if bot else (secret.bot_username if secret else "")
        if step is Step.PRESS_START:
            self.bot_link = await service.start_link(session, chat)
        else:
            self.bot_link = telegram.bot_link(self.bot_name) if self.bot_name else ""

    async def _show_happenings(
        self, session: AsyncSession, customer_id: UUID | None, step: Step
    ) -> None:
        self.happenings = []
        if customer_id is None or step not in {Step.WATCH, Step.SAY_HELLO, Step.FAILED}:
            return
        newest = await jobs.jobs_of_customer(session, customer_id, limit=1)
        lines = newest[0].progress if newest else []
        self.happenings = [{"text": line["text"], "tone": "done"} for line in lines]
        if step is Step.WATCH and self.happenings:
            self.happenings[-1]["tone"] = "busy"

    def _visitor_token(self) -> str:
        return cookies.visitor_token(self.router.headers.cookie) or ""

    def _session_token(self) -> str:
        return cookies.session_token(self.router.headers.cookie) or ""


def _offers(config: Any) -> list[dict[str, str]]:
    recommended, _ = conversation.recommend(config)
    wish = config.get("tier_wish")
    return [
        {
            "tier": plan.tier.value,
            "name": plan.name,
            "price": f"{fmt.money(plan.price_cents, plan.currency)} a month",
            "detail": f"{fmt.tokens_short(plan.tokens_limit)} tokens, "
            + ("one person" if plan.telegram_users == 1 else f"up to {plan.telegram_users} people"),
            "mark": "Recommended"
            if plan.tier is recommended
            else ("Your pick" if plan.tier.value == wish else ""),
        }
        for plan in plans()
    ]


def _text(form: Any, name: str) -> str:
    """Return one field of a form; the browser may send anything."""
    value = form.get(name) if isinstance(form, dict) else None
    return value[:MAX_FORM_CHARACTERS] if isinstance(value, str) else ""
