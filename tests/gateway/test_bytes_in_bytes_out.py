"""Bytes in, bytes out: nothing of a request or an answer is written anew but the model's name."""

import json
import re

import httpx
import pytest

from openclaw_web.gateway.errors import Form
from openclaw_web.gateway.wire import read_request
from tests.contracts.openclaw_requests import (
    ANTHROPIC_HEADERS,
    OPENAI_HEADERS,
    anthropic_body,
    openai_body,
)
from tests.gateway.conftest import UPSTREAM_KEY
from tests.gateway.upstream_server import DONE, USAGE_CHUNK, chunk, model_for, raw, stream, whole

ASKED = b'"stream_options": {"include_usage" :true}'
USAGE_ASKED = b'"stream_options":{"include_usage":true}'


def rewritten(body):
    return read_request(body, Form.OPENAI, model_for).body


def nameless(body, name):
    """Return the body with a mark in the place of a model's name."""
    return re.sub(rb'"model"\s*:\s*"%b"' % name, b"MODEL", body)


async def sent(holder, upstream, body, path="/chat/completions", headers=None):
    """Send bytes and return the bytes that reached the provider."""
    response = await holder.client.post(path, content=body, headers=headers)
    assert response.status_code == 200, response.text
    return upstream.seen[-1].body


def as_said_upstream(body, asked, model=b"kimi-for-coding"):
    """Return the body with another model's name in the place of the first one, and nothing else."""
    assert body.count(asked) == 1
    return body.replace(asked, b'"' + model + b'"')


PLAIN_BODIES = {
    "compact": b'{"model":"k2p5","messages":[]}',
    "spaced": b' {  "model" :\t"k2p5" ,\n\n  "messages" : [ ]\r\n} ',
    "key order": b'{"zzz":1,"messages":[],"model":"k2p5","aaa":2}',
    "numbers": b'{"model":"k2p5","messages":[],"a":1.0,"b":1e2,"c":-0,"d":0.10,"e":1E+400}',
    "long numbers": b'{"model":"k2p5","messages":[],"seed":123456789012345678901234567890}',
    "escapes": rb'{"model":"k2p5","messages":[{"content":"\u00e4\/\ud83e\udd9e\n\u0000"}]}',
    "no escapes": '{"model":"k2p5","messages":[{"content":"ä/🦞"}]}'.encode(),
    "half a letter": rb'{"model":"k2p5","messages":[{"content":"\ud83e alone"}]}',
    "keys twice": b'{"model":"k2p5","messages":[],"top_p":1,"top_p":0.5,"user":"a","user":"b"}',
    "an empty key": b'{"model":"k2p5","":null,"messages":[]}',
    "whole": b'{"model":"k2p5","stream":false,"messages":[]}',
    "null": b'{"model":"k2p5","stream":null,"stream_options":null,"messages":[]}',
    "stream": b'{"model":"k2p5",' + ASKED + b',"stream":true,"messages":[]}',
}
BODIES = PLAIN_BODIES | {
    "model in a tool": b'{"model":"k2p5", "tools": [{"x": {"model":  "k3"}}], "messages": []}',
    "model in a tool before": b'{"tools": [{"x": {"model":  "k3"}} ], "model" : "k2p5", "n" :1}',
    "model in a text": rb'{"messages": [{"content": "{\"model\": \"k3\"}"}], "model" : "k2p5"}',
    "model as a word": b'{"messages": ["model"], "model" : "k2p5", "a" :1 }',
}


