"""What goes up and comes down is what was sent, and every token of it is counted once."""

import asyncio
import json

import pytest

from tests.gateway.conftest import UPSTREAM_KEY, WAYS
from tests.gateway.upstream_server import (
    ANTHROPIC_STREAM,
    DONE,
    USAGE,
    USAGE_CHUNK,
    chunk,
    completion,
    stream,
    whole,
)

ASKED = {"include_usage": True}


@pytest.fixture(params=WAYS)
def way(request):
    return request.param


async def test_a_whole_answer_passes_byte_for_byte_and_counts(holder, upstream, ledger):
    body = json.dumps(completion("ünïcode", usage=USAGE), indent=3).encode()
    upstream.will(whole(body))
    response = await holder.chat()
    assert (response.status_code, response.content) == (200, body)
    ((event, meta),) = await ledger(holder)
    assert (event.prompt_tokens, event.completion_tokens, event.total_tokens) == (100, 20, 120)
    assert (meta.cached_tokens, meta.reasoning_tokens) == (60, 4)
    assert (meta.outcome, meta.estimated, meta.streamed) == ("complete", False, False)
    assert (meta.provider_request_id, meta.status_code) == ("chatcmpl-1", 200)
    assert response.headers["x-request-id"] == event.request_id
    assert event.request_id.startswith("req_")


async def test_a_stream_passes_byte_for_byte_when_usage_was_asked_for(holder, upstream, ledger):
    parts = (chunk("he"), chunk("llo ")[:20], chunk("llo ")[20:] + USAGE_CHUNK, DONE)
    upstream.will(stream(*parts))
    response = await holder.chat(stream=True, stream_options=ASKED)
    assert response.content == b"".join(parts)
    assert response.headers["content-type"] == "text/event-stream"
    ((event, meta),) = await ledger(holder)
    assert event.total_tokens == 120
    assert (meta.outcome, meta.estimated, meta.streamed) == ("complete", False, True)
    assert meta.ttfb_ms is not None


async def test_the_usage_chunk_that_nobody_asked_for_is_left_out(holder, upstream, ledger):
    upstream.will(stream(chunk("a"), chunk("b") + USAGE_CHUNK[:9], USAGE_CHUNK[9:] + DONE))
    response = await holder.chat(stream=True)
    assert response.content == chunk("a") + chunk("b") + DONE
    assert upstream.seen[0].json["stream_options"] == {"include_usage": True}
    ((event, _),) = await ledger(holder)
    assert event.total_tokens == 120


