"""May they: entitlement, model, rates and the monthly limit; the period is fixed here."""

import contextlib
import math
from collections import Counter
from collections.abc import Generator
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from openclaw_web.billing.tiers import Plan, context_tokens, plan_of
from openclaw_web.core.settings import settings
from openclaw_web.gateway.credentials import Account, Caller, Directory
from openclaw_web.gateway.errors import (
    LimitReachedError,
    NotEntitledError,
    NotFoundError,
    Pause,
    RefusalError,
    SlowDownError,
    UnavailableError,
)
from openclaw_web.gateway.settling import Settler
from openclaw_web.gateway.wire import Request
from openclaw_web.metering import limits
from openclaw_web.metering.meter import Meter, Reservation, Verdict
from openclaw_web.metering.meters import Meters

SOON_SECONDS: Final = 2
LARGEST_CONTEXT: Final = 262_144  # of a model that the catalogue does not name

_UNTHROTTLED: Final = replace(
    plan_of("team"),
    requests_per_second=10**6,
    parallel_requests=10**6,
    tokens_per_minute=10**12,
)

Headers = list[tuple[bytes, bytes]]


class Admitted:
    """Permission for one request. It is counted in this period, at this (business) time."""

    __slots__ = ("caller", "period_start", "reservation", "timestamp")

    def __init__(
        self, caller: Caller, period_start: datetime, timestamp: datetime, reservation: Reservation
    ) -> None:
        self.caller = caller
        self.period_start = period_start
        self.timestamp = timestamp
        self.reservation = reservation


class Place:
    """One of the parallel requests, whose tokens nobody has promised yet: await `admit_near`."""

    __slots__ = ("meter",)

    def __init__(self, meter: Meter) -> None:
        self.meter = meter