TO_SEND = [body for name, body in BODIES.items() if name != "half a letter"]  # UTF-8 has no such


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_only_the_models_name_is_replaced(body):
    assert nameless(rewritten(body), b"kimi-for-coding") == nameless(body, b"k2p5")


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_nothing_is_replaced_when_the_model_has_its_own_name(body):
    named = body.replace(b'"k2p5"', b'"kimi-for-coding"')
    assert rewritten(named) == named


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "k2p5",  "messages" :[ ],"stream" : true}',
        b'{ "stream":true, "n" : 1.0, "model": "k2p5",\n"messages":[] }',
    ],
)
def test_a_stream_is_asked_for_its_usage_and_nothing_else_changes(body):
    arrived = rewritten(body)
    assert arrived.count(USAGE_ASKED) == 1
    around = arrived.split(USAGE_ASKED)
    without = around[0].rstrip(b" ,") + b"," + around[1].lstrip(b" ,")
    as_before = nameless(without, b"kimi-for-coding").replace(b"{,", b"{")
    assert squeezed(as_before) == squeezed(nameless(body, b"k2p5"))
    assert json.loads(arrived) == json.loads(body) | {
        "model": "kimi-for-coding",
        "stream_options": {"include_usage": True},
    }


def squeezed(body):
    return re.sub(rb"\s", b"", body)


def test_other_stream_options_stay():
    body = b'{"model":"k2p5","stream":true,"stream_options":{"x":1.0,"include_usage":false}}'
    assert json.loads(rewritten(body))["stream_options"] == {"x": 1.0, "include_usage": True}


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"k3","model":"k2p5","messages":[]}',
        b'{"model":"k2p5","messages":[],"model":"k2p5"}',
        rb'{"model":"k2p5","mod\u0065l":"k2p5","messages":[]}',
        rb'{"\u006dodel":"k3","model":"k2p5","messages":[]}',
    ],
    ids=["twice", "the same twice", "once in other letters", "first in other letters"],
)
def test_no_two_readers_can_take_different_models(body):
    pairs = json.loads(rewritten(body), object_pairs_hook=list)
    named = {value for key, value in pairs if key == "model"}
    assert named <= {"kimi-for-coding", "k2p5"}  # both are what was asked for, and let through
    assert "kimi-for-coding" in named


async def test_what_was_rewritten_reaches_the_provider_byte_for_byte(make_holder, upstream):
    holder = await make_holder(is_unthrottled=True)
    for body in TO_SEND:
        if b'"stream":true' in body:
            upstream.will(stream(chunk("a"), USAGE_CHUNK, DONE))
        assert await sent(holder, upstream, body) == rewritten(body)


async def test_openclaws_own_requests_keep_every_byte(make_holder, upstream):
    holder = await make_holder(period={"tokens_limit": 10**9})
    upstream.will(stream(chunk("a"), USAGE_CHUNK, DONE))
    body = openai_body()
    arrived = await sent(holder, upstream, body, headers=OPENAI_HEADERS)
    assert arrived == as_said_upstream(body, b'"kimi-coding/k2p5"')
    seen = upstream.seen[-1].headers
    assert seen["user-agent"] == OPENAI_HEADERS["user-agent"]
    upstream.will(stream(b"event: message_stop\ndata: {}\n\n"))
    body = anthropic_body()
    arrived = await sent(holder, upstream, body, "/messages", ANTHROPIC_HEADERS)
    assert arrived == as_said_upstream(body, b'"k2p5"')
    assert upstream.seen[-1].headers["anthropic-version"] == "2023-06-01"


ANSWERS = [
    b'{ "id" :"x","n": 1.0, "n":2,\r\n "choices":[{"text":"\xc3\xa4 \\u00e4"}] }\n',
    b"",
    b"not JSON at all \xff\xfe",
    b'{"usage": "much"}',
]


async def test_a_whole_answer_comes_down_as_it_is(holder, upstream):
    for body in ANSWERS:
        upstream.will(whole(body))
        assert (await holder.chat()).content == body


STREAM = (
    b': comment\n\ndata:{"a" :1.0}\n\nid: 7\ndata: one\ndata: two\n\n'
    b"event: x\r\ndata: \xff\xfe\r\n\r\nretry: 3\n\ndata: [DONE]\n\ndata: after the end\n\nrest"
)


