"""Who is asked next, and who is not because it could be billed twice: a row, a test."""

import asyncio
import contextlib
import logging
from dataclasses import dataclass, replace
from typing import Any

import pytest

from openclaw_web.gateway.breaker import State
from openclaw_web.gateway.errors import Form
from openclaw_web.gateway.providers import Change, NoRouteError, Providers
from openclaw_web.gateway.statuses import NOTHING_RAN
from openclaw_web.gateway.upstreams import UpstreamConfig
from openclaw_web.gateway.wire import read_request
from openclaw_web.integrations.upstream import Limits, TimeOuts, UpstreamError
from openclaw_web.local import ports
from tests.gateway.upstream_server import chunk, model_for, raw, serving, stream, whole

BODY = b'{"model": "k2p5", "messages": [{"role": "user", "content": "the canary"}]}'
MODELS = {"k2p5": "kimi-for-coding", "k3": "k3"}
KEYS = ("sk-first", "sk-second")


class Clock:
    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


@dataclass
class Asker:
    route: Any = None
    refused: tuple[Any, ...] = ()
    has_left: bool = False
    query: bytes = b""


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def first():
    async with serving() as server:
        yield server


@pytest.fixture
async def second():
    async with serving() as server:
        yield server


def config_of(server, name, **fields):
    given: dict[str, Any] = {
        "openai_url": server.url,
        "anthropic_url": server.url,
        "keys": KEYS[:1],
        "models": MODELS,
    }
    return UpstreamConfig(name=name, **(given | fields))


@pytest.fixture
async def make_providers(clock):
    async with contextlib.AsyncExitStack() as stack:

        def make(*configs, **settings):
            made = Providers(configs, clock=clock, **settings)
            stack.push_async_callback(made.close)
            return made

        yield make


@pytest.fixture
def two_keys(make_providers, first):
    return make_providers(config_of(first, "one", keys=KEYS))


@pytest.fixture
def both(make_providers, first, second):
    return make_providers(
        config_of(second, "stand-in", keys=("sk-other",), priority=2), config_of(first, "main")
    )


async def ask(providers, body=BODY, form=Form.OPENAI, customer=0, asker=None):
    asker = asker or Asker()
    request = read_request(body, form, model_for)
    answer = await providers.ask(request, (), customer, asker)
    await answer.read()
    return asker.route.upstream, answer.status


def keys_seen(server):
    return [seen.headers["authorization"].removeprefix("Bearer ") for seen in server.seen]


@pytest.mark.parametrize("status", sorted(NOTHING_RAN))
async def test_a_refusal_is_not_billed_so_the_next_key_is_asked(two_keys, first, status):
    first.will(whole({"error": {}}, status=status), whole(b"{}"))
    assert await ask(two_keys) == ("one", 200)
    assert keys_seen(first) == list(KEYS)


async def test_nobody_else_is_asked_for_a_client_that_has_left(two_keys, first):
    first.will(whole({"error": {}}, status=503))
    assert await ask(two_keys, asker=Asker(has_left=True)) == ("one", 503)
    assert len(first.seen) == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_after_the_keys_the_next_provider_is_asked(both, first, second, status):
    first.will(whole({"error": {}}, status=status))
    assert await ask(both) == ("stand-in", 200)
    assert (len(first.seen), keys_seen(second)) == (1, ["sk-other"])


@pytest.mark.parametrize("status", [400, 404, 405, 413, 415, 422, 408, 418, 502, 504, 520, 524])
async def test_what_concerns_the_request_or_may_have_been_billed_is_the_answer(
    two_keys, first, status
):
    first.will(whole({"error": {}}, status=status))
    assert await ask(two_keys) == ("one", status)
    assert len(first.seen) == 1


async def test_a_provider_that_cannot_be_reached_was_not_asked(make_providers, second):
    nobody = UpstreamConfig(
        name="gone", openai_url=f"http://127.0.0.1:{ports.free_port()}", keys=KEYS
    )
    providers = make_providers(nobody, config_of(second, "stand-in", priority=2))
    assert await ask(providers) == ("stand-in", 200)
    (gone, _) = providers.snapshot()
    assert gone.failures == {"unreachable": 1}, "its second key leads to the same place"