async def test_usage_in_the_last_choice_counts(holder, upstream, ledger):
    choice = {"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}
    last = chunk(choices=[choice])
    upstream.will(stream(chunk("a"), last, DONE))
    response = await holder.chat(stream=True)
    assert response.content == chunk("a") + last + DONE
    ((event, meta),) = await ledger(holder)
    assert (event.total_tokens, meta.cached_tokens) == (120, 60)


async def test_the_anthropic_form_counts_all_three_kinds_of_input(holder, upstream, ledger):
    upstream.will(stream(*ANTHROPIC_STREAM))
    response = await holder.message(stream=True)
    assert response.content == b"".join(ANTHROPIC_STREAM)
    ((event, meta),) = await ledger(holder)
    assert (event.prompt_tokens, event.completion_tokens) == (100, 20)
    assert (meta.cached_tokens, meta.provider_request_id) == (60, "msg_1")
    assert meta.outcome == "complete"


async def test_a_whole_anthropic_answer_counts(holder, upstream, ledger):
    upstream.will(
        whole({"id": "msg_1", "content": [], "usage": {"input_tokens": 5, "output_tokens": 0}})
    )
    response = await holder.client.post(
        "/messages",
        headers={"x-api-key": holder.clear, "anthropic-version": "2023-06-01"},
        json={"model": "k2p5", "max_tokens": 9, "messages": []},
    )
    assert response.status_code == 200
    seen = upstream.seen[0]
    assert seen.path == "/coding/v1/messages"
    assert (seen.headers["x-api-key"], seen.headers["anthropic-version"]) == (
        UPSTREAM_KEY,
        "2023-06-01",
    )
    assert "authorization" not in seen.headers
    ((event, meta),) = await ledger(holder)
    assert (event.prompt_tokens, event.completion_tokens, meta.estimated) == (5, 0, False)


async def test_the_provider_sees_our_key_and_the_real_model_and_nothing_of_the_box(
    holder, upstream
):
    text = 'keep  "this" \\u00e4 as it is'
    messages = f'[{{"content":   {json.dumps(text)}}}]'
    body = f'{{"model": "kimi-coding/k2p5",  "messages": {messages}}}'
    await holder.client.post(
        "/chat/completions",
        content=body,
        headers={"accept-encoding": "gzip", "traceparent": "00-1", "cookie": "a=b"},
    )
    seen = upstream.seen[0]
    assert seen.json["model"] == "kimi-for-coding"
    assert messages.encode() in seen.body
    assert seen.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert seen.headers["accept-encoding"] == "identity"
    assert not {"traceparent", "cookie", "x-api-key"} & set(seen.headers)
    assert holder.clear not in str(seen)


async def test_what_asks_for_something_new_goes_up(holder, upstream):
    beta = {"anthropic-beta": "one", "openai-beta": "two"}
    body = {"model": "k2p5", "max_tokens": 9, "messages": []}
    for path in ("/messages?beta=true", "/messages?key=secret", "/messages"):
        await holder.client.post(path, headers=beta, json=body)
    assert [seen.path for seen in upstream.seen] == [
        f"/coding/v1/messages{query}" for query in ("?beta=true", "", "")
    ]
    assert all(beta.items() <= seen.headers.items() for seen in upstream.seen)


@pytest.mark.parametrize("model", ["kimi-for-coding", "kimi-coding/kimi-for-coding"])
async def test_a_model_of_the_plan_passes_under_its_name(holder, upstream, model):
    assert (await holder.chat(model=model)).status_code == 200
    assert upstream.seen[0].json["model"] == "kimi-for-coding"


async def test_answers_reach_the_client_while_the_provider_still_writes(holder, upstream):
    go_on = asyncio.Event()
    upstream.will(stream(chunk("first"), chunk("second"), DONE, before=go_on))
    body = {"model": "k2p5", "messages": [], "stream": True, "stream_options": ASKED}
    async with holder.client.stream("POST", "/chat/completions", json=body) as response:
        parts = response.aiter_raw()
        assert await anext(parts) == chunk("first")
        go_on.set()
        assert b"".join([part async for part in parts]) == chunk("second") + DONE


@pytest.mark.parametrize("way", ["waiting"])
async def test_connections_are_kept_and_a_dead_one_is_replaced_once(holder, upstream, ledger):
    for _ in range(3):
        assert (await holder.chat()).status_code == 200
    assert upstream.connections == 1
    upstream.hang_up()
    assert (await holder.chat()).status_code == 200
    assert upstream.connections == 2
    assert len(await ledger(holder)) == 4


async def test_a_large_body_passes(make_holder, upstream):
    holder = await make_holder(period={"tokens_limit": 10**9})
    content = "x" * 5_000_000
    response = await holder.chat(messages=[{"role": "user", "content": content}])
    assert response.status_code == 200
    assert len(upstream.seen[0].json["messages"][0]["content"]) == 5_000_000


async def test_the_models_of_the_tier_are_listed(holder):
    listed = (await holder.client.get("/models")).json()
    assert [model["id"] for model in listed["data"]] == ["k2p5", "kimi-for-coding"]


async def test_an_agent_can_ask_what_is_left(holder, upstream, proxy):
    upstream.will(whole(completion(usage=USAGE)))
    await holder.chat()
    key = (await holder.client.get("/key")).json()
    assert (key["used"], key["limit"] - key["left"]) == (120, 120)
    assert key["resets_at"].startswith("20")
    await proxy.flush()
    assert (await holder.client.get("/key")).json() == key
