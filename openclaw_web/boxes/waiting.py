"""Why a box's job waits, in its customer's words."""

from datetime import datetime, timedelta

from openclaw_web.jobs.queries import QueueStanding
from openclaw_web.ui import format as fmt

WAITING = {
    "retry": "The last try did not work; the next one is {due}.",
    "paused": "We have stopped new set-ups for a moment. Yours is kept and goes on by itself.",
    "held": (
        "Many assistants have trouble at once, so nothing is repaired one by one until the cause is"
        " found. Yours comes by itself then."
    ),
    "another_job": "Something else is being done with it; this comes right after.",
    "no_worker": "Nobody takes up work at the moment. We were told; yours is kept.",
}


def sentence_of(standing: QueueStanding, now: datetime) -> str:
    """Say where a waiting job stands, and why it waits; `now` is the real clock's."""
    seconds = max(0, int((standing.due_at - now).total_seconds()))
    due = f"in {fmt.duration(timedelta(seconds=seconds))}" if seconds else "due now"
    if standing.waiting_because in WAITING:
        return WAITING[standing.waiting_because].format(due=due)
    if standing.position == 1:
        return "It is next in the queue."
    return f"It is number {standing.position} in the queue."
