"""What a box should be, computed from facts and never stored."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from openclaw_web.boxes.models import BoxStatus

GONE = frozenset({BoxStatus.DESTROYING, BoxStatus.DESTROYED})


class Desired(StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DESTROYED = "destroyed"


class Why(StrEnum):
    """Why a box is not desired active: the word that its status shows."""

    ENTITLED = ""
    PAUSED = "paused"
    HOLD = "hold"
    NOT_PAID = "not_paid"
    DELETION_DUE = "deletion_due"
    ACCOUNT_DELETED = "account_deleted"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that decides; `now` is business time."""

    status: BoxStatus
    is_entitled: bool
    has_hold: bool
    is_account_deleted: bool
    user_paused_at: datetime | None
    delete_after: datetime | None
    now: datetime


def desired_state(facts: Facts) -> tuple[Desired, Why]:
    """Return what the box should be, and why it should not run.

    Destroyed wins over suspended wins over active. A hold freezes `delete_after`: the box of a
    customer who disputes a payment is never destroyed.
    """
    is_due = facts.delete_after is not None and facts.delete_after <= facts.now
    rules = (
        (facts.status in GONE, Desired.DESTROYED, Why.DELETION_DUE),
        (facts.is_account_deleted, Desired.DESTROYED, Why.ACCOUNT_DELETED),
        (facts.has_hold, Desired.SUSPENDED, Why.HOLD),
        (is_due, Desired.DESTROYED, Why.DELETION_DUE),
        (not facts.is_entitled, Desired.SUSPENDED, Why.NOT_PAID),
        (facts.user_paused_at is not None, Desired.SUSPENDED, Why.PAUSED),
    )
    for holds, desired, why in rules:
        if holds:
            return desired, why
    return Desired.ACTIVE, Why.ENTITLED