async def test_a_full_provider_was_not_asked(make_providers, first, second):
    limits = Limits(connections=1, waiting=0)
    providers = make_providers(
        config_of(first, "main", limits=limits), config_of(second, "stand-in", priority=2)
    )
    go_on = asyncio.Event()

    async def slow(seen, writer):
        await go_on.wait()
        await whole(b"{}")(seen, writer)

    first.will(slow)
    running = asyncio.create_task(ask(providers))
    await first.until_seen(1)
    assert await ask(providers) == ("stand-in", 200)
    go_on.set()
    assert await running == ("main", 200)
    assert providers.snapshot()[0].state is State.CLOSED, "we were too many; it is well"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (raw(b""), "closed"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-"), "closed"),
        (raw(b"SSH-2.0-OpenSSH_9.2\r\n"), "malformed"),
    ],
    ids=["no answer", "half a head", "no HTTP"],
)
async def test_whoever_took_the_request_and_failed_is_the_last_one(
    both, first, second, script, code
):
    first.will(script)
    with pytest.raises(UpstreamError) as failed:
        await ask(both)
    assert (failed.value.code, failed.value.was_sent) == (code, True)
    assert second.seen == []


async def test_a_time_out_is_not_tried_again(make_providers, first, second, clock):
    limits = TimeOuts(first_byte=60)
    providers = make_providers(
        config_of(first, "main", time_outs=limits), config_of(second, "stand-in", priority=2)
    )

    async def silent(_seen, _writer):
        await asyncio.Event().wait()

    first.will(silent)
    asking = asyncio.create_task(ask(providers))
    await first.until_seen(1)
    clock.now += 61
    for route in providers.choose(Form.OPENAI, "k2p5"):
        route.pool.sweep()
    with pytest.raises(UpstreamError) as failed:
        await asking
    assert (failed.value.code, second.seen) == ("timeout", [])


async def test_an_answer_that_breaks_off_is_not_tried_again(both, first, second):
    first.will(stream(chunk("a"), cut=True))
    with pytest.raises(UpstreamError):
        await ask(both)
    assert second.seen == []
    assert both.snapshot()[0].failures == {"closed": 1}


async def test_when_all_refuse_the_client_hears_that_it_should_wait(both, first, second):
    first.will(whole({"error": {}}, status=429))
    second.will(whole({"error": {}}, status=401))
    assert await ask(both) == ("main", 429)
    first.will(whole({"error": {}}, status=503))
    second.will(whole({"error": {}}, status=429))
    assert await ask(both) == ("stand-in", 429)


async def test_a_key_that_asked_too_much_rests_for_as_long_as_it_was_told(two_keys, first, clock):
    first.will(whole({"error": {}}, status=429, headers="Retry-After: 30\r\n"))
    await ask(two_keys)
    await ask(two_keys)
    assert keys_seen(first) == [KEYS[0], KEYS[1], KEYS[1]]
    assert [key.is_resting for key in two_keys.snapshot()[0].keys] == [True, False]
    clock.now += 31
    await ask(two_keys)
    assert keys_seen(first)[-1] == KEYS[0]


async def test_a_customer_keeps_its_key_and_customers_share_the_keys(two_keys, first):
    for customer in (0, 1, 0, 1):
        await ask(two_keys, customer=customer)
    assert keys_seen(first) == [KEYS[0], KEYS[1]] * 2


async def test_a_provider_that_fails_is_left_alone_and_then_tried_once(
    make_providers, first, second, clock, caplog
):
    changes = []
    providers = make_providers(
        config_of(first, "main"),
        config_of(second, "stand-in", priority=2),
        on_change=changes.append,
    )
    first.will(*[whole({"error": {}}, status=503)] * 5)
    with caplog.at_level(logging.WARNING):
        for _ in range(7):
            assert await ask(providers) == ("stand-in", 200)
    assert len(first.seen) == 5
    assert [record.getMessage() for record in caplog.records] == [
        "main is left alone for a while: http_503."
    ]
    clock.now += 5
    assert await ask(providers) == ("main", 200)
    assert changes == [
        Change("main", is_open=True, reason="http_503"),
        Change("main", is_open=False, reason=""),
    ]
    assert providers.snapshot()[0].state is State.CLOSED


