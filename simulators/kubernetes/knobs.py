"""What can be set while the cluster runs: how late, how fast, how large, how real."""

from dataclasses import dataclass, field, fields, replace
from typing import Any

from simulators.kubernetes import quantities

LONGEST_SECRET_DELAY_SECONDS = 90.0  # a kubelet's sync period plus its cache's lifetime
LEAST_BACK_OFF_SCALE = 0.001  # without any pause, a crash would keep a processor busy
REAL_FIRST_BACK_OFF_SECONDS = 10.0
REAL_LONGEST_BACK_OFF_SECONDS = 300.0
REAL_FORGIVEN_AFTER_SECONDS = 600.0
CAPACITY = ("cpu", "memory", "ephemeral-storage", "pods")


class RefusedError(Exception):
    """What was asked for makes no sense; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Values:
    """The settings; each can be changed by name.

    `secret_delay_seconds`: how long a changed Secret or ConfigMap takes to reach mounted files.
    `back_off_scale`: what share of Kubernetes' restart pauses (10 s, doubled up to 300 s) is
    waited. `records`: new pods run no process and are Ready at once.
    `record_ready_seconds`: how long after being placed. `snapshots`: CSI's snapshots are installed;
    without them their kinds do not exist. `capacity`: what the node has room for; what is not named
    is unlimited.
    """

    secret_delay_seconds: float = 0.0
    back_off_scale: float = 0.1
    records: bool = False
    snapshots: bool = True
    record_ready_seconds: float = 0.0
    capacity: dict[str, str] = field(default_factory=dict)


class Knobs:
    """Holds the values in force."""

    def __init__(self, values: Values | None = None) -> None:
        self.now = values or Values()

    def change(self, wanted: dict[str, Any]) -> Values:
        """Set what is named.

        Raises:
            RefusedError: an unknown name, or a value out of bounds.
        """
        known = {one.name for one in fields(Values)}
        if unknown := sorted(wanted.keys() - known):
            raise RefusedError(f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        for name, value in wanted.items():
            _CHECKS[name](name, value)
        self.now = replace(self.now, **wanted)
        return self.now

    @property
    def first_back_off_seconds(self) -> float:
        return REAL_FIRST_BACK_OFF_SECONDS * self.now.back_off_scale

    @property
    def longest_back_off_seconds(self) -> float:
        return REAL_LONGEST_BACK_OFF_SECONDS * self.now.back_off_scale

    @property
    def forgiven_after_seconds(self) -> float:
        """Say how long a container must run to start again with the first pause."""
        return REAL_FORGIVEN_AFTER_SECONDS * self.now.back_off_scale


def _number(name: str, value: Any, least: float, most: float) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:
        raise RefusedError(f"{name} must be a number from {least:g} to {most:g}")


def _delay(name: str, value: Any) -> None:
    _number(name, value, 0, LONGEST_SECRET_DELAY_SECONDS)


def _scale(name: str, value: Any) -> None:
    _number(name, value, LEAST_BACK_OFF_SCALE, 1)


def _flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise RefusedError(f"{name} must be true or false")


def _capacity(name: str, value: Any) -> None:
    if not isinstance(value, dict) or value.keys() - set(CAPACITY):
        raise RefusedError(f"{name} names some of {', '.join(CAPACITY)}")
    for quantity in value.values():
        try:
            quantities.parse(quantity)
        except ValueError as error:
            raise RefusedError(f"{name}: {quantity!r} is not a quantity") from error


_CHECKS = {
    "secret_delay_seconds": _delay,
    "record_ready_seconds": _delay,
    "back_off_scale": _scale,
    "records": _flag,
    "snapshots": _flag,
    "capacity": _capacity,
}
