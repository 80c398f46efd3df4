"""What stops us when too much goes wrong at once, and the switches that an admin turns.

A brake lets a few acts of a kind pass in a window of business time. One more trips it: then none
passes until an admin releases it, for many failures at once are one fault, and more often ours.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import service as accounts
from openclaw_web.billing import queries as billing
from openclaw_web.billing import service as billing_service
from openclaw_web.billing.entitlement import SERVED
from openclaw_web.billing.facts import Decision
from openclaw_web.billing.models import Subscription, SubscriptionStatus
from openclaw_web.core.clock import business_now
from openclaw_web.core.errors import ValidationError
from openclaw_web.core.switches import PlatformSetting, read_switch
from openclaw_web.jobs import service as jobs

MOST_OF_LIVE = 0.1
FEWEST = 5
SHORTEST_REASON = 3
# While the brake is on nobody is cut off; the next sync, 15 minutes later, prolongs it again.
PROLONGED_BY = timedelta(minutes=30)
SUSPENDING = frozenset({SubscriptionStatus.SUSPENDED})
HELD_BACK = "held_back"  # in the brake's row: whom it keeps from being suspended


class Brake(StrEnum):
    SUSPENSIONS = "suspensions"
    REFUNDS = "refunds"
    UNDELIVERED = "undelivered_refunds"


class Switch(StrEnum):
    """What an admin may turn on and off."""

    REFUND_UNDELIVERED = "refund_undelivered"
    REFUND_DUPLICATES = "refund_duplicates"
    REFUND_FRAUD_WARNINGS = "refund_fraud_warnings"
    PROVISIONING_PAUSED = "provisioning_paused"


DEFAULTS = {
    Switch.REFUND_UNDELIVERED: True,
    Switch.REFUND_DUPLICATES: True,
    Switch.REFUND_FRAUD_WARNINGS: False,
    Switch.PROVISIONING_PAUSED: False,
}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How many acts pass in a window; with `share` also that part of the live subscriptions."""

    window: timedelta
    fewest: int
    share: float = 0.0
    sentence: str


