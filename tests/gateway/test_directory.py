"""Who is asking: what a proxy remembers of tokens, when it asks again, and what it forgets."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlmodel import col, select

from openclaw_web.billing.models import Subscription, SubscriptionStatus
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.core.clock import real_now
from openclaw_web.core.database import session_scope
from openclaw_web.gateway import credentials, looking
from openclaw_web.gateway.credentials import Directory
from openclaw_web.gateway.errors import RefusalError, UnavailableError, UnknownTokenError
from openclaw_web.metering import service as metering
from openclaw_web.metering import tokens
from openclaw_web.metering.models import ProxyToken, TokenKind, UsageMonthly
from openclaw_web.metering.periods import PeriodError
from tests.factories import make_box, make_period, make_subscription

MINUTE = 60.0


class Clock:
    """Time that moves when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(database, clock) -> Directory:
    """Return one that somebody keeps fresh: here, the test."""
    assert database
    made = Directory(clock)
    made.is_kept = True
    return made


@pytest.fixture
def looks(monkeypatch) -> list[int]:
    """Count how many tokens each look for new ones is about."""
    counted: list[int] = []
    look = looking.at_hmacs

    async def counting(hmacs):
        counted.append(len(hmacs))
        return await look(hmacs)

    monkeypatch.setattr(looking, "at_hmacs", counting)
    return counted


async def a_token(*, kind=TokenKind.BOX, expires_at=None, box=None, has_period=True):
    async with session_scope() as session:
        subscription = await make_subscription(session)
        if has_period:
            await make_period(session, subscription=subscription)
        home = await make_box(session, subscription=subscription, **(box or {}))
        return await metering.issue_token(
            session,
            customer_id=home.customer_id,
            box_id=home.id,
            kind=kind,
            expires_at=expires_at,
        )


async def change(model, **values):
    """Change the one row of a table."""
    async with session_scope() as session:
        row = (await session.exec(select(model))).one()
        for name, value in values.items():
            setattr(row, name, value)
        session.add(row)


async def revoke(issued):
    """Revoke without a word to anybody."""
    async with session_scope() as session:
        row = await session.get_one(ProxyToken, issued.token_id)
        row.revoked_at = real_now()
        session.add(row)


def a_stranger(number: int) -> str:
    return f"ocp_{'a' * 26}_{number:043}"


def no_database(monkeypatch) -> None:
    async def away(*_wanted):
        raise ConnectionRefusedError

    monkeypatch.setattr(looking, "at_hmacs", away)
    monkeypatch.setattr(looking, "at_tokens", away)


async def watched(directory, issued) -> list[str]:
    """Find a token, and return a list that gets an item when its streams are to be cut."""
    cut: list[str] = []
    caller, _ = await directory.find(issued.clear)
    caller.ending.watch(lambda: cut.append("cut"))
    return cut


async def test_who_is_known_is_not_looked_up_again(directory, looks, clock):
    issued = await a_token()
    first = await directory.find(issued.clear)
    clock.seconds += 14 * MINUTE
    assert await directory.find(issued.clear) == first
    assert directory.known(issued.clear.encode()) == first
    assert looks == [1]


async def test_without_somebody_who_keeps_it_fresh_it_asks_each_second(database, looks, clock):
    assert database
    directory, issued = Directory(clock), await a_token()
    await directory.find(issued.clear)
    await directory.find(issued.clear)
    assert looks == [1]
    clock.seconds += credentials.FRESH_SECONDS
    await directory.find(issued.clear)
    assert looks == [1, 1]


async def test_a_crowd_of_new_callers_is_one_look(directory, looks):
    known = await a_token()
    crowd = [known.clear] * 20 + [a_stranger(number) for number in range(100)]
    found = await asyncio.gather(*map(directory.find, crowd), return_exceptions=True)
    assert sum(isinstance(one, UnknownTokenError) for one in found) == 100
    assert looks == [101]


async def test_too_many_new_callers_are_asked_to_come_back(directory, monkeypatch):
    monkeypatch.setattr(credentials, "MOST_WAITING", 3)
    crowd = [directory.find(a_stranger(number)) for number in range(5)]
    found = await asyncio.gather(*crowd, return_exceptions=True)
    refused = [one for one in found if isinstance(one, RefusalError)]
    assert [one.status for one in refused] == [401, 401, 401, 503, 503]
    assert refused[-1].retry_after == 1


async def test_an_unknown_token_is_not_looked_for_again_and_again(directory, looks, clock):
    for _ in range(3):
        with pytest.raises(UnknownTokenError):
            await directory.find(a_stranger(1))
    assert looks == [1]
    clock.seconds += credentials.STRANGER_SECONDS
    with pytest.raises(UnknownTokenError):
        await directory.find(a_stranger(1))
    assert looks == [1, 1]


async def test_unknown_tokens_take_bounded_room(directory, monkeypatch):
    monkeypatch.setattr(credentials, "MOST_STRANGERS", 2)
    crowd = [directory.find(a_stranger(number)) for number in range(9)]
    await asyncio.gather(*crowd, return_exceptions=True)
    assert len(directory._strangers) == 2  # noqa: SLF001


