"""The words on the page of the box."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from openclaw_web.boxes import bots
from openclaw_web.boxes.desired import Why
from openclaw_web.boxes.memory.backups import Reason
from openclaw_web.boxes.memory.listing import BackupView
from openclaw_web.boxes.models import Box
from openclaw_web.boxes.reloading import RESTART_TAKES
from openclaw_web.boxes.sentences import Link
from openclaw_web.boxes.windows import Happening, Line, Seen, Window, moment
from openclaw_web.dashboard.state import JOB_NAMES, LINK_NAMES
from openclaw_web.jobs.models import JobStatus, OperatorJob
from openclaw_web.ui import format as fmt

STEPS_SHOWN = 8
NOTHING_HERE = "Here you will see how it is."
STALE = timedelta(seconds=20)
LOG_COMES = "Fetching what it writes…"
LOG_IS_LATE = "The cluster's side does not answer just now. It is asked again all the time."
LOG_NO_POD = "It has no running process at the moment, so it writes nothing."
LOG_EMPTY = "It has written nothing yet."
BOT_REPLACED = f"Telegram knows this bot. Your assistant restarts with it: {RESTART_TAKES}."
BOT_PROBLEMS = {
    **bots.SENTENCES,
    "restarts": "It was restarted too often within the hour. Try again later.",
    "telegram": "Telegram cannot be reached at the moment. Nothing was changed; try again soon.",
    "no_box": "There is no assistant.",
}
BACKUP_REASONS = {
    Reason.SUSPEND: "made when it was suspended",
    Reason.MANUAL: "made by you",
    Reason.FINAL: "the last one",
    Reason.BEFORE_RESTORE: "made before another one was brought back",
    Reason.BEFORE_UPGRADE: "made before its program was changed",
    Reason.CLONE: "copied from your former assistant",
    Reason.SCHEDULED: "made by itself, while it ran",
}
FORMER = "what your former assistant remembered"


def bot_note(word: str) -> str:
    return BOT_REPLACED if word == "replaced" else ""


def bot_problem(code: str) -> str:
    """Return the sentence for a code in the address; what is not ours says nothing."""
    return BOT_PROBLEMS.get(code, "")


def link_row(link: Link, box: Box, now: datetime) -> dict[str, str]:
    """Return one link of the chain, with when it was last seen to work."""
    seen = {"pod": box.last_seen, "gateway": box.agent_ok_at}.get(link.name)
    words = {"pod": "last seen", "gateway": "last ready"}
    return {
        "name": LINK_NAMES[link.name],
        "sentence": link.sentence,
        "state": "unknown" if link.is_ok is None else "ok" if link.is_ok else "bad",
        "when": f"{words[link.name]} {fmt.ago(seen, now)}" if seen else "",
    }


def kept_asleep(why: Why, *, is_paused: bool) -> str:
    """Return what else than the customer's pause keeps a box from running."""
    again = "Resuming alone does not start it." if is_paused else "It starts again by itself then."
    return {
        Why.NOT_PAID: f"A payment is missing, and it stays suspended until it arrives. {again}",
        Why.HOLD: (
            "We keep it suspended while a question about this account is open, and we write to "
            f"you. {again}"
        ),
    }.get(why, "")


def work(job: OperatorJob) -> str:
    return JOB_NAMES.get(job.job_type, "Working on your assistant")


def steps(job: OperatorJob) -> list[dict[str, str]]:
    """Return the newest lines of what is being done; the last one is still under way."""
    lines = job.progress[-STEPS_SHOWN:]
    is_running = job.status is JobStatus.RUNNING
    return [
        {
            "text": line["text"],
            "when": _clock(line.get("at", "")),
            "tone": "now" if is_running and number == len(lines) else "good",
        }
        for number, line in enumerate(lines, start=1)
    ]


def backup_row(one: BackupView) -> dict[str, str]:
    why = next((text for why, text in BACKUP_REASONS.items() if why == one.reason), "")
    return {
        "id": str(one.id),
        "made": fmt.day_and_time(one.made_at),
        "why": FORMER if one.is_former else why,
        "size": fmt.size(one.size_bytes) if one.size_bytes else "a snapshot of its volume",
        "kept": f"kept until {fmt.day(one.expires_at)}" if one.expires_at else "kept",
        "is_usable": "yes" if one.is_usable else "",
    }


def former_note(former: Sequence[BackupView]) -> str:
    """Say to somebody without an assistant what can still come back."""
    if not former:
        return NOTHING_HERE
    kept = f" until {fmt.day(former[0].expires_at)}" if former[0].expires_at else ""
    return (
        f"What your former assistant remembered is kept{kept}. Get a new one, and bring it back "
        "here: only its memory, not its bot or its settings."
    )


def memory_note(moment_of: datetime | None) -> str:
    if moment_of is None:
        return ""
    return f"What it remembers is from {fmt.day_and_time(moment_of)}: a backup was brought back."


def log_note(window: Window | None, now: datetime) -> str:
    """Say what is the matter with the look inside; nothing while it is fresh and full."""
    if window is None:
        return LOG_COMES
    at = moment(window.at)
    if window.seen is Seen.UNREACHABLE or at is None or now - at > STALE:
        return LOG_IS_LATE
    if window.seen is Seen.NO_POD:
        return LOG_NO_POD
    return "" if window.lines else LOG_EMPTY


def log_text(lines: Sequence[Line]) -> str:
    return "\n".join(f"{_clock(line.at)}  {line.text}" for line in lines)


def event_row(one: Happening, now: datetime) -> dict[str, str]:
    at = moment(one.at)
    return {
        "text": one.text,
        "when": fmt.ago(at, now) if at else "",
        "tone": "bad" if one.is_warning else "",
    }


def _clock(at: str) -> str:
    found = moment(at)
    return f"{found:%H:%M:%S}" if found else ""