RULES = {
    Brake.SUSPENSIONS: Rule(
        window=timedelta(hours=1),
        fewest=FEWEST,
        share=MOST_OF_LIVE,
        sentence="Too many customers would be suspended within an hour; nobody is any more.",
    ),
    Brake.REFUNDS: Rule(
        window=timedelta(hours=1),
        fewest=FEWEST,
        share=MOST_OF_LIVE,
        sentence="Too much money would be given back within an hour; none is any more.",
    ),
    Brake.UNDELIVERED: Rule(
        window=timedelta(days=1),
        fewest=5,
        sentence="More than five paid assistants could not be delivered within a day.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class BrakeView:
    name: str
    passed: int
    limit: int
    tripped_at: datetime | None


async def passes(session: AsyncSession, brake: Brake, *, now: datetime) -> bool:
    """Count one act, or refuse it; locks the brake until the commit, so that none slips through."""
    row = await _locked(session, brake)
    if row.value.get("tripped_at"):
        return False
    rule = RULES[brake]
    recent = _recent(row.value, rule, now)
    limit = await _limit(session, rule)
    if len(recent) < limit:
        row.value = {"passed": [*recent, now.isoformat()]}
        session.add(row)
        await session.flush()
        return True
    row.value = {"passed": recent, "tripped_at": now.isoformat()}
    session.add(row)
    await session.flush()
    await jobs.raise_alert(
        session,
        code=_code(brake),
        subject=brake.value,
        detail={"sentence": rule.sentence, "passed": len(recent), "limit": limit},
    )
    return False


async def is_tripped(session: AsyncSession, brake: Brake) -> bool:
    value = await read_switch(session, _key(brake), {})
    return bool(value.get("tripped_at"))


async def release(session: AsyncSession, brake: Brake, *, by: str, reason: str) -> bool:
    """Let acts pass again, counted from nothing; `False`: the brake was not on.

    Whoever it held back is compared with Stripe again at once.

    Raises:
        ValidationError: no reason was given.
    """
    require_reason(reason)
    row = await _locked(session, brake)
    was_on = bool(row.value.get("tripped_at"))
    held_back = row.value.get(HELD_BACK, ())
    row.value, row.updated_by, row.updated_at = {}, by, await business_now(session)
    session.add(row)
    await session.flush()
    await jobs.resolve_alert(session, code=_code(brake), subject=brake.value)
    await _audit(session, f"brake.released.{brake.value}", by=by, reason=reason)
    for customer_id in held_back:
        await billing_service.request_sync(session, UUID(customer_id))
    return was_on


async def any_customers_brakes(session: AsyncSession) -> list[BrakeView]:
    """Return how near each brake is."""
    now = await business_now(session)
    views = []
    for brake, rule in RULES.items():
        value = await read_switch(session, _key(brake), {})
        tripped_at = value.get("tripped_at")
        views.append(
            BrakeView(
                name=brake.value,
                passed=len(_recent(value, rule, now)),
                limit=await _limit(session, rule),
                tripped_at=datetime.fromisoformat(tripped_at) if tripped_at else None,
            )
        )
    return views


async def is_on(session: AsyncSession, switch: Switch) -> bool:
    return bool(await read_switch(session, switch.value, DEFAULTS[switch]))


async def turn(session: AsyncSession, switch: Switch, *, is_on: bool, by: str, reason: str) -> None:
    """Turn a switch.

    Raises:
        ValidationError: no reason was given.
    """
    require_reason(reason)
    row = insert(PlatformSetting).values(
        key=switch.value, value=is_on, updated_by=by, updated_at=await business_now(session)
    )
    changed = {name: row.excluded[name] for name in ("value", "updated_by", "updated_at")}
    await session.exec(row.on_conflict_do_update(index_elements=["key"], set_=changed))
    verb = "on" if is_on else "off"
    await _audit(session, f"switch.{verb}.{switch.value}", by=by, reason=reason)


async def holds_back_suspension(
    session: AsyncSession, known: Subscription | None, decision: Decision | None, *, now: datetime
) -> bool:
    """Say whether a suspension that nobody asked for by hand has to wait for an admin.

    Then the customer is served on for a while: being cut off by our mistake is worse for them than
    a few more days of grace are for us.
    """
    if known is None or decision is None or known.status not in SERVED:
        return False
    is_same = known.stripe_subscription_id == decision.stripe_subscription_id
    if not is_same or decision.status not in SUSPENDING:
        return False
    if await billing.open_holds(session, known.customer_id):
        return False
    if await passes(session, Brake.SUSPENSIONS, now=now):
        return False
    await _note_held_back(session, known.customer_id)
    served_until = now + PROLONGED_BY
    if known.status is SubscriptionStatus.PAST_DUE:
        known.grace_until = max(known.grace_until or served_until, served_until)
    if known.status is SubscriptionStatus.TRIALING:
        known.trial_end = max(known.trial_end or served_until, served_until)
    known.synced_at = now
    session.add(known)
    await session.flush()
    return True


async def _note_held_back(session: AsyncSession, customer_id: UUID) -> None:
    """Remember whom the brake keeps: one that is active in our eyes has no date that brings it."""
    row = await _locked(session, Brake.SUSPENSIONS)
    known = set(row.value.get(HELD_BACK, ()))
    row.value = row.value | {HELD_BACK: sorted(known | {str(customer_id)})}
    session.add(row)
    await session.flush()


async def _locked(session: AsyncSession, brake: Brake) -> PlatformSetting:
    await session.exec(
        insert(PlatformSetting)
        .values(key=_key(brake), value={})
        .on_conflict_do_nothing(index_elements=["key"])
    )
    return await session.get_one(
        PlatformSetting, _key(brake), with_for_update=True, populate_existing=True
    )


async def _limit(session: AsyncSession, rule: Rule) -> int:
    if not rule.share:
        return rule.fewest
    live = await session.exec(
        select(sa.func.count())
        .select_from(Subscription)
        .where(col(Subscription.status).in_(SERVED))
    )
    return max(rule.fewest, int(live.one() * rule.share))


def _recent(value: dict[str, Any], rule: Rule, now: datetime) -> list[str]:
    since = now - rule.window
    return [one for one in value.get("passed", ()) if datetime.fromisoformat(one) > since]


def _key(brake: Brake) -> str:
    return f"brake_{brake.value}"


def _code(brake: Brake) -> str:
    return f"brake_{brake.value}"


def require_reason(reason: str) -> None:
    if len(reason.strip()) < SHORTEST_REASON:
        raise ValidationError("Say why: an admin's act needs a reason.")


async def _audit(session: AsyncSession, action: str, *, by: str, reason: str) -> None:
    await accounts.audit(
        session,
        action=action,
        actor_type="admin",
        actor_id=by,
        resource_type="platform_setting",
        resource_id=action.rsplit(".", 1)[-1],
        reason=reason.strip(),
    )