@pytest.mark.parametrize("token", ["", "x", "ocp_ünïcode", "ocp_" + "a" * 70])
async def test_what_is_no_token_costs_no_look(directory, looks, token):
    with pytest.raises(UnknownTokenError):
        await directory.find(token)
    assert looks == []


async def test_a_full_directory_still_knows_who_has_just_come(directory, monkeypatch):
    monkeypatch.setattr(credentials, "MOST_ENTRIES", 1)
    for issued in [await a_token() for _ in range(3)]:
        caller, account = await directory.find(issued.clear)
        assert account.customer_id == caller.customer_id
        assert account.is_entitled
    assert len(directory._standings) == 1  # noqa: SLF001


async def test_a_revoked_token_is_refused_and_cut_after_the_next_refresh(directory):
    issued, other = await a_token(), await a_token()
    cut, spared = await watched(directory, issued), await watched(directory, other)
    await revoke(issued)
    await directory.refresh()
    assert (cut, spared) == (["cut"], [])
    with pytest.raises(UnknownTokenError):
        await directory.find(issued.clear)
    await directory.find(other.clear)


async def test_an_announced_change_is_asked_for_before_the_next_request(directory):
    issued = await a_token()
    caller, _ = await directory.find(issued.clear)
    await revoke(issued)
    directory.doubt(caller.customer_id)
    with pytest.raises(UnknownTokenError):
        await directory.find(issued.clear)


async def test_what_is_announced_during_a_look_is_looked_at_again(directory, monkeypatch):
    issued = await a_token()
    caller, _ = await directory.find(issued.clear)
    look = looking.at_tokens

    async def too_early(*known):
        found = await look(*known)
        await revoke(issued)
        directory.doubt(caller.customer_id)
        return found

    monkeypatch.setattr(looking, "at_tokens", too_early)
    await directory.refresh()
    with pytest.raises(UnknownTokenError):
        await directory.find(issued.clear)


async def test_an_expired_token_ends_by_itself(directory, clock):
    issued = await a_token(expires_at=real_now() + timedelta(minutes=5))
    await directory.find(issued.clear)
    clock.seconds += 4 * MINUTE
    assert directory.known(issued.clear.encode()) is not None
    clock.seconds += 2 * MINUTE
    assert directory.known(issued.clear.encode()) is None
    directory.is_cut_off = True
    with pytest.raises(UnknownTokenError):
        await directory.find(issued.clear)


async def test_without_a_database_who_is_known_goes_on_for_a_quarter_of_an_hour(
    directory, clock, monkeypatch
):
    issued = await a_token()
    await directory.find(issued.clear)
    no_database(monkeypatch)
    with pytest.raises(ConnectionRefusedError):
        await directory.refresh()
    directory.is_cut_off = True
    clock.seconds += 14 * MINUTE
    await directory.find(issued.clear)
    clock.seconds += 2 * MINUTE
    await directory.refresh()  # nobody is left to look at
    for token in (issued.clear, a_stranger(1)):
        with pytest.raises(UnavailableError) as refused:
            await directory.find(token)
        assert (refused.value.status, refused.value.retry_after) == (503, 2)


async def test_without_a_database_a_doubted_token_waits(directory, monkeypatch):
    issued = await a_token()
    caller, _ = await directory.find(issued.clear)
    no_database(monkeypatch)
    directory.doubt(caller.customer_id)
    for is_cut_off in (False, True):
        directory.is_cut_off = is_cut_off
        with pytest.raises(UnavailableError):
            await directory.find(issued.clear)


async def test_a_period_that_ends_without_a_database_goes_on(directory, clock, monkeypatch):
    await a_token()
    await change(UsageMonthly, period_end=real_now() + timedelta(minutes=5))
    issued = await another_token()
    _, account = await directory.find(issued.clear)
    no_database(monkeypatch)
    clock.seconds += 10 * MINUTE
    assert directory.known(issued.clear.encode()) is None
    assert (await directory.find(issued.clear))[1] is account


async def another_token():
    """Issue one more token for the one box."""
    async with session_scope() as session:
        box = (await session.exec(select(Box))).one()
        return await metering.issue_token(session, customer_id=box.customer_id, box_id=box.id)


@pytest.mark.parametrize(
    ("kind", "change_of_box", "is_cut"),
    [
        (TokenKind.API, {"api_access": False}, True),
        (TokenKind.API, {"status": BoxStatus.SUSPENDED}, True),
        (TokenKind.API, {"language": "de"}, False),
        (TokenKind.BOX, {"api_access": False}, False),
    ],
)
async def test_a_change_of_the_box_reaches_its_callers(directory, kind, change_of_box, is_cut):
    issued = await a_token(kind=kind, box={"api_access": True})
    cut = await watched(directory, issued)
    await change(Box, **change_of_box)
    await directory.refresh()
    assert bool(cut) is is_cut
    caller, _ = await directory.find(issued.clear)
    assert not caller.ending.has_come
    assert caller.may_call is not is_cut
    assert caller.language == change_of_box.get("language", "en")


