from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from openclaw_web.boxes import lifecycle
from openclaw_web.boxes.desired import Desired, Facts, Why, desired_state
from openclaw_web.boxes.lifecycle import IllegalMoveError, move
from openclaw_web.boxes.models import Box, BoxStatus

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
FACTS = Facts(
    status=BoxStatus.ACTIVE,
    is_entitled=True,
    has_hold=False,
    is_account_deleted=False,
    user_paused_at=None,
    delete_after=None,
    now=NOW,
)
REFUSED = [
    (start, end)
    for start in BoxStatus
    for end in BoxStatus
    if end is not start and end not in lifecycle.LEGAL[start]
]


def box(status):
    return Box(
        id=uuid4(),
        customer_id=uuid4(),
        subscription_id=uuid4(),
        status=status,
        k8s_namespace="n",
    )


@pytest.mark.parametrize(("start", "end"), REFUSED, ids=[f"{a}-{b}" for a, b in REFUSED])
def test_a_move_outside_the_table_is_refused(start, end):
    with pytest.raises(IllegalMoveError, match=f"{start.value} cannot become {end.value}"):
        move(box(start), end, now=NOW)


@pytest.mark.parametrize("start", sorted(lifecycle.LIVE))
def test_every_live_box_may_be_destroyed(start):
    one = box(start)
    assert move(one, BoxStatus.DESTROYING, now=NOW)
    assert move(one, BoxStatus.DESTROYED, now=NOW)
    assert one.destroyed_at == NOW


def test_destroyed_is_the_end():
    assert not lifecycle.LEGAL[BoxStatus.DESTROYED]


def test_staying_changes_the_reason_and_not_the_time():
    one = box(BoxStatus.UNHEALTHY)
    one.status_changed_at = NOW - timedelta(hours=1)
    assert move(one, BoxStatus.UNHEALTHY, now=NOW, reason="other") is False
    assert (one.status_reason, one.status_changed_at) == ("other", NOW - timedelta(hours=1))


@pytest.mark.parametrize(
    ("change", "desired", "why"),
    [
        ({}, Desired.ACTIVE, Why.ENTITLED),
        ({"user_paused_at": NOW}, Desired.SUSPENDED, Why.PAUSED),
        ({"is_entitled": False}, Desired.SUSPENDED, Why.NOT_PAID),
        ({"has_hold": True}, Desired.SUSPENDED, Why.HOLD),
        ({"delete_after": NOW}, Desired.DESTROYED, Why.DELETION_DUE),
        ({"delete_after": NOW + timedelta(seconds=1)}, Desired.ACTIVE, Why.ENTITLED),
        ({"delete_after": NOW, "has_hold": True}, Desired.SUSPENDED, Why.HOLD),
        ({"is_account_deleted": True, "has_hold": True}, Desired.DESTROYED, Why.ACCOUNT_DELETED),
        ({"status": BoxStatus.DESTROYING}, Desired.DESTROYED, Why.DELETION_DUE),
        (
            {"user_paused_at": NOW, "is_entitled": False},
            Desired.SUSPENDED,
            Why.NOT_PAID,
        ),
    ],
)
def test_what_a_box_should_be_follows_from_the_facts(change, desired, why):
    assert desired_state(replace(FACTS, **change)) == (desired, why)
