"""What a change of settings will do before it is saved, and what became of it after that."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes import (
    manifests,
    openclaw_config,
    proving,
    queries,
    reloading,
    rendering,
    revisions,
    service,
)
from openclaw_web.boxes.models import Box, BoxRevision, BoxStatus, RevisionOutcome
from openclaw_web.boxes.sentences import trouble
from openclaw_web.boxes.service import BoxSettings
from openclaw_web.jobs import queries as jobs

LIVE_SECONDS = int(proving.TAKEN_WITHIN.total_seconds())
NOT_RUNNING = frozenset({BoxStatus.SUSPENDED, BoxStatus.DESTROYING, BoxStatus.DESTROYED})
STARTING = frozenset({BoxStatus.PENDING, BoxStatus.PROVISIONING})
NOTHING = "none"

Kind = Literal["applied", "applying", "waiting_for_proof", "rolled_back", "not_running"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One setting, as it is and as it shall be, in words."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What saving would do; `takes_seconds` is how long it takes at most, or is silent."""

    changes: list[Change]
    needs_restart: bool
    takes_seconds: int
    sentence: str


@dataclass(frozen=True, kw_only=True)
class AppliedState:
    """What became of the newest settings, and since when."""

    kind: Kind
    sentence: str
    at: datetime | None


async def preview_settings(session: AsyncSession, box: Box, settings: BoxSettings) -> Preview:
    """Say what saving these settings would change, and whether the assistant has to restart.

    Raises:
        ValidationError: the settings are more than the tier gives, or make no sense.
    """
    subscription = await queries.get_subscription(session, box)
    service.check_settings(settings, subscription)
    target = await queries.find_target_revision(session, box.id)
    before = service.document(service.settings_of(box, target)) | (target.spec if target else {})
    after = before | service.document(settings)
    after[reloading.REMOVED_AT] = reloading.removed_at(before, after, box.generation + 1)
    changes = _changes(before, after)
    old, new = (
        manifests.config_hash(rendering.render_settings(box, one, subscription.tier, 0))
        for one in (before, after)
    )
    return _preview(changes, box.status, needs_restart=old != new)


async def applied_state(session: AsyncSession, box: Box) -> AppliedState:
    """Say honestly whether the newest settings are in use: written down is not yet applied."""
    newest = await revisions.find_newest_wish(session, box.id)
    if newest is not None and newest.outcome in revisions.GIVEN_UP:
        return _rolled_back(newest)
    if box.status in NOT_RUNNING:
        return _state("not_running", "Applied when the assistant runs again.")
    if newest is None or newest.outcome == RevisionOutcome.APPLIED.value:
        return _state("applied", "Applied.", newest.applied_at if newest else box.activated_at)
    written_at = proving.written_at(box, newest.generation)
    is_busy = await jobs.find_live_job_of_box(session, box.customer_id, box.id) is not None
    if written_at is None or is_busy or box.status in STARTING:
        return _state("applying", "Being applied.", newest.created_at)
    return _state(
        "waiting_for_proof", "Written; it shows with the assistant's next message.", written_at
    )


def _preview(changes: list[Change], status: BoxStatus, *, needs_restart: bool) -> Preview:
    if not changes:
        seconds, sentence = 0, "Nothing changes."
    elif status in NOT_RUNNING:
        seconds, sentence = 0, "Takes effect when the assistant runs again."
    elif needs_restart:
        seconds = reloading.RESTART_SECONDS
        sentence = (
            f"The assistant restarts: {reloading.RESTART_TAKES} of silence. Messages sent meanwhile"
            " are answered afterwards."
        )
    else:
        seconds = LIVE_SECONDS
        sentence = f"Takes effect within {seconds // 60} minutes, without a restart."
    is_running = bool(changes) and status not in NOT_RUNNING
    return Preview(
        changes=changes,
        needs_restart=needs_restart and is_running,
        takes_seconds=seconds,
        sentence=sentence,
    )


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    return [
        Change(name=name, before=words(before.get(key)), after=words(after.get(key)))
        for key, (name, words) in WORDS.items()
        if words(before.get(key)) != words(after.get(key))
    ]


def _rolled_back(newest: BoxRevision) -> AppliedState:
    return _state(
        "rolled_back",
        f"Not applied: with these settings {trouble(newest.reason or '')}. It runs with its former"
        " settings.",
        newest.created_at,
    )


def _state(kind: Kind, sentence: str, at: datetime | None = None) -> AppliedState:
    return AppliedState(kind=kind, sentence=sentence, at=at)


def _people(ids: Any) -> str:
    return ", ".join(str(one) for one in ids or ()) or NOTHING


def _language(code: Any) -> str:
    return openclaw_config.LANGUAGES.get(code, str(code or NOTHING))


def _model(name: Any) -> str:
    return openclaw_config.model_id(str(name or NOTHING))


def _text(value: Any) -> str:
    return str(value or NOTHING)


WORDS: dict[str, tuple[str, Callable[[Any], str]]] = {
    reloading.PEOPLE: ("Telegram users who may talk to it", _people),
    "language": ("Language", _language),
    "model": ("Model", _model),
    "thinking_level": ("Thinking level", _text),
    "use_case": ("What you want it for", _text),
    "style": ("How it answers", _text),
}
