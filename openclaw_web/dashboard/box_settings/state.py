"""What the page of the settings shows and does; nothing that was typed is lost on an error."""

import hashlib
import json
from typing import Any
from uuid import UUID

import reflex as rx
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts.state import AuthState
from openclaw_web.billing.tiers import plan_of
from openclaw_web.boxes import previews, queries
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.models import Box
from openclaw_web.boxes.openclaw_config import LANGUAGES
from openclaw_web.boxes.previews import AppliedState, Preview
from openclaw_web.boxes.service import BoxSettings
from openclaw_web.core.errors import OpenClawError
from openclaw_web.dashboard.acting import act
from openclaw_web.dashboard.box_settings import reading
from openclaw_web.dashboard.loading import Loaded
from openclaw_web.ui import format as fmt
from openclaw_web.ui.showing import show
from openclaw_web.workflows import box_acts
from openclaw_web.workflows.api_access import By, find_box

NOTHING_CHANGED = "Nothing has changed, so there is nothing to save."
AT_ONCE = "Takes effect at once."
BADGES = {
    "applied": ("Applied", "good"),
    "applying": ("Being applied", "busy"),
    "waiting_for_proof": ("Written", "busy"),
    "rolled_back": ("Went back", "warning"),
    "not_running": ("Saved", "quiet"),
}


class BoxSettingsState(Loaded, AuthState):
    """The settings as they are, as somebody wants them, and what became of them."""

    has_box: bool = False
    # What the form begins with. A form of another version is drawn anew.
    version: str = ""
    language: str = ""
    model: str = ""
    thinking_level: str = ""
    use_case: str = ""
    style: str = ""
    limit_behaviour: str = ""
    models: list[dict[str, str]] = []
    # Who may talk to it: a draft until it is saved.
    people: list[dict[str, str]] = []
    people_note: str = ""
    is_full: bool = False
    person_problem: str = ""
    plan: str = ""
    most_people: int = 1
    # What became of the newest settings.
    badge: str = ""
    badge_tone: str = "quiet"
    applied: str = ""
    # What is being asked before anything is saved.
    problem: str = ""
    note: str = ""
    is_asking: bool = False
    changes: list[dict[str, str]] = []
    restarts: bool = False
    takes: str = ""

    _draft: BoxSettings | None = None
    _draft_limit: str = ""
    _is_filled: bool = False

    @rx.event
    async def load(self) -> None:
        """Show everything anew, and forget a draft."""
        self._is_filled = False
        self._draft = None
        show(self, problem="", person_problem="", note="", is_asking=False)
        await self._look()

    @rx.event
    async def add_person(self, form: dict[str, Any]) -> None:
        """Put somebody on the list; saved with everything else."""
        try:
            text = form.get("person") if isinstance(form, dict) else None
            found = reading.person(text, self._ids(), self.most_people, self.plan)
        except OpenClawError as error:
            show(self, person_problem=str(error))
            return
        self._show_people([*self._ids(), found])
        show(self, person_problem="", note="")

    @rx.event
    async def remove_person(self, person: str) -> None:
        """Take somebody off the list; the owner stays."""
        first, *others = self._ids() or [0]
        self._show_people([first, *(one for one in others if str(one) != person)])
        show(self, person_problem="", note="")

    @rx.event
    async def look_at(self, form: dict[str, Any]) -> None:
        """Say what saving would change, before anything is saved."""
        show(self, problem="", note="")
        try:
            wanted, at_limit = reading.chosen(form, self._ids())
            shown, is_other = await act(self, _preview, wanted, at_limit)
        except OpenClawError as error:
            show(self, problem=str(error))
            return
        if not shown.changes and not is_other:
            show(self, note=NOTHING_CHANGED)
            return
        self._draft, self._draft_limit = wanted, at_limit
        self._ask(shown, at_limit if is_other else "")

    @rx.event
    async def stop_asking(self, is_open: bool = False) -> None:
        """Close the question; what was typed stays where it is."""
        if is_open is not True:
            self._draft = None
            show(self, is_asking=False)

    @rx.event
    async def save(self) -> rx.event.EventSpec | None:
        """Save what was just shown; a refusal is said beside the form."""
        wanted, self._draft = self._draft, None
        show(self, is_asking=False)
        if wanted is None:
            return None
        try:
            await act(self, box_acts.change_settings, wanted, limit_behaviour=self._draft_limit)
        except OpenClawError as error:
            show(self, problem=str(error))
            return None
        self._is_filled = False
        await self._look()
        return rx.toast("Saved.")

    def _ask(self, shown: Preview, at_limit: str) -> None:
        changes = [
            {"name": one.name, "before": one.before, "after": one.after} for one in shown.changes
        ]
        if at_limit:
            changes.append(
                {
                    "name": "At the limit",
                    "before": reading.LIMIT_LABELS[self.limit_behaviour],
                    "after": reading.LIMIT_LABELS[at_limit],
                }
            )
        show(
            self,
            is_asking=True,
            changes=changes,
            restarts=shown.needs_restart,
            takes=shown.sentence if shown.changes else AT_ONCE,
        )

    async def _show(self, session: AsyncSession, customer_id: UUID) -> None:
        box = await find_box(session, customer_id)
        show(self, has_box=box is not None)
        if box is None:
            return
        plan = plan_of((await queries.get_subscription(session, box)).tier)
        show(
            self,
            plan=plan.name,
            most_people=plan.telegram_users,
            models=reading.model_options(plan.models),
        )
        if not self._is_filled:
            self._fill(box, await boxes.current_settings(session, box))
        self._show_applied(await previews.applied_state(session, box))

    def _fill(self, box: Box, settings: BoxSettings) -> None:
        """Put what is saved into the form."""
        self._is_filled = True
        self._show_people(list(settings.telegram_user_ids))
        values = {
            "language": settings.language if settings.language in LANGUAGES else "en",
            "model": reading.model_value(settings.model),
            "thinking_level": settings.thinking_level,
            "use_case": settings.use_case,
            "style": settings.style,
            "limit_behaviour": box.limit_behaviour,
        }
        text = json.dumps([str(box.id), values], sort_keys=True)
        show(self, version=hashlib.sha256(text.encode()).hexdigest()[:12], **values)

    def _show_people(self, ids: list[int]) -> None:
        free = self.most_people - len(ids)
        show(
            self,
            people=[
                {"id": str(one), "role": "owner" if number == 0 else ""}
                for number, one in enumerate(ids)
            ],
            is_full=free <= 0,
            people_note=f"The {self.plan} plan is for {reading.people(self.most_people)}."
            + (f" There is room for {free} more." if free > 0 else ""),
        )

    def _show_applied(self, state: AppliedState) -> None:
        label, tone = BADGES[state.kind]
        when = f" {fmt.day_and_time(state.at)}" if state.at and state.kind != "applying" else ""
        show(self, badge=label, badge_tone=tone, applied=f"{state.sentence}{when}")

    def _ids(self) -> list[int]:
        return [int(one["id"]) for one in self.people]


async def _preview(
    session: AsyncSession, wanted: BoxSettings, at_limit: str, *, by: By
) -> tuple[Preview, bool]:
    """Return what would change, and whether that at the limit would."""
    box = await box_acts.get_box(session, by.customer_id)
    shown = await previews.preview_settings(session, box, wanted)
    return shown, box.limit_behaviour != at_limit
