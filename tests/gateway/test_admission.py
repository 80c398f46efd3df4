"""Who may start a request: what is refused says why, when to come again, and what is left."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from openclaw_web.billing.tiers import plan_of
from openclaw_web.gateway.admission import Admission, Place
from openclaw_web.gateway.callers import Account, Caller
from openclaw_web.gateway.errors import (
    Form,
    LimitReachedError,
    NotEntitledError,
    NotFoundError,
    Pause,
    RefusalError,
    SlowDownError,
    UnavailableError,
)
from openclaw_web.gateway.wire import Request
from openclaw_web.metering.meters import Meters
from openclaw_web.metering.models import TokenKind

pytestmark = pytest.mark.interpreted

START = datetime(2026, 11, 1, tzinfo=UTC)
LIMIT = 10_000_000


def make_request() -> Request:
    return Request(
        form=Form.OPENAI,
        body=b"x" * 4_000,
        asked_model="k2p5",
        model="kimi-k2.7-code",
        max_tokens=1_000,
    )


REQUEST = make_request()


def make_account(**fields) -> Account:
    given: dict[str, Any] = {
        "plan": plan_of("starter"),
        "is_entitled": True,
        "period_start": START,
        "period_end": START + timedelta(days=30),
        "limit": LIMIT,
    }
    return Account(uuid4(), **(given | fields))


def make_caller(account: Account, **fields) -> Caller:
    given: dict[str, Any] = {"is_unthrottled": False, "is_polite": True, "has_api_access": False}
    return Caller(uuid4(), account.customer_id, uuid4(), TokenKind.BOX, **(given | fields))


async def near(admission, caller, account):
    place = admission.admit(caller, account, REQUEST)
    assert isinstance(place, Place)
    return await admission.admit_near(place, caller, account, REQUEST)


@pytest.fixture
def directory():
    return SimpleNamespace(now=lambda: START + timedelta(days=10), is_cut_off=False)


@pytest.fixture
def settler():
    return SimpleNamespace(is_full=False)


@pytest.fixture
def admission(directory, settler) -> Admission:
    """Return an admission that never reached Redis, in a moment that lasts."""
    return Admission(directory, settler, Meters(clock=lambda: 1_000.0))


@pytest.mark.parametrize(
    ("account", "caller", "error", "pause"),
    [
        ({"is_entitled": False}, {}, NotEntitledError, Pause.INACTIVE),
        ({"plan": None}, {}, NotEntitledError, Pause.INACTIVE),
        ({"has_hold": True, "is_entitled": False}, {}, NotEntitledError, Pause.HELD),
        ({}, {"is_paused_by_owner": True}, NotEntitledError, Pause.PAUSED),
        ({"period_start": None}, {}, UnavailableError, None),
        ({"used": LIMIT}, {}, LimitReachedError, None),
    ],
    ids=["not paid", "no plan", "on hold", "paused", "no period", "used up"],
)
def test_who_is_not_served_learns_why(admission, account, caller, error, pause):
    held = make_account(**account)
    with pytest.raises(error) as caught:
        admission.admit(make_caller(held, **caller), held, REQUEST)
    assert getattr(caught.value, "pause", None) is pause


def test_a_model_of_another_plan_is_not_found(admission):
    account = make_account()
    request = make_request()
    request.asked_model = "k3"
    with pytest.raises(NotFoundError):
        admission.admit(make_caller(account), account, request)


def test_nothing_starts_that_could_not_be_counted(admission, settler):
    settler.is_full = True
    account = make_account()
    with pytest.raises(UnavailableError):
        admission.admit(make_caller(account), account, REQUEST)


def test_far_from_the_limit_a_request_starts_at_once(admission):
    account = make_account()
    admitted = admission.admit(make_caller(account), account, REQUEST)
    assert admitted is not None
    assert (admitted.period_start, admitted.timestamp) == (START, START + timedelta(days=10))
    assert admitted.reservation.tokens == 2_000


async def test_near_the_limit_a_process_without_redis_takes_one_request(admission):
    account = make_account(used=LIMIT - 100)
    caller = make_caller(account)
    admitted = await near(admission, caller, account)
    with pytest.raises(UnavailableError) as caught:
        await near(admission, caller, account)
    assert (caught.value.status, caught.value.retry_after) == (503, 2)
    admission.end(admitted.reservation)
    assert await near(admission, caller, account)


async def test_near_the_limit_too_a_place_is_taken_at_once_and_given_back(admission):
    account = make_account(used=LIMIT - 100)
    caller = make_caller(account)
    places = [admission.admit(caller, account, REQUEST) for _ in range(2)]
    with pytest.raises(SlowDownError, match="2 requests at once"):
        admission.admit(caller, account, REQUEST)
    admitted = await admission.admit_near(places[0], caller, account, REQUEST)
    with pytest.raises(UnavailableError):
        await admission.admit_near(places[1], caller, account, REQUEST)
    admission.end(admitted.reservation)
    assert places[0].meter.requests == 0


def test_a_customer_sends_as_many_bodies_at_once_as_it_may_have_requests(admission):
    account = make_account()
    caller = make_caller(account)
    with admission.reading(caller, account), admission.reading(caller, account):
        with (
            pytest.raises(SlowDownError, match="2 requests at once"),
            admission.reading(caller, account),
        ):
            pass
        other = make_account()
        with admission.reading(make_caller(other), other):
            pass
    with admission.reading(caller, account):
        pass


async def test_used_up_is_final_also_when_the_news_is_only_in_memory(admission):
    account = make_account(used=LIMIT - 100)
    caller = make_caller(account)
    admitted = await near(admission, caller, account)
    admitted.reservation.meter.learn(LIMIT)
    with pytest.raises(LimitReachedError) as caught:
        admission.admit(caller, account, REQUEST)
    assert caught.value.retry_after == timedelta(days=20).total_seconds()


def test_too_many_at_once_are_refused(admission):
    account = make_account()
    caller = make_caller(account)
    running = [admission.admit(caller, account, REQUEST) for _ in range(2)]
    with pytest.raises(SlowDownError, match="2 requests at once"):
        admission.admit(caller, account, REQUEST)
    assert admission.admit(replace(caller, is_unthrottled=True), account, REQUEST)
    admission.leave(running[0].reservation)
    admission.end(running[1].reservation)
    with pytest.raises(SlowDownError):
        [admission.admit(caller, account, REQUEST) for _ in range(2)]


def test_too_fast_is_refused_with_what_is_left(admission):
    account = make_account()
    caller = make_caller(account)
    for _ in range(10):
        admission.end(admission.admit(caller, account, REQUEST).reservation)
    with pytest.raises(SlowDownError, match="requests a second") as caught:
        admission.admit(caller, account, REQUEST)
    headers = dict(caught.value.headers)
    assert caught.value.retry_after == 1
    assert headers[b"x-ratelimit-limit-requests"] == b"10"
    assert headers[b"x-ratelimit-remaining-requests"] == b"0"
    assert headers[b"x-ratelimit-limit-tokens"] == b"400000"


def test_too_many_tokens_a_minute_are_refused_until_they_have_faded(admission):
    account = make_account()
    caller = make_caller(account)
    admission.end(admission.admit(caller, account, REQUEST).reservation, tokens=500_000)
    with pytest.raises(SlowDownError, match="400,000 tokens a minute") as caught:
        admission.admit(caller, account, REQUEST)
    assert caught.value.retry_after == 14  # 60 s times the logarithm of 5/4
    headers = dict(caught.value.headers)
    assert headers[b"x-ratelimit-remaining-tokens"] == b"0"
    assert headers[b"x-ratelimit-reset-tokens"].endswith(b"s")


def test_an_estimate_that_was_too_high_is_given_back(admission):
    account = make_account()
    caller = make_caller(account)
    request = make_request()
    request.body = b"x " * 500_000
    for _ in range(4):
        admission.end(admission.admit(caller, account, request).reservation, tokens=10)
    left = dict(admission.rate_headers(account))[b"x-ratelimit-remaining-tokens"]
    assert int(left) > 399_000


def test_a_refusal_for_an_unknown_period_has_no_figures(admission):
    account = make_account(period_start=None)
    with pytest.raises(RefusalError) as caught:
        admission.admit(make_caller(account), account, REQUEST)
    assert caught.value.headers == []