async def test_a_stream_comes_down_as_it_is(make_holder, upstream):
    holder = await make_holder(is_unthrottled=True)
    for size in (1, 3, 1000):
        for options in ({"stream_options": {"include_usage": True}}, {}):
            upstream.will(stream(*(STREAM[at : at + size] for at in range(0, len(STREAM), size))))
            assert (await holder.chat(stream=True, **options)).content == STREAM


async def test_a_client_error_comes_down_as_it_is(holder, upstream):
    body = b'{ "error" : {"message": "too short", "type":"invalid_request_error"} }'
    upstream.will(whole(body, status=400))
    assert (await holder.message(stream=True)).content == body


HOP_BY_HOP = {
    "connection": "keep-alive, x-private",
    "x-private": "1",
    "keep-alive": "timeout=5",
    "te": "trailers",
    "trailer": "expires",
    "upgrade": "h2c",
    "proxy-authorization": "Basic c2VjcmV0",
    "expect": "",
}
OURS_ONLY = {
    "cookie": "session=1",
    "authorization-hint": "x",
    "openai-organization": "org-1",
    "openai-project": "p-1",
    "x-stainless-lang": "js",
    "traceparent": "00-1-1-01",
    "referer": "https://cloud.example/home",
    "accept-language": "de",
    "x-openclaw-generation": "3",
    "accept-encoding": "gzip, br, zstd",
}


@pytest.mark.parametrize(
    ("path", "key"), [("/chat/completions", "authorization"), ("/messages", "x-api-key")]
)
async def test_only_three_of_the_clients_headers_go_up(holder, upstream, path, key):
    wanted = {
        "user-agent": "agent/1.0 (x)",
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "one-2025-01-01,two-2025-02-02",
    }
    await sent(holder, upstream, PLAIN_BODIES["compact"], path, HOP_BY_HOP | OURS_ONLY | wanted)
    seen = dict(upstream.seen[-1].headers)
    assert UPSTREAM_KEY in seen.pop(key)
    assert {name: seen.pop(name) for name in wanted} == wanted
    assert seen.pop("accept-encoding") == "identity"
    assert set(seen) == {"host", "content-type", "content-length"}


async def test_a_header_that_comes_twice_goes_up_twice(holder, upstream):
    """Anthropic takes its betas in one header or in several."""
    names = [("anthropic-beta", "one-2025-01-01"), ("anthropic-beta", "two-2025-02-02")]
    headers = [*holder.client.headers.items(), *names]
    async with httpx.AsyncClient(base_url=holder.client.base_url, trust_env=False) as client:
        await client.post("/messages", content=PLAIN_BODIES["compact"], headers=headers)
    assert upstream.seen[-1].headers["anthropic-beta"] == "one-2025-01-01, two-2025-02-02"


async def test_of_the_providers_headers_only_the_bodys_own_come_down(holder, upstream):
    theirs = (
        "Set-Cookie: a=b\r\nServer: theirs\r\nX-Private: 1\r\nConnection: keep-alive, X-Private\r\n"
        "Keep-Alive: timeout=9\r\nMsh-Org: org-1\r\nX-RateLimit-Limit: 5\r\n"
    )
    upstream.will(whole(b"{}", headers=theirs))
    response = await holder.chat()
    assert response.headers["content-type"] == "application/json"
    unwanted = {"set-cookie", "x-private", "keep-alive", "msh-org", "x-ratelimit-limit"}
    assert not unwanted & set(response.headers)
    assert response.headers["x-request-id"] == response.headers["request-id"]


async def test_a_body_that_is_packed_anyway_comes_down_packed(holder, upstream):
    packed = b"\x1f\x8bnot really packed"
    upstream.will(
        raw(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(packed), packed)
        )
    )
    request = holder.client.build_request(
        "POST", "/chat/completions", json={"model": "k2p5", "messages": []}
    )
    response = await holder.client.send(request, stream=True)
    assert response.headers["content-encoding"] == "gzip"
    assert b"".join([part async for part in response.aiter_raw()]) == packed
    await response.aclose()
