"""When to leave a provider, or one of its keys, alone for a while. No timer: each call looks."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    CLOSED = "closed"  # requests go
    OPEN = "open"  # none goes
    HALF_OPEN = "half open"  # one is on its way to find out


@dataclass(frozen=True)
class Rules:
    failures: int = 5  # in a row
    pause_seconds: float = 5.0
    longest_pause_seconds: float = 120.0  # a pause is twice the one before, up to this


class Breaker:
    """Opens after some failures in a row, and closes with the next success."""

    __slots__ = ("_clock", "_failures", "_is_asking", "_pause", "_rules", "_until")

    def __init__(self, clock: Callable[[], float], rules: Rules | None = None) -> None:
        self._clock = clock
        self._rules = rules or Rules()
        self._failures = 0
        self._pause = self._rules.pause_seconds
        self._until = 0.0
        self._is_asking = False

    @property
    def state(self) -> State:
        if self._failures < self._rules.failures:
            return State.CLOSED
        return State.HALF_OPEN if self._is_asking else State.OPEN

    @property
    def is_closed(self) -> bool:
        return self._failures < self._rules.failures

    def allows(self) -> bool:
        """Say whether `begin` would let a request go."""
        return self._failures < self._rules.failures or self._clock() >= self._until

    def begin(self) -> bool:
        """Say whether a request may go; of an open breaker's only one a pause may.

        What became of that one need not be told: after another pause the next may go.
        """
        if self._failures < self._rules.failures:
            return True
        now = self._clock()
        if now < self._until:
            return False
        self._until = now + self._pause
        self._is_asking = True
        return True

    def succeeded(self) -> bool:
        """Note a success; return whether it closed the breaker."""
        if not self._failures:
            return False
        was_closed = self._failures < self._rules.failures
        self._failures = 0
        self._pause = self._rules.pause_seconds
        self._is_asking = False
        return not was_closed

    def failed(self) -> bool:
        """Note a failure; return whether it opened a breaker that was closed."""
        self._failures += 1
        has_opened = self._failures == self._rules.failures
        if self._is_asking:
            self._pause = min(self._pause * 2, self._rules.longest_pause_seconds)
        if has_opened or self._is_asking:
            self._until = self._clock() + self._pause
            self._is_asking = False
        return has_opened
