"""Who calls, for whom, and what ends with their token."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from openclaw_web.billing.tiers import Plan
from openclaw_web.metering.models import TokenKind

BOX: Final = TokenKind.BOX  # looking an enum's member up costs as much as using it


class Ending:
    """The end of what a token may do: whoever serves it says what to stop then.

    Adding and removing cost a set's operation, so a stream can watch its caller without a task.
    """

    __slots__ = ("_stops", "has_come")

    def __init__(self) -> None:
        self.has_come = False
        self._stops: set[Callable[[], None]] = set()

    @property
    def is_watched(self) -> bool:
        return bool(self._stops)

    def watch(self, stop: Callable[[], None]) -> None:
        """Call `stop` once the token ends, at once if it has ended; it must not raise."""
        if self.has_come:
            stop()
        else:
            self._stops.add(stop)

    def forget(self, stop: Callable[[], None]) -> None:
        """Stop watching; whoever watches does this when it is done."""
        self._stops.discard(stop)

    def come(self) -> None:
        self.has_come = True
        while self._stops:
            self._stops.pop()()


@dataclass(frozen=True)
class Caller:
    """What a token says about who holds it.

    `language` is the box's, for sentences that an assistant says itself.
    """

    token_id: UUID
    customer_id: UUID
    box_id: UUID
    kind: TokenKind
    is_unthrottled: bool
    is_polite: bool
    has_api_access: bool
    is_asleep: bool = False  # its box is paused, suspended or deleted
    is_paused_by_owner: bool = False
    language: str = "en"
    ending: Ending = field(default_factory=Ending, compare=False, repr=False)

    @property
    def may_call(self) -> bool:
        """Say whether what runs for this caller may go on: a program's key needs more."""
        return self.kind is BOX or (self.has_api_access and not self.is_asleep)


@dataclass
class Account:
    """What a customer may do now. `used` is the database's; what is unwritten comes on top."""

    customer_id: UUID
    plan: Plan | None = None
    is_entitled: bool = False
    has_hold: bool = False  # a dispute, an admin's decision: no payment lifts it
    period_start: datetime | None = None
    period_end: datetime | None = None
    used: int = 0
    limit: int = 0

    def become(self, other: "Account") -> None:
        """Take over all that another look at the same customer found."""
        self.plan, self.is_entitled, self.has_hold = other.plan, other.is_entitled, other.has_hold
        self.period_start, self.period_end = other.period_start, other.period_end
        self.used, self.limit = other.used, other.limit


Holder = tuple[Caller, Account]
