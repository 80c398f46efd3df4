"""The legal moves of a box's status; whatever is not in the table is refused by name."""

from datetime import datetime

from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.core.errors import OpenClawError

LEGAL: dict[BoxStatus, frozenset[BoxStatus]] = {
    BoxStatus.PENDING: frozenset(
        {BoxStatus.PROVISIONING, BoxStatus.SUSPENDED, BoxStatus.DESTROYING}
    ),
    BoxStatus.PROVISIONING: frozenset(
        {
            BoxStatus.ACTIVE,
            BoxStatus.PENDING,
            BoxStatus.UNHEALTHY,
            BoxStatus.SUSPENDED,
            BoxStatus.DESTROYING,
        }
    ),
    BoxStatus.ACTIVE: frozenset(
        {BoxStatus.UPDATING, BoxStatus.UNHEALTHY, BoxStatus.SUSPENDED, BoxStatus.DESTROYING}
    ),
    BoxStatus.UPDATING: frozenset(
        {BoxStatus.ACTIVE, BoxStatus.UNHEALTHY, BoxStatus.SUSPENDED, BoxStatus.DESTROYING}
    ),
    # A box that is repaired stays unhealthy until it answers: it never looks better than it is.
    BoxStatus.UNHEALTHY: frozenset({BoxStatus.ACTIVE, BoxStatus.SUSPENDED, BoxStatus.DESTROYING}),
    BoxStatus.SUSPENDED: frozenset({BoxStatus.UPDATING, BoxStatus.DESTROYING}),
    BoxStatus.DESTROYING: frozenset({BoxStatus.DESTROYED}),
    BoxStatus.DESTROYED: frozenset(),
}
LIVE = frozenset(BoxStatus) - {BoxStatus.DESTROYING, BoxStatus.DESTROYED}
RUNNING = frozenset({BoxStatus.ACTIVE, BoxStatus.UPDATING, BoxStatus.UNHEALTHY})


class IllegalMoveError(OpenClawError):
    """A box cannot go from one status to the other."""

    def __init__(self, box: Box, to: BoxStatus) -> None:
        super().__init__(f"A box that is {box.status.value} cannot become {to.value}.")
        self.box_id = box.id
        self.to = to


def may_move(now_in: BoxStatus, to: BoxStatus) -> bool:
    return to is now_in or to in LEGAL[now_in]


def move(box: Box, to: BoxStatus, *, now: datetime, reason: str | None = None) -> bool:
    """Move a box, stamp when and why, and say whether its status changed.

    Staying where it is only replaces the reason.

    Raises:
        IllegalMoveError: the table has no such move.
    """
    if not may_move(box.status, to):
        raise IllegalMoveError(box, to)
    has_changed = box.status is not to
    if has_changed:
        box.status = to
        box.status_changed_at = now
    box.status_reason = reason
    if to is BoxStatus.DESTROYED:
        box.destroyed_at = box.destroyed_at or now
    return has_changed
