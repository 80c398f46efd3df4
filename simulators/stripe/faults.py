"""Faults on request: what goes wrong between a caller and Stripe, so that callers can be tested.

A fault is armed for the next calls that fit. It happens before the call does anything, or after
everything was done and only the answer is lost.
"""

import fnmatch
from dataclasses import asdict, dataclass, replace
from typing import Any

from simulators.stripe.errors import StripeError
from simulators.stripe.store import new_id
from simulators.stripe.world import World

SETTING = "faults"
LONGEST_SECONDS = 120.0
MOST_TIMES = 10_000
KINDS = {
    "rate_limit": "429, nothing is done",
    "lock_timeout": "429, another request holds the object, nothing is done",
    "conflict": "409, the same idempotency key is in use, nothing is done",
    "server_error": "500, nothing is done",
    "server_error_after": "500, and yet all was done",
    "hang_up": "no answer, nothing is done",
    "hang_up_after": "no answer, and yet all was done",
    "slow": "an answer, but late",
}


class FaultError(ValueError):
    """A fault was described in a way that makes no sense."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`path` may hold `*`; `method` is empty for any; `seconds` is how late something happens."""

    kind: str
    times: int = 1
    method: str = ""
    path: str = "/v1/*"
    seconds: float = 0.0
    id: str = ""

    @property
    def happens_after(self) -> bool:
        return self.kind.endswith("_after")

    @property
    def hangs_up(self) -> bool:
        return self.kind.startswith("hang_up")


def armed(world: World) -> list[Fault]:
    return [Fault(**one) for one in world.store.setting(SETTING, [])]


def arm(world: World, given: dict[str, Any]) -> Fault:
    """Add a fault.

    Raises:
        FaultError: the description is wrong; the text says how.
    """
    unknown = given.keys() - {"kind", "times", "method", "path", "seconds"}
    if unknown:
        raise FaultError(f"a fault has no {', '.join(sorted(unknown))}")
    if given.get("kind") not in KINDS:
        raise FaultError(f"kind is one of {', '.join(KINDS)}")
    fault = replace(Fault(**given), id=new_id("fault", 8))
    if not isinstance(fault.times, int) or not 1 <= fault.times <= MOST_TIMES:
        raise FaultError(f"times is a whole number up to {MOST_TIMES}")
    if not isinstance(fault.seconds, int | float) or not 0 <= fault.seconds <= LONGEST_SECONDS:
        raise FaultError(f"seconds is a number up to {LONGEST_SECONDS:.0f}")
    if not isinstance(fault.path, str) or not isinstance(fault.method, str):
        raise FaultError("path and method are texts")
    _keep(world, [*armed(world), fault])
    return fault


def disarm(world: World) -> None:
    _keep(world, [])


def take(world: World, method: str, path: str) -> Fault | None:
    """Return the fault that this call shall meet, and count it down."""
    waiting = armed(world)
    for at, fault in enumerate(waiting):
        if fault.method in {"", method} and fnmatch.fnmatchcase(path, fault.path):
            rest = replace(fault, times=fault.times - 1)
            waiting[at : at + 1] = [rest] if rest.times else []
            _keep(world, waiting)
            return fault
    return None


def as_error(fault: Fault) -> StripeError:
    """Return what Stripe would answer."""
    if fault.kind == "rate_limit":
        return StripeError(
            "Request rate limit exceeded. Learn more about rate limits here:"
            " https://stripe.com/docs/rate-limits.",
            status=429,
            code="rate_limit",
        )
    if fault.kind == "lock_timeout":
        return StripeError(
            "This object cannot be accessed right now because another API request or Stripe process"
            " is currently accessing it. If you see this error intermittently, retry the request.",
            status=429,
            code="lock_timeout",
        )
    if fault.kind == "conflict":
        return StripeError(
            "There is currently another in-progress request using this Idempotent Key. Please try"
            " again later.",
            status=409,
            kind="idempotency_error",
            code="idempotency_key_in_use",
        )
    return StripeError(
        "An error occurred with our connection to the API. Please try again.",
        status=500,
        kind="api_error",
    )


def _keep(world: World, faults: list[Fault]) -> None:
    world.store.set_setting(SETTING, [asdict(one) for one in faults])