async def test_a_dead_key_is_left_alone_and_the_others_are_not(two_keys, first):
    first.will(*[whole({"error": {}}, status=401), whole(b"{}")] * 5)
    for _ in range(6):
        await ask(two_keys)
    assert keys_seen(first) == [*KEYS * 5, KEYS[1]]
    (status,) = two_keys.snapshot()
    assert (status.state, [key.state for key in status.keys]) == (
        State.CLOSED,
        [State.OPEN, State.CLOSED],
    )


@pytest.mark.parametrize("status", [400, 403, 429, 500, 504])
async def test_no_customers_requests_can_shut_the_others_out(make_providers, first, status):
    providers = make_providers(config_of(first, "main"))
    first.will(*[whole({"error": {}}, status=status)] * 10)
    for _ in range(10):
        assert await ask(providers) == ("main", status)
    assert await ask(providers) == ("main", 200)


async def test_when_everybody_is_left_alone_the_answer_is_quick_and_costs_nothing(
    make_providers, first
):
    providers = make_providers(config_of(first, "main"))
    first.will(*[whole({"error": {}}, status=503)] * 5)
    for _ in range(5):
        await ask(providers)
    with pytest.raises(UpstreamError) as failed:
        await ask(providers)
    assert (failed.value.code, failed.value.was_sent, len(first.seen)) == ("resting", False, 5)


async def test_each_provider_gets_its_own_key_path_and_name_of_the_model(
    make_providers, first, second
):
    there = {"k2p5": "kimi-k2.7-code"}
    stand_in = config_of(
        second,
        "stand-in",
        anthropic_url=f"{second.url}/anthropic/v1",
        anthropic_auth="bearer",
        keys=("sk-other",),
        priority=2,
        models=there,
    )
    providers = make_providers(config_of(first, "main"), stand_in)
    first.will(*[whole({"error": {}}, status=503)] * 2)
    await ask(providers)
    await ask(providers, form=Form.ANTHROPIC)
    assert [seen.json["model"] for seen in first.seen] == ["kimi-for-coding"] * 2
    assert [seen.json["model"] for seen in second.seen] == ["kimi-k2.7-code"] * 2
    assert [seen.path for seen in first.seen] == [
        "/coding/v1/chat/completions",
        "/coding/v1/messages",
    ]
    assert second.seen[1].path == "/coding/v1/anthropic/v1/messages"
    assert first.seen[1].headers["x-api-key"] == KEYS[0]
    assert second.seen[1].headers["authorization"] == "Bearer sk-other"
    assert "x-api-key" not in second.seen[1].headers
    assert second.seen[0].json["messages"] == first.seen[0].json["messages"]


async def test_a_provider_without_the_form_or_the_model_is_passed_by(make_providers, first, second):
    plain = config_of(first, "plain", anthropic_url="", passes_other_models=False, models=MODELS)
    providers = make_providers(plain, config_of(second, "all", priority=2))
    assert await ask(providers, form=Form.ANTHROPIC) == ("all", 200)
    assert await ask(providers, BODY.replace(b"k2p5", b"other")) == ("all", 200)
    alone = make_providers(plain)
    for form, body in ((Form.ANTHROPIC, BODY), (Form.OPENAI, BODY.replace(b"k2p5", b"other"))):
        with pytest.raises(NoRouteError):
            await ask(alone, body, form)


async def test_a_provider_that_wants_no_key_gets_none(make_providers, first):
    providers = make_providers(config_of(first, "own", keys=()))
    await ask(providers)
    await ask(providers, form=Form.ANTHROPIC)
    assert not {"authorization", "x-api-key"} & set(first.seen[0].headers | first.seen[1].headers)


async def test_the_snapshot_counts_and_names_no_key(two_keys, first):
    first.will(whole({"error": {}}, status=429), whole(b"{}"), raw(b""))
    await ask(two_keys, customer=0)
    with pytest.raises(UpstreamError):
        await ask(two_keys, customer=1)
    (status,) = two_keys.snapshot()
    assert (status.name, status.requests) == ("one", 3)
    assert status.failures == {"http_429": 1, "closed": 1}
    assert (status.open_connections, status.idle_connections, status.waiting_requests) == (0, 0, 0)
    assert [(key.number, key.requests) for key in status.keys] == [(1, 1), (2, 2)]
    shown = repr(status) + repr(two_keys.choose(Form.OPENAI, "k2p5"))
    assert "sk-" not in shown
    assert "sk-" not in repr(replace(config_of(first, "x"), keys=KEYS))