async def test_a_customer_who_is_served_no_more_is_cut_and_may_come_back(directory):
    issued = await a_token()
    _, account = await directory.find(issued.clear)
    for _ in range(2):
        cut = await watched(directory, issued)
        await change(Subscription, status=SubscriptionStatus.SUSPENDED)
        await directory.refresh()
        assert (cut, account.is_entitled) == (["cut"], False)
        await change(Subscription, status=SubscriptionStatus.ACTIVE)
        await directory.refresh()
        assert account.is_entitled


async def test_an_account_changes_in_place(directory):
    issued = await a_token()
    _, account = await directory.find(issued.clear)
    await change(UsageMonthly, tokens_used=70, tokens_limit=900)
    await directory.refresh()
    assert (account.used, account.limit) == (70, 900)
    await change(UsageMonthly, tokens_used=20)
    await directory.refresh()
    assert account.used == 20, "the database holds the truth"


async def test_a_flush_during_a_look_is_not_forgotten(directory, clock, monkeypatch):
    issued = await a_token()
    _, account = await directory.find(issued.clear)
    look = looking.at_tokens

    async def slow(*known):
        found = await look(*known)
        clock.seconds += 1
        directory.note_total(account.customer_id, account.period_start, 500)
        return found

    monkeypatch.setattr(looking, "at_tokens", slow)
    clock.seconds += 1
    await directory.refresh()
    assert account.used == 500


async def test_who_has_not_asked_for_long_is_forgotten_unless_a_stream_runs(directory, clock):
    quiet, streaming = await a_token(), await a_token()
    await watched(directory, streaming)
    await directory.find(quiet.clear)
    for _ in range(4):
        clock.seconds += 5 * MINUTE
        await directory.refresh()
    assert directory.known(quiet.clear.encode()) is None
    assert directory.known(streaming.clear.encode()) is not None
    assert len(directory._standings) == 1  # noqa: SLF001


async def test_whose_stream_runs_is_not_forgotten_for_newer_ones_and_still_cut(
    directory, clock, monkeypatch
):
    monkeypatch.setattr(credentials, "MOST_ENTRIES", 2)
    streaming, *others = [await a_token() for _ in range(4)]
    cut = await watched(directory, streaming)
    for one in others:
        clock.seconds += 1
        await directory.find(one.clear)
    assert [directory.known(one.clear.encode()) is not None for one in others] == [0, 0, 1]
    await revoke(streaming)
    await directory.refresh()
    assert cut == ["cut"]


async def test_more_tokens_than_one_look_holds_are_all_refreshed(directory, monkeypatch):
    monkeypatch.setattr(credentials, "TOKENS_IN_A_LOOK", 2)
    issued = [await a_token() for _ in range(5)]
    endings = [await watched(directory, one) for one in issued]
    for one in issued:
        await revoke(one)
    await directory.refresh()
    assert endings == [["cut"]] * 5


async def test_one_customers_trouble_is_not_everybodys(directory, monkeypatch, caplog):
    async def odd(*_args, **_named):
        raise PeriodError("The period ends before it starts.")

    monkeypatch.setattr(looking.metering, "open_period", odd)
    issued, strange = await a_token(), await a_token(has_period=False)
    _, account = await directory.find(strange.clear)
    assert account.period_start is None
    assert "No period." in caplog.text
    await directory.find(issued.clear)
    await directory.refresh()


async def test_uses_are_noted_once_a_minute(directory, clock):
    issued = await a_token()
    await directory.find(issued.clear)
    assert list(directory.take_uses()) == [issued.token_id]
    clock.seconds += 30
    await directory.find(issued.clear)
    assert directory.take_uses() == {}
    clock.seconds += 30
    (noted,) = directory.take_uses().values()
    assert timedelta(seconds=25) < directory.now() - noted < timedelta(seconds=35)
    clock.seconds += 90
    assert directory.take_uses() == {}, "it was not used since"


async def test_a_use_is_written_and_never_put_back(database):
    assert database
    issued, moment = await a_token(), real_now()
    for noted in (moment, moment - timedelta(hours=1)):
        async with session_scope() as session:
            await metering.note_uses(session, {issued.token_id: noted})
    async with session_scope() as session:
        row = await session.get_one(ProxyToken, issued.token_id)
    assert row.last_used_at == moment


async def test_nothing_prints_a_token(directory):
    issued = await a_token()
    holder = await directory.find(issued.clear)
    entries = directory._entries  # noqa: SLF001
    for shown in (directory, holder, list(entries.values())):
        assert issued.clear not in repr(shown)


async def test_a_caller_is_what_its_rows_say(directory):
    issued = await a_token(box={"language": "pt", "limit_behaviour": "error", "api_access": True})
    async with session_scope() as session:
        box = (await session.exec(select(Box).where(col(Box.language) == "pt"))).one()
    caller, account = await directory.find(issued.clear)
    assert caller == replace(
        caller, box_id=box.id, language="pt", is_polite=False, has_api_access=True
    )
    assert account.period_start is not None
    assert tokens.looks_like_token(issued.clear)
