"""From where a token may be used, whose word on that counts, and when guessing has to wait."""

from dataclasses import replace
from uuid import uuid4

import pytest

from openclaw_web.core.settings import PRODUCTION, settings
from openclaw_web.gateway import origin
from openclaw_web.gateway.callers import Caller, Ending
from openclaw_web.gateway.errors import NotFromHereError, SlowDownError, UnknownTokenError
from openclaw_web.gateway.heads import Head
from openclaw_web.gateway.origin import Failures, address_of, check_origin, is_inside
from openclaw_web.metering.models import TokenKind

PUBLIC_PORT, INTERNAL_PORT = 3000, 3001
INGRESS = (b"x-forwarded-for", b"203.0.113.9")


@pytest.fixture
def deployed(monkeypatch):
    """Return a function that changes the settings that this is about."""

    def deploy(**values):
        chosen = replace(settings(), **values)
        monkeypatch.setattr(origin, "settings", lambda: chosen)

    deploy(proxy_internal_port=INTERNAL_PORT, environment=PRODUCTION)
    return deploy


def scope(peer="10.1.2.3", *, port=PUBLIC_PORT, headers=()):
    client = None if peer is None else (peer, 50_000)
    return {"client": client, "server": ("10.0.0.1", port), "headers": list(headers)}


def head(of):
    return Head(of, "/v1/messages")


def caller(kind=TokenKind.BOX, **fields):
    known = Caller(
        token_id=uuid4(),
        customer_id=uuid4(),
        box_id=uuid4(),
        kind=kind,
        is_unthrottled=False,
        is_polite=True,
        has_api_access=True,
    )
    return replace(known, **fields)


@pytest.mark.parametrize("peer", ["10.1.2.3", "172.17.0.1", "9.9.9.9", "127.0.0.1", None, "x"])
def test_only_the_internal_port_lets_a_boxs_token_in(deployed, peer):
    assert deployed
    check_origin(caller(), is_inside=head(scope(peer, port=INTERNAL_PORT)).is_inside)
    for outside in (scope(peer), scope(peer, port=0), scope(peer) | {"server": None}):
        with pytest.raises(NotFromHereError):
            check_origin(caller(), is_inside=head(outside).is_inside)


def test_an_ingress_before_the_internal_port_opens_nothing(deployed):
    assert deployed
    assert not is_inside(scope(port=INTERNAL_PORT), is_forwarded=True)


def test_without_an_internal_port_no_port_is_inside(deployed):
    deployed(proxy_internal_port=0, environment=PRODUCTION)
    assert not is_inside(scope(port=0), is_forwarded=False)


@pytest.mark.parametrize(
    ("peer", "expected"),
    [("127.0.0.1", True), ("127.4.5.6", True), ("::1", True), ("10.1.2.3", False), (None, False)],
)
def test_on_a_laptop_loopback_is_inside_unless_it_forwards(deployed, peer, expected):
    deployed(proxy_internal_port=0, environment="local")
    assert is_inside(scope(peer), is_forwarded=False) is expected
    assert not is_inside(scope(peer), is_forwarded=True)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, ""),
        ({"has_api_access": False}, "API access is not turned on for this box."),
        ({"is_asleep": True}, "The assistant of this key is paused, and its keys with it."),
    ],
)
def test_a_programs_key_works_from_anywhere_when_the_box_allows_it(deployed, fields, sentence):
    assert deployed
    key = caller(TokenKind.API, **fields)
    for where in (scope("9.9.9.9", headers=[INGRESS]), scope(port=INTERNAL_PORT)):
        is_inside = head(where).is_inside
        if sentence:
            with pytest.raises(NotFromHereError, match=sentence):
                check_origin(key, is_inside=is_inside)
        else:
            check_origin(key, is_inside=is_inside)


