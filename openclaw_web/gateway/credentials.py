"""Who is asking: a token becomes a caller and an account, kept in process for a second."""

import asyncio
import ipaddress
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.billing import entitlement
from openclaw_web.billing import queries as billing_queries
from openclaw_web.billing.models import Subscription
from openclaw_web.billing.tiers import Plan, plan_of
from openclaw_web.boxes.models import Box
from openclaw_web.core.clock import business_now, real_now
from openclaw_web.core.database import session_scope
from openclaw_web.gateway.errors import NotFromHereError, UnavailableError, UnknownTokenError
from openclaw_web.metering import periods, tokens
from openclaw_web.metering import queries as metering_queries
from openclaw_web.metering import service as metering
from openclaw_web.metering.models import ProxyToken, TokenKind, UsageMonthly

logger = logging.getLogger(__name__)

FRESH_SECONDS = 1.0  # a revoked token is refused this soon
STALE_SECONDS = 60.0  # without a database nothing can be revoked; go on with what we knew
LOAD_SECONDS = 5.0
MAX_ENTRIES = 20_000

Headers = Iterable[tuple[bytes, bytes]]

# What an ingress adds. The proxy's own service, which boxes call, has none in front of it.
_FORWARDED = frozenset({b"x-forwarded-for", b"forwarded", b"x-real-ip"})


@dataclass(frozen=True)
class Caller:
    """What a token says about who holds it."""

    token_id: UUID
    customer_id: UUID
    box_id: UUID
    kind: TokenKind
    is_unthrottled: bool
    is_polite: bool
    has_api_access: bool


@dataclass
class Account:
    """What a customer may do now. `used` is the database's; what is unwritten comes on top."""

    customer_id: UUID
    plan: Plan | None = None
    is_entitled: bool = False
    period_start: datetime | None = None
    period_end: datetime | None = None
    used: int = 0
    limit: int = 0


@dataclass
class _Entry:
    caller: Caller | None
    loaded: float
    checked: float


class Directory:
    """The callers and accounts that this process knows."""

    def __init__(self) -> None:
        self._entries: dict[bytes, _Entry] = {}
        self._accounts: dict[UUID, Account] = {}
        self._loads: dict[bytes, asyncio.Task[_Entry]] = {}
        self._clock_offset = timedelta()

    def now(self) -> datetime:
        """Return business time, by an offset that is as old as the newest look at the database."""
        return real_now() + self._clock_offset

    async def find(self, clear: str) -> tuple[Caller, Account]:
        """Return who holds a token.

        Raises:
            UnknownTokenError: nobody, or not any more.
            UnavailableError: the database does not answer, and we never saw the token.
        """
        if not tokens.looks_like_token(clear):
            raise UnknownTokenError
        key = tokens.token_hmac(clear)
        entry = self._entries.get(key)
        if entry is None or self._is_old(entry):
            entry = await self._refreshed(key, entry)
        if entry.caller is None:
            raise UnknownTokenError
        return entry.caller, self._accounts[entry.caller.customer_id]

    def note_total(self, customer_id: UUID, period_start: datetime, used: int) -> None:
        """Take over what a flush left in the database; it only grows until the next look."""
        account = self._accounts.get(customer_id)
        if account is not None and account.period_start == period_start:
            account.used = max(account.used, used)

    def _is_old(self, entry: _Entry) -> bool:
        if time.monotonic() - entry.checked > FRESH_SECONDS:
            return True
        if entry.caller is None:
            return False
        period_end = self._accounts[entry.caller.customer_id].period_end
        return period_end is not None and period_end <= self.now()

    async def _refreshed(self, key: bytes, known: _Entry | None) -> _Entry:
        """Look once, however many requests wait for it."""
        load = self._loads.get(key)
        if load is None:
            load = self._loads[key] = asyncio.create_task(self._load(key))
            load.add_done_callback(lambda _: self._loads.pop(key, None))
        try:
            return await asyncio.shield(load)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            now = time.monotonic()
            if known is not None and now - known.loaded < STALE_SECONDS:
                known.checked = now
                return known
            logger.warning("The database does not answer; a token cannot be checked.")
            raise UnavailableError("The service is not available at the moment.") from error

    async def _load(self, key: bytes) -> _Entry:
        async with asyncio.timeout(LOAD_SECONDS), session_scope() as session:
            token = await metering_queries.any_customers_token(session, key)
            box = await session.get(Box, token.box_id) if token is not None else None
            caller = _caller(token, box) if token is not None and box is not None else None
            if caller is not None:
                await self._load_account(session, caller.customer_id)
        entry = self._entries[key] = _Entry(
            caller, loaded=time.monotonic(), checked=time.monotonic()
        )
        self._make_room()  # after it is among them, or its account would go
        return entry

    async def _load_account(self, session: AsyncSession, customer_id: UUID) -> None:
        now = await business_now(session)
        self._clock_offset = now - real_now()
        subscription = await billing_queries.find_live_subscription(session, customer_id)
        account = self._accounts.setdefault(customer_id, Account(customer_id))
        account.is_entitled = entitlement.entitled(subscription, now)
        account.plan = plan_of(subscription.tier) if subscription is not None else None
        period = await metering_queries.find_period(session, customer_id, now)
        if period is None and subscription is not None and account.is_entitled:
            period = await _open_period(session, subscription, now)
        account.period_start = period.period_start if period is not None else None
        account.period_end = period.period_end if period is not None else None
        account.used = period.tokens_used if period is not None else 0
        account.limit = period.tokens_limit if period is not None else 0

    def _make_room(self) -> None:
        """Forget who has not asked lately, once there are many."""
        if len(self._entries) < MAX_ENTRIES:
            return
        oldest = time.monotonic() - STALE_SECONDS
        self._entries = {k: e for k, e in self._entries.items() if e.checked > oldest and e.caller}
        known = {entry.caller.customer_id for entry in self._entries.values() if entry.caller}
        self._accounts = {k: account for k, account in self._accounts.items() if k in known}


