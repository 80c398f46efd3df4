"""When a plan cannot be changed, and the sentence that says what to do first."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from openclaw_web.billing import change_rules as rules
from openclaw_web.billing.change_rules import ChangeRefusedError
from openclaw_web.billing.models import Subscription, SubscriptionStatus, Tier
from tests.factories import now


def plan(**fields: Any) -> Subscription:
    known: dict[str, Any] = {
        "tier": Tier.STARTER,
        "status": SubscriptionStatus.ACTIVE,
        "current_period_start": now(),
        "current_period_end": now() + timedelta(days=30),
    }
    return Subscription(customer_id=uuid4(), tokens_limit=1, **{**known, **fields})


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"status": SubscriptionStatus.PAST_DUE}, "A payment is overdue. Fix your card first"),
        ({"status": SubscriptionStatus.SUSPENDED}, "suspended. Settle what is open first"),
        ({"status": SubscriptionStatus.TRIALING}, "on trial"),
        ({"cancel_at_period_end": True}, "Keep it first"),
        ({"tier": Tier.TEAM}, "your plan already"),
    ],
    ids=["past due", "suspended", "on trial", "ending", "the same"],
)
def test_what_cannot_be_changed_is_said_in_a_sentence(fields, sentence):
    with pytest.raises(ChangeRefusedError, match=sentence):
        rules.refuse_unless_changeable(plan(**fields), Tier.TEAM)


def was_refused(rule, *given):
    try:
        rule(*given)
    except ChangeRefusedError:
        return True
    return False


def test_a_plan_in_good_order_may_be_changed():
    waiting = plan(pending_tier=Tier.STARTER, tier=Tier.PRO)
    assert not was_refused(rules.refuse_unless_changeable, plan(), Tier.TEAM)
    assert not was_refused(rules.refuse_unless_changeable, waiting, Tier.TEAM)
    assert was_refused(rules.refuse_unless_changeable, waiting, Tier.PRO)


@pytest.mark.parametrize("age", [timedelta(minutes=16), timedelta(minutes=-2)], ids=str)
def test_an_old_price_is_worked_out_anew(age):
    with pytest.raises(ChangeRefusedError, match="a while ago"):
        rules.refuse_old_quote(int((now() - age).timestamp()), now())


def test_a_fresh_price_is_good():
    moment = now()
    assert not was_refused(rules.refuse_old_quote, int(moment.timestamp()), moment)
