"""How long a failed attempt waits: by what went wrong, and never all of them together."""

import random

USUAL = (2, 5, 15, 60)
# Room is made by other boxes that end, or by a person: asking every few seconds helps nobody.
CROWDED = (15, 60, 180, 300)
BY_CODE = {
    "quota": CROWDED,
    "Unschedulable": CROWDED,
    "unauthorized": CROWDED,
    "busy": (5, 15, 60, 120),
    "conflict": (1, 2, 5, 15),
}
LONGEST_ASKED_SECONDS = 300.0  # whatever a vendor asks for; a job that waits longer looks lost
SPREAD = 0.25


def pause_after(attempt: int, code: str, *, asked_seconds: float = 0.0) -> float:
    """Return the seconds before the next attempt; `asked_seconds` is a vendor's Retry-After.

    Up to a quarter longer by chance, so that those who failed together do not come back together.
    """
    steps = BY_CODE.get(code, USUAL)
    pause = max(steps[min(attempt, len(steps)) - 1], min(asked_seconds, LONGEST_ASKED_SECONDS))
    return pause * random.uniform(1, 1 + SPREAD)  # noqa: S311 - spreads, no secret