def token_of(headers: Headers) -> str:
    """Return the bearer token or API key of a request.

    Raises:
        UnknownTokenError: there is none.
    """
    for name, value in headers:
        if name == b"x-api-key":
            return value.decode("latin-1")
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return value[7:].strip().decode("latin-1")
    raise UnknownTokenError


def check_origin(caller: Caller, *, peer: str | None, headers: Headers) -> None:
    """A box calls from inside; from the public side only API tokens count, when the box allows it.

    Raises:
        NotFromHereError: the caller may not call from where it does.
    """
    if caller.kind is TokenKind.API:
        if not caller.has_api_access:
            raise NotFromHereError("API access is not turned on for this box.")
    elif not _is_inside(peer, headers):
        raise NotFromHereError("This token works only from inside the box.")


def _is_inside(peer: str | None, headers: Headers) -> bool:
    if any(name in _FORWARDED for name, _ in headers):
        return False
    try:
        address = ipaddress.ip_address(peer or "")
    except ValueError:
        return False
    return address.is_private or address.is_loopback


def _caller(token: ProxyToken, box: Box) -> Caller | None:
    """Return what a live token stands for. It expires by real time, whatever business time is."""
    has_expired = token.expires_at is not None and token.expires_at <= real_now()
    if token.revoked_at is not None or has_expired:
        return None
    return Caller(
        token_id=token.id,
        customer_id=token.customer_id,
        box_id=token.box_id,
        kind=TokenKind(token.kind),
        is_unthrottled=token.is_unthrottled,
        is_polite=box.limit_behaviour == "polite",
        has_api_access=box.api_access,
    )


async def _open_period(
    session: AsyncSession, subscription: Subscription, now: datetime
) -> UsageMonthly:
    """Open the period that Stripe has not told us of yet: no customer waits for an invoice."""
    start, end = periods.period_at(
        subscription.current_period_start, subscription.current_period_end, now
    )
    is_provisional = start != subscription.current_period_start
    limit = subscription.tokens_limit
    if is_provisional:
        next_plan = plan_of(subscription.pending_tier or subscription.tier)
        limit = periods.provisional_limit(next_plan.tokens_limit)
    return await metering.open_period(
        session,
        customer_id=subscription.customer_id,
        period_start=start,
        period_end=end,
        tokens_limit=limit,
        is_provisional=is_provisional,
    )
