"""What the page of the box shows and does; whose box it is, only the session says."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import reflex as rx
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts.state import AuthState
from openclaw_web.boxes import incidents, waiting, windows
from openclaw_web.boxes import queries as boxes
from openclaw_web.boxes.lifecycle import RUNNING
from openclaw_web.boxes.memory import backups, listing
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.boxes.reloading import RESTART_TAKES
from openclaw_web.core.clock import business_now, real_now
from openclaw_web.core.errors import OpenClawError
from openclaw_web.dashboard.acting import NO_SUCH_BACKUP, act, id_of
from openclaw_web.dashboard.box import sentences
from openclaw_web.dashboard.loading import Loaded
from openclaw_web.dashboard.state import headline
from openclaw_web.integrations import telegram
from openclaw_web.jobs import queries as jobs
from openclaw_web.ui import format as fmt
from openclaw_web.ui.showing import show
from openclaw_web.workflows import box_acts
from openclaw_web.workflows.api_access import GONE


class BoxState(Loaded, AuthState):
    """How the box is, what is done with it, and what it writes."""

    has_box: bool = False
    no_box_note: str = sentences.NOTHING_HERE
    status: str = ""
    status_tone: str = "quiet"
    sentence: str = ""
    since: str = ""
    links: list[dict[str, str]] = []
    bot_name: str = ""
    bot_link: str = ""
    bot_note: str = ""
    bot_problem: str = ""
    incident_note: str = ""
    # What the operator does now, or will do next.
    work: str = ""
    work_note: str = ""
    steps: list[dict[str, str]] = []
    may_restart: bool = False
    may_pause: bool = False
    may_resume: bool = False
    kept_asleep: str = ""
    must_pay: bool = False
    # Copies of its memory.
    memory_note: str = ""
    has_backups: bool = False
    are_backups_on: bool = False
    may_back_up: bool = False
    backups: list[dict[str, str]] = []
    # The look inside, only while somebody wants it.
    is_watching: bool = False
    log_note: str = ""
    log: str = ""
    log_before: str = ""
    events: list[dict[str, str]] = []

    _box_id: UUID | None = None

    @rx.event
    async def load(self) -> None:
        """Show everything anew, and what became of a form that was sent."""
        query = self.router.url.query_parameters
        show(
            self,
            bot_note=sentences.bot_note(str(query.get("bot", ""))),
            bot_problem=sentences.bot_problem(str(query.get("error", ""))),
            is_watching=False,
        )
        await self._look()

    @rx.event
    async def restart(self) -> rx.event.EventSpec | None:
        return await self._do(box_acts.restart, f"It restarts. That takes {RESTART_TAKES}.")

    @rx.event
    async def pause(self) -> rx.event.EventSpec | None:
        return await self._do(box_acts.pause, "It is being paused. Its memory is kept.")

    @rx.event
    async def resume(self) -> rx.event.EventSpec | None:
        return await self._do(box_acts.resume, f"It wakes up. That takes {RESTART_TAKES}.")

    @rx.event
    async def back_up(self) -> rx.event.EventSpec | None:
        done = f"A backup is made. Then your assistant starts again: {RESTART_TAKES}."
        return await self._do(box_acts.back_up, done)

    @rx.event
    async def restore(self, backup: str) -> rx.event.EventSpec | None:
        """Bring a backup back in place of what there is now."""
        done = f"The backup comes back. Then your assistant starts again: {RESTART_TAKES}."
        try:
            found = id_of(backup, NO_SUCH_BACKUP)
        except OpenClawError as error:
            return rx.toast.error(str(error))
        return await self._do(box_acts.restore, done, found)

    @rx.event
    async def open_log(self) -> None:
        """Show what the box writes, from now on."""
        show(self, is_watching=True, log_note=sentences.LOG_COMES)
        await self._look()

    @rx.event
    async def close_log(self) -> None:
        """Stop looking inside; nothing of it is kept."""
        if self._box_id is not None and self.is_watching:
            await windows.stop_watching(self._box_id)
        show(self, is_watching=False, log="", log_before="", events=[], log_note="")

    async def _do(
        self, do: Callable[..., Awaitable[Any]], done: str, *what: Any
    ) -> rx.event.EventSpec:
        """Do something, and say how it went; what it returns is more important than `done`."""
        try:
            said = await act(self, do, *what)
        except OpenClawError as error:
            return rx.toast.error(str(error))
        await self._look()
        return rx.toast.warning(said) if said else rx.toast(done)

    async def _show(self, session: AsyncSession, customer_id: UUID) -> None:
        now = await business_now(session)
        view = await boxes.box_status_view(session, customer_id)
        box = await boxes.find_box_of_customer(session, customer_id)
        if view is None or box is None or box.status is BoxStatus.DESTROYED:
            self._box_id = None
            former = await listing.list_former(session, customer_id)
            show(self, has_box=False, no_box_note=sentences.former_note(former))
            return
        status, tone = headline(view)
        self._box_id = box.id
        show(
            self,
            has_box=True,
            status=status,
            status_tone=tone,
            sentence=view.sentence,
            since=f"for {fmt.duration(now - view.since)}" if view.since else "",
            bot_name=view.bot_username,
            bot_link=telegram.bot_link(view.bot_username) if view.bot_username else "",
            links=[sentences.link_row(link, box, now) for link in view.links],
            incident_note=await incidents.banner(session, customer_id),
        )
        await self._show_acts(session, box)
        await self._show_work(session, box)
        await self._show_backups(session, box)
        await self._show_log(box)

    async def _show_acts(self, session: AsyncSession, box: Box) -> None:
        _, why = await boxes.desired_of(session, box)
        is_paused = box.user_paused_at is not None
        show(
            self,
            may_restart=box.status in RUNNING,
            may_pause=not is_paused and box.status in RUNNING,
            may_resume=is_paused and box.status not in GONE,
            kept_asleep=sentences.kept_asleep(why, is_paused=is_paused),
            must_pay=why.value == "not_paid" and box.status not in GONE,
        )

    async def _show_work(self, session: AsyncSession, box: Box) -> None:
        """Show what runs for this box, and where it stands in the queue while it waits."""
        job = await jobs.find_live_job_of_box(session, box.customer_id, box.id)
        standing = await jobs.queue_standing(session, box.customer_id, box.id)
        now = real_now()
        show(
            self,
            work=sentences.work(job) if job else "",
            work_note=waiting.sentence_of(standing, now) if standing else "",
            steps=sentences.steps(job) if job else [],
        )

    async def _show_backups(self, session: AsyncSession, box: Box) -> None:
        found = await listing.list_backups(session, box.customer_id, box.id)
        found += await listing.list_former(session, box.customer_id)
        show(
            self,
            memory_note=sentences.memory_note(backups.memory_from(box)),
            are_backups_on=backups.are_on(),
            may_back_up=backups.are_on() and box.activated_at is not None,
            has_backups=bool(found),
            backups=[sentences.backup_row(one) for one in found],
        )

    async def _show_log(self, box: Box) -> None:
        if not self.is_watching:
            return
        window = await windows.watch_box(box.id)
        now: datetime = real_now()
        show(
            self,
            log_note=sentences.log_note(window, now),
            log=sentences.log_text(window.lines) if window else "",
            log_before=sentences.log_text(window.before) if window else "",
            events=[sentences.event_row(one, now) for one in window.events] if window else [],
        )
