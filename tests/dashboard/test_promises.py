"""What a customer reads who has paid and has no assistant: what we do, and where the money is."""

from datetime import UTC, datetime

import pytest

from openclaw_web.billing.deliveries import Promise, PromiseState
from openclaw_web.dashboard.promises import sentence_of

MOMENT = datetime(2026, 5, 4, 12, tzinfo=UTC)


def promise(state: PromiseState, *, is_overdue: bool = False, cents: int = 0) -> Promise:
    return Promise(
        state=state,
        deliver_by=MOMENT,
        is_overdue=is_overdue,
        refunded_at=None,
        refunded_cents=cents,
        currency="usd",
    )


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (promise(PromiseState.LATE), "We're on it"),
        (promise(PromiseState.LATE, is_overdue=True), "a person"),
        (promise(PromiseState.REFUNDING), "giving your money back now"),
        (promise(PromiseState.REFUNDED, cents=4900), "We gave your money back ($49"),
        (promise(PromiseState.REFUNDED), "We gave your money back because"),
    ],
    ids=["late", "overdue", "refunding", "refunded", "of unknown amount"],
)
def test_each_state_has_its_true_sentence(shown, words):
    assert words in sentence_of(shown)


def test_without_a_promise_nothing_is_said():
    assert sentence_of(None) == ""
