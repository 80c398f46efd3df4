"""May they: entitlement, model, limit and rates, decided in process; the period is fixed here."""

import math
from dataclasses import dataclass
from datetime import datetime

from openclaw_web.billing.tiers import Plan
from openclaw_web.core.settings import settings
from openclaw_web.gateway.credentials import Account, Caller, Directory
from openclaw_web.gateway.errors import (
    LimitReachedError,
    NotEntitledError,
    NotFoundError,
    SlowDownError,
    UnavailableError,
)
from openclaw_web.gateway.settling import Settler
from openclaw_web.gateway.wire import Request
from openclaw_web.metering import limits
from openclaw_web.metering.limits import Reservation, Room

SOON_SECONDS = 2


@dataclass(frozen=True)
class Admitted:
    """Permission for one request. It is counted in this period, at this (business) time."""

    caller: Caller
    period_start: datetime
    timestamp: datetime
    reservation: Reservation


class Admission:
    def __init__(self, directory: Directory, settler: Settler) -> None:
        self._directory = directory
        self._settler = settler
        self._rates = limits.RequestRate()
        self.underway = limits.Underway()

    def admit(self, caller: Caller, account: Account, request: Request) -> Admitted:
        """Let a request through and hold what it may use; whoever got it ends the reservation.

        Raises:
            RefusalError: not entitled, not in the plan, over the limit, or too fast.
        """
        now = self._directory.now()
        plan = _plan(account)
        if request.asked_model not in plan.models:
            raise NotFoundError(
                f"The model {request.asked_model} is not part of this plan.", code="model_not_found"
            )
        if account.period_start is None or account.period_end is None:
            raise UnavailableError("The usage period is being opened.")
        self._check_limit(account, account.period_end, now)
        if not caller.is_unthrottled:
            self._check_rates(caller, plan)
        tokens = limits.expected_tokens(len(request.body), request.max_tokens)
        return Admitted(
            caller=caller,
            period_start=account.period_start,
            timestamp=now,
            reservation=self.underway.start(caller.customer_id, tokens),
        )

    def _check_limit(self, account: Account, period_end: datetime, now: datetime) -> None:
        room = limits.room(
            used=account.used,
            unwritten=self._settler.unwritten(account.customer_id, account.period_start),
            underway=self.underway.tokens_of(account.customer_id),
            limit=account.limit,
        )
        if room is Room.NONE:
            raise LimitReachedError(resets_at=period_end, now=now, home_url=home_url())
        if room is Room.UNDER_WAY:
            raise SlowDownError(
                "Requests under way may use up what is left; try again when they are done.",
                retry_after=SOON_SECONDS,
            )

    def _check_rates(self, caller: Caller, plan: Plan) -> None:
        if self.underway.requests_of(caller.customer_id) >= plan.parallel_requests:
            raise SlowDownError(
                f"Only {plan.parallel_requests} requests at once are part of this plan.",
                retry_after=1,
            )
        wait = self._rates.wait_seconds(caller.customer_id, plan.requests_per_second)
        if wait:
            raise SlowDownError(
                f"Only {plan.requests_per_second} requests a second are part of this plan.",
                retry_after=math.ceil(wait),
            )


def home_url() -> str:
    return f"{settings().public_url}/home"


def _plan(account: Account) -> Plan:
    if account.plan is None or not account.is_entitled:
        raise NotEntitledError(home_url=home_url())
    return account.plan
