"""What the provider served against what our database holds for the customer: the metering check."""

import json
import time
import urllib.request
from dataclasses import dataclass
from uuid import UUID

import psycopg

from bench.stack import Stack

WRITTEN_SECONDS = 60.0
STEP_SECONDS = 0.25
QUIET_STEPS = 4

# Events, their sums, the two roll-ups, and what was refused: all must tell the same.
_METERED = """
SELECT count(*), coalesce(sum(e.prompt_tokens), 0), coalesce(sum(e.completion_tokens), 0),
       count(*) FILTER (WHERE m.estimated), count(DISTINCT e.request_id),
       (SELECT coalesce(sum(tokens_used), 0) FROM usage_monthly WHERE customer_id = %(id)s),
       (SELECT coalesce(sum(prompt_tokens + completion_tokens), 0) FROM usage_daily
        WHERE customer_id = %(id)s),
       (SELECT count(*) FROM usage_rejects)
FROM usage_events e LEFT JOIN usage_event_meta m ON m.event_id = e.id
WHERE e.customer_id = %(id)s
"""
_NEWEST = "SELECT max(id) FROM usage_events WHERE customer_id = %s"


@dataclass(frozen=True)
class Served:
    """The provider's own count."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    failures: int

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def since(self, earlier: "Served") -> "Served":
        return Served(
            self.requests - earlier.requests,
            self.prompt_tokens - earlier.prompt_tokens,
            self.completion_tokens - earlier.completion_tokens,
            self.failures - earlier.failures,
        )


@dataclass(frozen=True)
class Metered:
    """Our count, in every place that holds it."""

    events: int
    prompt_tokens: int
    completion_tokens: int
    flagged: int
    request_ids: int
    month_tokens: int
    day_tokens: int
    rejects: int

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def since(self, earlier: "Metered") -> "Metered":
        return Metered(
            self.events - earlier.events,
            self.prompt_tokens - earlier.prompt_tokens,
            self.completion_tokens - earlier.completion_tokens,
            self.flagged - earlier.flagged,
            self.request_ids - earlier.request_ids,
            self.month_tokens - earlier.month_tokens,
            self.day_tokens - earlier.day_tokens,
            self.rejects - earlier.rejects,
        )

    def contradictions(self) -> list[str]:
        """Return where our own books disagree; an empty list means that they balance."""
        found = []
        if self.request_ids != self.events:
            found.append(f"{self.events - self.request_ids} events twice")
        if self.month_tokens != self.tokens:
            found.append(f"the month has {self.month_tokens - self.tokens:+d} tokens")
        if self.day_tokens != self.tokens:
            found.append(f"the days have {self.day_tokens - self.tokens:+d} tokens")
        if self.rejects:
            found.append(f"{self.rejects} rejected events")
        return found


def served(stack: Stack) -> Served:
    url = f"{stack.upstream_url}/__stats"
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own address
        told = json.load(answer)
    return Served(
        told["requests"], told["prompt_tokens"], told["completion_tokens"], told["failures"]
    )


def metered(stack: Stack, customer_id: UUID) -> Metered:
    with psycopg.connect(stack.database_url) as connection:
        row = connection.execute(_METERED, {"id": customer_id}).fetchone()
    return Metered(*(int(value) for value in row or ()))


def wait_until_written(stack: Stack, customer_id: UUID, *, at_least: int) -> Metered:
    """Return our count once it stands still; it has time to reach `at_least` events.

    While events come it waits: a proxy can outrun its database, and writes what it spooled later.
    """
    deadline = time.monotonic() + WRITTEN_SECONDS
    quiet, known = 0, metered(stack, customer_id)
    while quiet < QUIET_STEPS and time.monotonic() < deadline:
        time.sleep(STEP_SECONDS)
        found = metered(stack, customer_id)
        if found.events > known.events:
            deadline = time.monotonic() + WRITTEN_SECONDS
        quiet = quiet + 1 if found == known and found.events >= at_least else 0
        known = found
    return known


def lose_an_event(stack: Stack, customer_id: UUID) -> None:
    """Sabotage: take the newest event away, so that the check has something to find."""
    with psycopg.connect(stack.database_url) as connection:
        row = connection.execute(_NEWEST, [customer_id]).fetchone()
        newest = row[0] if row else None
        connection.execute("DELETE FROM usage_event_meta WHERE event_id = %s", [newest])
        connection.execute("DELETE FROM usage_events WHERE id = %s", [newest])
