"""Failures on request: the next calls of a method answer an error."""

from dataclasses import dataclass

from simulators.telegram.errors import ApiError

EVERY_METHOD = "*"


@dataclass(kw_only=True)
class Fault:
    method: str
    error: ApiError
    times: int


class Faults:
    """Faults wait in order; each is used up after its number of calls."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        self._waiting.append(fault)

    def clear(self) -> None:
        self._waiting.clear()

    def take(self, method: str) -> ApiError | None:
        """Return the error that this call must answer, if one waits for it."""
        for fault in self._waiting:
            if fault.method.lower() in {EVERY_METHOD, method.lower()}:
                fault.times -= 1
                if fault.times <= 0:
                    self._waiting.remove(fault)
                return fault.error
        return None
