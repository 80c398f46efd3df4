"""How long to wait after failures."""

import random

FIRST_SECONDS = 1.0
MOST_DOUBLINGS = 20  # far beyond any longest pause, and no number that is too large for a float


def back_off(failures: int, *, longest_seconds: float) -> float:
    """Return the pause after so many failures in a row: it doubles, up to the longest.

    Spread over its upper half, so that those who failed together do not come back together.
    """
    pause = FIRST_SECONDS * 2 ** min(failures - 1, MOST_DOUBLINGS)
    return min(pause, longest_seconds) * random.uniform(0.5, 1)  # noqa: S311 - spreads, no secret
