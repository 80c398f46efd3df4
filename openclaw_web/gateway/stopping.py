"""How long a process of ours takes to end, in one place.

Kubernetes kills 30 seconds after it asked (`terminationGracePeriodSeconds`, and its default). After
`streams` and `drains` everything that was asked is settled and in the spool, so whatever happens
later, a kill included, loses nothing.
"""

from dataclasses import dataclass

from openclaw_web.core.settings import Settings
from openclaw_web.gateway.errors import RefusalError, UnavailableError


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Seconds, one after the other; each part ends early when there is nothing to wait for."""

    streams: int  # answers that run go on to their clients, and nothing new is taken
    drains: float  # clients were told to come again; answers are read on for the provider's count
    flush: float  # what is in the spool goes to the database, or stays there
    rest: float  # alerts, last uses of tokens, connections

    @property
    def total(self) -> float:
        return self.streams + self.drains + self.flush + self.rest


PRODUCTION = Budget(streams=18, drains=6.0, flush=2.0, rest=1.5)
LAPTOP = Budget(streams=2, drains=1.0, flush=1.0, rest=0.5)  # the supervisor kills after five


def budget_of(chosen: Settings) -> Budget:
    return PRODUCTION if chosen.is_production else LAPTOP


def stopping() -> RefusalError:
    """Return what a client is told whose answer would take longer than we may."""
    return UnavailableError("The proxy is being restarted; ask again.", code="restarting")
