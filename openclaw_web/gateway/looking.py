"""One look at the database: what tokens stand for, and what their customers may do now."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.billing import entitlement
from openclaw_web.billing.tiers import plan_of
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.core.clock import business_now, real_now
from openclaw_web.core.database import session_scope
from openclaw_web.gateway import queries
from openclaw_web.gateway.callers import Account, Caller
from openclaw_web.gateway.queries import CustomerView, SubscriptionView, TokenView
from openclaw_web.metering import periods
from openclaw_web.metering import service as metering

logger = logging.getLogger(__name__)

POLITE = "polite"
NEVER_SEEN = ""  # no row has this mark
LONG_AGO = datetime.min.replace(tzinfo=UTC)
_ASLEEP = frozenset({BoxStatus.SUSPENDED, BoxStatus.DESTROYING, BoxStatus.DESTROYED})


Marks = Mapping[UUID, str]


@dataclass(frozen=True)
class Seen:
    """A live token. It expires by real time, whatever business time is."""

    token_hmac: bytes
    expires_at: datetime | None
    caller: Caller
    mark: str


@dataclass(frozen=True)
class SeenAccount:
    """A customer's account, which by itself is another one at `turns_at` (business time)."""

    account: Account
    turns_at: datetime | None
    mark: str


@dataclass(frozen=True)
class Look:
    """What one look found; `now` is business time. What was known and is not in it is the same."""

    now: datetime
    tokens: Mapping[UUID, Seen]
    accounts: tuple[SeenAccount, ...]
    gone: frozenset[UUID] = field(default=frozenset())


async def at_hmacs(hmacs: Sequence[bytes]) -> Look:
    """Look at tokens by their fingerprints, as they come with requests; the missing are not live.

    A look may open a period, or be refused by the database.
    """
    async with session_scope() as session:
        now, moment = await business_now(session), real_now()
        found = await queries.any_customers_tokens_by_hmac(session, hmacs)
        live = [one for one in found if one.expires_at is None or one.expires_at > moment]
        customers = dict.fromkeys((one.customer_id for one in live), NEVER_SEEN)
        return Look(
            now=now,
            tokens={one.token_id: _seen(one) for one in live},
            accounts=await _accounts(session, customers, now),
        )


async def at_tokens(tokens: Marks, customers: Marks) -> Look:
    """Look again at tokens and customers whose marks are known."""
    async with session_scope() as session:
        now = await business_now(session)
        found = await queries.any_customers_changed_tokens(session, tokens)
        return Look(
            now=now,
            tokens={key: _seen(one) for key, one in found.items() if one is not None},
            accounts=await _accounts(session, customers, now),
            gone=frozenset(key for key, one in found.items() if one is None),
        )


async def _accounts(
    session: AsyncSession, customers: Marks, now: datetime
) -> tuple[SeenAccount, ...]:
    if not customers:
        return ()
    views = await queries.any_customers_changed_standing(session, customers, now)
    # Periods never overlap; should two hold this moment, the one that began last counts. Sorted,
    # so that two processes open periods in the same order and never wait for each other.
    newest = {view.customer_id: view for view in sorted(views, key=_by_customer_and_start)}
    return tuple([await _seen_account(session, view, now) for view in newest.values()])


def _by_customer_and_start(view: CustomerView) -> tuple[UUID, datetime]:
    return view.customer_id, view.period.period_start if view.period else LONG_AGO


async def _seen_account(session: AsyncSession, view: CustomerView, now: datetime) -> SeenAccount:
    account = await _account(session, view, now)
    dates = [account.period_end]
    if (found := view.subscription) is not None:
        dates += [found.trial_end, found.grace_until, found.current_period_end]
    lacks_period = account.is_entitled and account.period_start is None
    return SeenAccount(
        account=account,
        turns_at=min((date for date in dates if date is not None and date > now), default=None),
        mark=NEVER_SEEN if lacks_period else view.mark,
    )


async def _account(session: AsyncSession, view: CustomerView, now: datetime) -> Account:
    subscription, period = view.subscription, view.period
    account = Account(
        view.customer_id,
        plan=plan_of(subscription.tier) if subscription is not None else None,
        is_entitled=entitlement.entitled(subscription, now),
        has_hold=view.has_hold,
    )
    if period is not None:
        account.period_start, account.period_end = period.period_start, period.period_end
        account.used, account.limit = period.used, period.limit
    elif subscription is not None and account.is_entitled:
        try:
            async with session.begin_nested():
                await _open_period(session, account, subscription, now)
        except (periods.PeriodError, IntegrityError):  # one customer's, not everybody's trouble
            logger.exception("No period.", extra={"customer_id": view.customer_id})
    return account


async def _open_period(
    session: AsyncSession, account: Account, subscription: SubscriptionView, now: datetime
) -> None:
    """Open the period that Stripe has not told us of yet: no customer waits for an invoice."""
    start, end = periods.period_at(
        subscription.current_period_start, subscription.current_period_end, now
    )
    is_provisional = start != subscription.current_period_start
    limit = subscription.tokens_limit
    if is_provisional:
        next_plan = plan_of(subscription.pending_tier or subscription.tier)
        limit = periods.provisional_limit(next_plan.tokens_limit)
    opened = await metering.open_period(
        session,
        customer_id=account.customer_id,
        period_start=start,
        period_end=end,
        tokens_limit=limit,
        is_provisional=is_provisional,
    )
    account.period_start, account.period_end = opened.period_start, opened.period_end
    account.used, account.limit = opened.tokens_used, opened.tokens_limit


def _seen(found: TokenView) -> Seen:
    return Seen(found.token_hmac, found.expires_at, _caller(found), found.mark)


def _caller(found: TokenView) -> Caller:
    return Caller(
        token_id=found.token_id,
        customer_id=found.customer_id,
        box_id=found.box_id,
        kind=found.kind,
        is_unthrottled=found.is_unthrottled,
        is_polite=found.limit_behaviour == POLITE,
        has_api_access=found.has_api_access,
        is_asleep=found.box_status in _ASLEEP,
        is_paused_by_owner=found.user_paused_at is not None,
        language=found.language,
    )
