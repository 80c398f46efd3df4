"""What the page for a customer's own programs shows and does."""

from datetime import datetime
from typing import Any
from uuid import UUID

import reflex as rx
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts.state import AuthState
from openclaw_web.billing import queries as billing
from openclaw_web.billing.tiers import plan_of, plans
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.core.clock import business_now
from openclaw_web.core.errors import OpenClawError, ValidationError
from openclaw_web.core.settings import settings
from openclaw_web.dashboard.acting import act, id_of
from openclaw_web.dashboard.loading import Loaded
from openclaw_web.metering import queries as metering
from openclaw_web.metering.queries import ApiKeyView
from openclaw_web.metering.service import MOST_API_KEYS
from openclaw_web.metering.tokens import IssuedToken
from openclaw_web.ui import format as fmt
from openclaw_web.ui.showing import show
from openclaw_web.workflows import api_access

API_PATH = "/proxy/v1"
NO_SUCH_KEY = "There is no such key any more."
CURL = """\
export OPENCLAW_API_KEY=…

curl {url}/chat/completions \\
  -H "Authorization: Bearer $OPENCLAW_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Say hello"}}]}}'"""
PYTHON = """\
import os
from openai import OpenAI  # pip install openai

client = OpenAI(base_url="{url}", api_key=os.environ["OPENCLAW_API_KEY"])
answer = client.chat.completions.create(
    model="{model}",
    messages=[{{"role": "user", "content": "Say hello"}}],
)
print(answer.choices[0].message.content)"""


class ApiAccessState(Loaded, AuthState):
    """API access of the customer's box; whose it is, only the session says."""

    has_box: bool = False
    is_on: bool = False
    is_asleep: bool = False
    keys: list[dict[str, str]] = []
    has_keys: bool = False
    is_full: bool = False
    problem: str = ""
    # Shown once: gone with the next look at the page, and never in the database.
    new_key: str = ""
    new_label: str = ""
    base_url: str = ""
    curl: str = ""
    python: str = ""

    @rx.event
    async def load(self) -> None:
        """Show everything anew, and forget a key that was shown."""
        show(self, new_key="", new_label="", problem="")
        await self._look()

    @rx.event
    async def turn_on(self) -> rx.event.EventSpec | None:
        return await self._switch(is_on=True)

    @rx.event
    async def turn_off(self) -> rx.event.EventSpec | None:
        return await self._switch(is_on=False)

    @rx.event
    async def create(self, form: dict[str, Any]) -> rx.event.EventSpec | None:
        """Make a key with the name that was typed."""
        label = form.get("label") if isinstance(form, dict) else None
        show(self, problem="")
        try:
            if not isinstance(label, str):
                raise ValidationError("Give the key a name, so that you know it again.")
            issued = await act(self, api_access.create_key, label)
        except OpenClawError as error:
            show(self, problem=str(error))
            return None
        return await self._reveal(issued)

    @rx.event
    async def replace(self, key_id: str) -> rx.event.EventSpec | None:
        """Make another key of the same name."""
        try:
            issued = await act(self, api_access.replace_key, id_of(key_id, NO_SUCH_KEY))
        except OpenClawError as error:
            return rx.toast.error(str(error))
        return await self._reveal(issued)

    @rx.event
    async def revoke(self, key_id: str) -> rx.event.EventSpec | None:
        """End a key."""
        try:
            label = await act(self, api_access.revoke_key, id_of(key_id, NO_SUCH_KEY))
        except OpenClawError as error:
            return rx.toast.error(str(error))
        await self._look()
        return rx.toast(f"“{label}” was revoked.")

    @rx.event
    async def forget_new_key(self) -> None:
        """Stop showing the key: it is noted down somewhere else now."""
        show(self, new_key="", new_label="")

    async def _switch(self, *, is_on: bool) -> rx.event.EventSpec | None:
        try:
            await act(self, api_access.switch, is_on=is_on)
        except OpenClawError as error:
            return rx.toast.error(str(error))
        await self._look()
        return None

    async def _reveal(self, issued: IssuedToken) -> rx.event.EventSpec:
        await self._look()
        key_id = str(issued.token_id)
        label = next((key["label"] for key in self.keys if key["id"] == key_id), "")
        show(self, new_key=issued.clear, new_label=label)
        return rx.set_focus("copy-new-key")

    async def _show(self, session: AsyncSession, customer_id: UUID) -> None:
        box = await api_access.find_box(session, customer_id)
        now = await business_now(session)
        keys = await metering.api_keys_of_customer(session, customer_id) if box else []
        show(
            self,
            has_box=box is not None,
            is_on=box is not None and box.api_access,
            is_asleep=box is not None and box.status is BoxStatus.SUSPENDED,
            keys=[_row(key, now) for key in keys],
            has_keys=bool(keys),
            is_full=len(keys) >= MOST_API_KEYS,
        )
        subscription = await billing.find_live_subscription(session, customer_id)
        plan = plan_of(subscription.tier) if subscription is not None else plans()[0]
        url = f"{settings().public_url}{API_PATH}"
        show(
            self,
            base_url=url,
            curl=CURL.format(url=url, model=plan.models[0]),
            python=PYTHON.format(url=url, model=plan.models[0]),
        )


def _row(key: ApiKeyView, now: datetime) -> dict[str, str]:
    is_ending = key.expires_at is not None
    return {
        "id": str(key.id),
        "label": key.label or "Without a name",
        "shown": f"ocp_…{key.last4}",
        "created": fmt.day(key.created_at),
        "used": fmt.ago(key.last_used_at, now) if key.last_used_at else "never",
        "ending": f"replaced; works until {key.expires_at:%H:%M} UTC" if is_ending else "",
    }
