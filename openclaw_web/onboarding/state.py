"""What the chat shows.

Rebuilt from the database at each event, so that closing the tab loses nothing.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import uuid4

import reflex as rx
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import cookies
from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.messages import sentence_of
from openclaw_web.accounts.queries import Principal
from openclaw_web.billing import queries as billing
from openclaw_web.billing.models import Tier
from openclaw_web.billing.tiers import plans
from openclaw_web.boxes import queries as boxes
from openclaw_web.boxes import waiting
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.core.clock import real_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import OpenClawError
from openclaw_web.integrations import telegram
from openclaw_web.jobs import queries as jobs
from openclaw_web.onboarding import chats, conversation, listening, paying, queries, service
from openclaw_web.onboarding.conversation import Step
from openclaw_web.onboarding.models import OnboardingSession, OnboardingState
from openclaw_web.ui import format as fmt
from openclaw_web.ui.navigation import leave_to
from openclaw_web.ui.showing import show

logger = logging.getLogger(__name__)

BEGIN = "/start/begin"
BEGIN_ANEW = f"{BEGIN}?fresh=true"
HOME = "/home"
# In these steps the outside world moves the chat on, so the page looks again by itself.
WAITING = frozenset(
    {Step.PRESS_START, Step.PAY, Step.WATCH, Step.SAY_HELLO, Step.FAILED, Step.REFUNDING}
)
# A customer who has an assistant belongs on their own page, except while its chat ends.
PAID = frozenset({OnboardingState.PROVISIONING, OnboardingState.COMPLETE, OnboardingState.FAILED})
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
    waiting_note: str = ""
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
        query = {name: _clean(value) for name, value in self.router.url.query_parameters.items()}
        tier = query.get("tier", "")
        if not token:
            if query.get("begun"):
                self.error = (
                    "Your browser keeps no cookies for this site. Please allow them and reload."
                )
                self.is_loaded = True
                return None
            return leave_to(f"{BEGIN}?tier={tier}" if tier in set(Tier) else BEGIN)
        self.error = sentence_of(query.get("error", ""))
        return await self._run(lambda session: self._arrive(session, token, query))

    @rx.event
    async def send(self, form: dict[str, Any]) -> Any:
        """Take what was typed into the composer."""
        text, client_id = _text(form, "text"), _text(form, "client_id")
        seen = self.step
        return await self._act(
            lambda session, token: service.answer(
                session, token, text, client_id=client_id, seen=seen
            )
        )

    @rx.event
    async def choose(self, value: str) -> Any:
        """Take a quick reply; one that is not offered is a late second click."""
        label = next((one["label"] for one in self.chips if one["value"] == value), "")
        client_id, seen = self.composer_id, self.step
        if not label:
            return None
        return await self._act(
            lambda session, token: service.answer(
                session, token, label, client_id=client_id, seen=seen
            )
        )

    @rx.event
    async def give_token(self, form: dict[str, Any]) -> Any:
        """Take the bot's token; it goes to Telegram and into the vault, never into the chat."""
        bot_token = _text(form, "bot_token")
        return await self._act(lambda session, token: service.give_bot(session, token, bot_token))

    @rx.event
    async def other_bot(self) -> Any:
        return await self._act(service.forget_bot)

    @rx.event
    async def confirm(self, is_me: bool) -> Any:
        return await self._act(
            lambda session, token: service.confirm_person(session, token, is_me=is_me is True)
        )

    @rx.event
    async def take_tier(self, tier: str) -> Any:
        if not isinstance(tier, str) or tier not in set(Tier):
            return None
        return await self._act(
            lambda session, token: service.choose_tier(session, token, Tier(tier))
        )

    @rx.event
    async def change_tier(self) -> Any:
        return await self._act(service.change_tier)

    @rx.event
    async def give_email(self, form: dict[str, Any]) -> Any:
        email, ip = _text(form, "email"), self.router.session.client_ip
        return await self._act(
            lambda session, token: service.give_email(session, token, email, ip=ip)
        )

    @rx.event
    async def other_email(self) -> Any:
        return await self._act(service.forget_email)

    @rx.event
    async def pay(self) -> Any:
        """Go to Stripe's page; no transaction is open while Stripe is asked."""
        token = self._visitor_token()
        if not token:
            yield leave_to(BEGIN)
            return
        show(self, error="")
        self.is_busy = True
        yield
        elsewhere = await self._run(lambda session: self._reload(session, token))
        opened = None
        if elsewhere is None and not self.error:
            opened = await self._guarded(lambda: paying.open_page(token))
        self.is_busy = False
        if elsewhere is not None:
            yield elsewhere
        elif opened is not None and opened.url:
            yield leave_to(opened.url)

    @rx.event
    async def retry(self) -> Any:
        """Try the set-up again, after a failure."""
        return await self._act(service.retry)

    @rx.event
    async def tick(self, _date: str = "") -> Any:
        """Look again.

        Did somebody press Start, did the payment arrive, does the assistant answer?
        """
        token = self._visitor_token()
        if self.step not in WAITING or not token:
            return None
        if self.step == Step.PRESS_START:
            show(self, error="")
            await self._guarded(lambda: listening.look_for_start(token))
        return await self._run(lambda session: self._reload(session, token))

    async def _act(self, act: Callable[[AsyncSession, str], Awaitable[object]]) -> Any:
        """Do one thing to this visitor's chat and show what became of it."""
        token = self._visitor_token()
        if not token:
            return leave_to(BEGIN)

        async def act_and_show(session: AsyncSession) -> Any:
            if await self._is_somebody_elses(session, token):
                return leave_to(BEGIN_ANEW)
            await act(session, token)
            return await self._reload(session, token)

        show(self, error="")
        return await self._run(act_and_show)

    async def _run(self, work: Callable[[AsyncSession], Awaitable[Any]]) -> Any:
        async def in_one_transaction() -> Any:
            async with session_scope() as session:
                return await work(session)

        return await self._guarded(in_one_transaction)

    async def _guarded(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do something; what goes wrong becomes a sentence on the page."""
        try:
            return await work()
        except OpenClawError as error:
            self.error = str(error)
        except Exception:
            logger.exception("The onboarding page failed.")
            self.error = SOMETHING_WENT_WRONG
        show(self, is_loaded=True)
        return None

    async def _arrive(self, session: AsyncSession, token: str, query: Mapping[str, str]) -> Any:
        if await self._is_somebody_elses(session, token):
            return leave_to(BEGIN_ANEW)
        chat = await service.open_chat(session, token, tier=query.get("tier", ""))
        principal = await accounts.find_principal(session, self._session_token())
        if principal is not None:
            await service.attach_customer(session, token, principal.customer_id)
            if chat.state not in PAID and await _has_assistant(session, principal):
                return rx.redirect(HOME)
        if query.get("checkout"):
            await service.came_back_from_payment(
                session, token, stripe_session_id=query["checkout"]
            )
        if query.get("payment") == "cancelled":
            await service.note_cancelled_payment(session, token)
        await self._show(session, chat)
        return None

    async def _reload(self, session: AsyncSession, token: str) -> Any:
        if await self._is_somebody_elses(session, token):
            return leave_to(BEGIN_ANEW)
        chat = await queries.find_chat(session, token)
        if chat is not None:
            await self._show(session, chat)
        return None

    async def _is_somebody_elses(self, session: AsyncSession, token: str) -> bool:
        """Say whether the chat has a customer who is not signed in here: a shared browser."""
        chat = await queries.find_chat(session, token)
        if chat is None or chat.customer_id is None:
            return False
        principal = await accounts.find_principal(session, self._session_token())
        return principal is None or principal.customer_id != chat.customer_id

    async def _show(self, session: AsyncSession, chat: OnboardingSession) -> None:
        known = await chats.known_of(session, chat)
        step = conversation.step_of(chat.state, known)
        messages = [
            {"id": str(one["id"]), "side": one["from"], "text": one["text"]}
            for one in chat.messages
        ]
        if messages != self.messages or not self.composer_id:
            self.composer_id = str(uuid4())
        show(
            self,
            step=step.value,
            is_waiting=step in WAITING,
            messages=messages,
            chips=[{"label": one.label, "value": one.value} for one in conversation.choices(step)],
            done=conversation.progress(chat.state),
            code_email=str(known.config.get("email", "")),
            offers=_offers(known.config) if step is Step.TIER else [],
            happenings=await _happenings(session, chat, step),
            waiting_note=await _waiting_note(session, chat, step),
            is_loaded=True,
        )
        await self._show_bot(session, chat, step)

    async def _show_bot(self, session: AsyncSession, chat: OnboardingSession, step: Step) -> None:
        """Show the bot that this chat holds, or gave to its box."""
        secret = await queries.find_secret(session, chat.id)
        bot = await boxes.find_bot(session, chat.box_id) if chat.box_id else None
        name = secret.bot_username if secret else (bot.bot_username if bot else None) or ""
        link = telegram.bot_link(name) if name else ""
        if step is Step.PRESS_START:
            link = await service.start_link(session, chat)
        show(self, bot_name=name, bot_link=link)

    def _visitor_token(self) -> str:
        return cookies.visitor_token(self.router.headers.cookie) or ""

    def _session_token(self) -> str:
        return cookies.session_token(self.router.headers.cookie) or ""


async def _has_assistant(session: AsyncSession, who: Principal) -> bool:
    """Say whether this customer has what the chat would sell."""
    if await billing.find_live_subscription(session, who.customer_id) is None:
        return False
    box = await boxes.find_box_of_customer(session, who.customer_id)
    return box is not None and box.status is not BoxStatus.DESTROYED


async def _happenings(
    session: AsyncSession, chat: OnboardingSession, step: Step
) -> list[dict[str, str]]:
    """Return what the operator did for this chat's box so far."""
    if chat.customer_id is None or step not in {Step.WATCH, Step.FAILED}:
        return []
    newest = await jobs.jobs_of_customer(session, chat.customer_id, limit=1)
    lines = [{"text": line["text"], "tone": "done"} for job in newest for line in job.progress]
    if step is Step.WATCH and lines:
        lines[-1]["tone"] = "busy"
    return lines


async def _waiting_note(session: AsyncSession, chat: OnboardingSession, step: Step) -> str:
    """Return where the set-up stands in the queue and why it waits; '' while somebody is at it."""
    if step is not Step.WATCH or chat.customer_id is None or chat.box_id is None:
        return ""
    standing = await jobs.queue_standing(session, chat.customer_id, chat.box_id)
    return waiting.sentence_of(standing, real_now()) if standing else ""


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
    return _clean(value)


def _clean(value: Any) -> str:
    """Return a text that the database can take: not too long, no NUL, no half of a character."""
    if not isinstance(value, str):
        return ""
    short = value[:MAX_FORM_CHARACTERS].replace("\x00", "")
    return short.encode("utf-8", "ignore").decode("utf-8")