class Admission:
    def __init__(self, directory: Directory, settler: Settler, meters: Meters) -> None:
        self._directory = directory
        self._settler = settler
        self._meters = meters
        self._contexts = context_tokens()
        self._reading: Counter[UUID] = Counter()

    @contextlib.contextmanager
    def reading(self, caller: Caller, account: Account) -> Generator[None]:
        """Let a customer send as many large bodies at once as it may have requests.

        Raises:
            SlowDownError: it sends more.
        """
        customer = caller.customer_id
        most = account.plan.parallel_requests if account.plan is not None else 1
        if self._reading[customer] >= most and not caller.is_unthrottled:
            raise _too_many(most)
        self._reading[customer] += 1
        try:
            yield
        finally:
            self._reading[customer] -= 1
            if not self._reading[customer]:
                del self._reading[customer]

    def admit(self, caller: Caller, account: Account, request: Request) -> Admitted | Place:
        """Let a request through at once and hold what it may use; whoever got it gives it back.

        Near the limit the other processes must be asked: then it has its place only.

        Raises:
            RefusalError: not entitled, not in the plan, over the limit, or too fast.
        """
        now = self._meters.clock()
        try:
            plan, meter = self._check(caller, account, request)
            self._check_pace(meter, _UNTHROTTLED if caller.is_unthrottled else plan, now)
        except RefusalError as refusal:
            refusal.headers = self.rate_headers(account)
            raise
        reservation = self._meters.start_far(
            meter,
            self._expected(request),
            far_below=limits.far_below(account.limit, plan.parallel_requests),
            now=now,
            is_cut_off=self._directory.is_cut_off,
        )
        if reservation is None:
            self._meters.take_place(meter)
            return Place(meter)
        return Admitted(caller, meter.period_start, self._directory.now(), reservation)

    async def admit_near(
        self, place: Place, caller: Caller, account: Account, request: Request
    ) -> Admitted:
        """Let a request through near the limit, or give its place back.

        Raises:
            RefusalError: the limit is reached, or may be reached by what is under way; or the
                shared counters cannot be asked.
        """
        meter, timestamp = place.meter, self._directory.now()
        period_end = account.period_end or timestamp
        tokens = self._expected(request, is_exact=True)
        answer = await self._meters.start_near(meter, tokens, limit=account.limit)
        if isinstance(answer, Reservation):
            return Admitted(caller, meter.period_start, timestamp, answer)
        refusal = _refusal(answer, resets_at=period_end, now=timestamp)
        refusal.headers = self.rate_headers(account)
        raise refusal

    def leave(self, reservation: Reservation) -> None:
        """The client has gone: give its place back at once; what it used comes later."""
        self._meters.leave(reservation)

    def end(self, reservation: Reservation, tokens: int = 0) -> None:
        """Give back what was held, once. What was used is settled already: `tokens` of it."""
        self._meters.end(reservation, tokens)

    async def used(self, account: Account) -> int:
        """Return what was used in the current period, by all processes."""
        if account.period_start is None:
            return account.used
        return await self._meters.used(
            account.customer_id, account.period_start, known=account.used
        )

    def rate_headers(self, account: Account) -> Headers:
        """Say what may come at once, in OpenAI's names; seconds until it is all there again."""
        plan, start = account.plan, account.period_start
        if plan is None or start is None:
            return []
        meter = self._meters.meter(account.customer_id, start)
        now = self._meters.clock()
        most = plan.requests_per_second * limits.BURST_SECONDS
        requests = meter.bucket.level(plan.requests_per_second, now)
        tokens = min(meter.minute_anywhere(now), plan.tokens_per_minute)
        refill = (most - requests) / plan.requests_per_second
        minute = limits.MINUTE_SECONDS * tokens / plan.tokens_per_minute
        return [
            (b"x-ratelimit-limit-requests", b"%d" % most),
            (b"x-ratelimit-limit-tokens", b"%d" % plan.tokens_per_minute),
            (b"x-ratelimit-remaining-requests", b"%d" % requests),
            (b"x-ratelimit-remaining-tokens", b"%d" % (plan.tokens_per_minute - tokens)),
            (b"x-ratelimit-reset-requests", b"%.3fs" % refill),
            (b"x-ratelimit-reset-tokens", b"%.3fs" % minute),
        ]

    def _check(self, caller: Caller, account: Account, request: Request) -> tuple[Plan, Meter]:
        """Check what a process knows for certain."""
        plan = _plan(caller, account)
        if request.asked_model not in plan.models:
            raise NotFoundError(
                f"The model {request.asked_model} is not part of this plan.", code="model_not_found"
            )
        if account.period_start is None or account.period_end is None:
            raise UnavailableError("The usage period is being opened.")
        if self._settler.is_full:
            raise UnavailableError("What is used cannot be counted at the moment.")
        meter = self._meters.meter(account.customer_id, account.period_start)
        if account.used > meter.base:
            meter.learn(account.used)
        if meter.base >= account.limit:
            raise _refusal(Verdict.REACHED, resets_at=account.period_end, now=self._directory.now())
        return plan, meter

    def _check_pace(self, meter: Meter, plan: Plan, now: float) -> None:
        if not meter.has_place(plan.parallel_requests, now):
            raise _too_many(plan.parallel_requests)
        if wait := meter.bucket.take(plan.requests_per_second, now):
            raise SlowDownError(
                f"Only {plan.requests_per_second} requests a second are part of this plan.",
                retry_after=math.ceil(wait),
            )
        minute = meter.minute_anywhere(now)
        if minute >= plan.tokens_per_minute:
            wait = limits.seconds_until_below(minute, plan.tokens_per_minute)
            raise SlowDownError(
                f"Only {plan.tokens_per_minute:,} tokens a minute are part of this plan.",
                retry_after=max(1, math.ceil(wait)),
            )

    def _expected(self, request: Request, *, is_exact: bool = False) -> int:
        context = self._contexts.get(request.asked_model, LARGEST_CONTEXT)
        return limits.expected_tokens(request.body, request.max_tokens, context, is_exact=is_exact)


def _too_many(most: int) -> SlowDownError:
    return SlowDownError(f"Only {most} requests at once are part of this plan.", retry_after=1)


def home_url() -> str:
    return f"{settings().public_url}/home"


def _plan(caller: Caller, account: Account) -> Plan:
    if account.has_hold:
        raise NotEntitledError(home_url=home_url(), pause=Pause.HELD)
    if account.plan is None or not account.is_entitled:
        raise NotEntitledError(home_url=home_url())
    if caller.is_paused_by_owner:
        raise NotEntitledError(home_url=home_url(), pause=Pause.PAUSED)
    return account.plan


def _refusal(verdict: Verdict, *, resets_at: datetime, now: datetime) -> RefusalError:
    if verdict is Verdict.REACHED:
        return LimitReachedError(resets_at=resets_at, now=now, home_url=home_url())
    if verdict in {Verdict.FULL, Verdict.HELD}:
        return SlowDownError(
            "Requests under way may use up what is left; try again when they are done.",
            retry_after=SOON_SECONDS,
        )
    return UnavailableError(
        "The usage counters cannot be asked at the moment; try again soon.",
        retry_after=SOON_SECONDS,
    )