@pytest.mark.parametrize(
    ("headers", "token", "is_forwarded"),
    [
        ([(b"authorization", b"Bearer  abc ")], b"abc", False),
        ([(b"authorization", b"bearer abc"), INGRESS], b"abc", True),
        ([(b"authorization", b"Basic eA=="), (b"x-api-key", b"abc")], b"abc", False),
        ([(b"x-api-key", b"abc"), (b"x-real-ip", b"1.2.3.4")], b"abc", True),
        ([(b"x-api-key", b"abc"), (b"forwarded", b"for=1.2.3.4")], b"abc", True),
    ],
)
def test_a_token_comes_in_either_header(headers, token, is_forwarded):
    shown = head(scope(headers=headers))
    assert (shown.shown_token(), shown.is_forwarded) == (token, is_forwarded)


@pytest.mark.parametrize("headers", [[], [(b"authorization", b"Basic eA==")], [INGRESS]])
def test_without_a_token_nobody_is_known(headers):
    with pytest.raises(UnknownTokenError):
        head(scope(headers=headers)).shown_token()


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "counted"),
    [
        ("", "9.9.9.9", b"1.1.1.1", "9.9.9.9"),
        ("", "127.0.0.1", b"1.1.1.1", "127.0.0.1"),
        ("*", "9.9.9.9", b"1.1.1.1", "9.9.9.9"),
        ("10.0.0.0/8", "10.1.1.1", b"1.1.1.1", "1.1.1.1"),
        ("10.0.0.0/8", "9.9.9.9", b"1.1.1.1", "9.9.9.9"),
        ("10.0.0.0/8", "10.1.1.1", b"6.6.6.6, 1.1.1.1", "1.1.1.1"),
        ("10.0.0.0/8, 1.1.1.1", "10.1.1.1", b"6.6.6.6, 1.1.1.1, 10.2.2.2", "6.6.6.6"),
        ("10.0.0.0/8", "10.1.1.1", b"10.2.2.2", "10.1.1.1"),
        ("10.0.0.0/8", "10.1.1.1", b"nonsense", "nonsense"),
        ("10.0.0.0/8", "10.1.1.1", None, "10.1.1.1"),
        ("", "2001:db8:1:2:3:4:5:6", None, "2001:db8:1:2::/64"),
        ("", "2001:db8:1:2:ffff::", None, "2001:db8:1:2::/64"),
        ("", "::ffff:9.9.9.9", None, "9.9.9.9"),
        ("", None, None, ""),
    ],
)
def test_a_sender_is_whom_those_we_trust_have_seen(deployed, trusted, peer, forwarded, counted):
    deployed(trusted_proxies=trusted)
    headers = [(b"x-forwarded-for", forwarded)] if forwarded is not None else []
    assert address_of(scope(peer, headers=headers)) == counted


def test_twenty_failures_a_minute_are_forgiven():
    seconds = [0.0]
    failures = Failures(lambda: seconds[0])
    for _ in range(20):
        failures.check("9.9.9.9")
        failures.note("9.9.9.9")
    with pytest.raises(SlowDownError) as refused:
        failures.check("9.9.9.9")
    assert (refused.value.status, refused.value.retry_after) == (429, 3)
    failures.check("9.9.9.8")
    seconds[0] += 3
    failures.check("9.9.9.9")
    failures.note("9.9.9.9")
    with pytest.raises(SlowDownError):
        failures.check("9.9.9.9")
    seconds[0] += 60
    failures.check("9.9.9.9")


def test_addresses_take_bounded_room(monkeypatch):
    monkeypatch.setattr(origin, "MOST_ADDRESSES", 3)
    failures = Failures(lambda: 0.0)
    for number in range(50):
        failures.note(f"10.0.0.{number}")
    assert list(vars(failures)["_buckets"]) == ["10.0.0.47", "10.0.0.48", "10.0.0.49"]


def test_an_ending_stops_what_watches_it_once_and_at_once_when_it_has_come():
    ending, stopped = Ending(), []

    def stop():
        stopped.append("stopped")

    def forgotten():
        stopped.append("forgotten")

    ending.watch(stop)
    ending.watch(forgotten)
    ending.forget(forgotten)
    ending.come()
    ending.come()
    assert stopped == ["stopped"]
    assert not ending.is_watched
    ending.watch(stop)
    assert stopped == ["stopped"] * 2
