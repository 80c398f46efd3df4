"""Who is refused: in the form of the API that was called, never in words of an unpaid bill."""

import asyncio
from datetime import timedelta

import httpx
import pytest

from openclaw_web.core.clock import real_now
from openclaw_web.core.database import session_scope
from openclaw_web.gateway import origin
from openclaw_web.metering import service as metering
from openclaw_web.metering.models import TokenKind
from tests.gateway.upstream_server import chunk, raw, stream, whole

INGRESS = {"x-forwarded-for": "203.0.113.9"}


@pytest.mark.parametrize("token", ["x", "nonsense", "ocp_" + "a" * 26 + "_" + "b" * 43])
async def test_an_unknown_token_is_refused(base_url, token):
    async with httpx.AsyncClient(base_url=base_url, trust_env=False) as client:
        headers = {"authorization": f"Bearer {token}"}
        response = await client.post("/chat/completions", json={"model": "k2p5"}, headers=headers)
    assert response.status_code == 401
    assert response.json()["error"]["type"] == "authentication_error"
    assert response.headers["x-request-id"].startswith("req_")


async def test_a_request_without_a_token_is_refused_in_the_form_of_its_api(base_url):
    async with httpx.AsyncClient(base_url=base_url, trust_env=False) as client:
        openai = await client.post("/chat/completions", json={})
        anthropic = await client.post("/messages", json={})
    assert set(openai.json()["error"]) == {"message", "type", "code"}
    assert anthropic.json()["type"] == "error"
    assert set(anthropic.json()["error"]) == {"type", "message"}


async def test_a_revoked_token_is_refused(holder):
    assert (await holder.client.get("/key")).status_code == 200
    async with session_scope() as session:
        await metering.revoke_token(session, holder.token_id)
    async with asyncio.timeout(30):
        while (await holder.client.get("/key")).status_code == 200:  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.01)
    assert (await holder.client.get("/key")).status_code == 401


async def test_the_stream_of_a_revoked_token_is_cut(holder, upstream, ledger):
    never = asyncio.Event()
    upstream.will(stream(chunk("a first word"), chunk("the rest"), before=never))
    body = {"model": "k2p5", "messages": [], "stream": True}
    async with holder.client.stream("POST", "/chat/completions", json=body) as response:
        parts = response.aiter_bytes()
        assert await anext(parts) == chunk("a first word")
        async with session_scope() as session:
            await metering.revoke_token(session, holder.token_id)
        last = b"".join([part async for part in parts])
    assert last.startswith(b'data: {"error"')
    assert b"revoked" in last
    ((event, meta),) = await ledger(holder)
    assert (meta.outcome, meta.estimated) == ("cut", True)
    assert event.total_tokens > 0


async def test_who_guesses_tokens_has_to_wait_and_who_is_known_has_not(
    holder, base_url, monkeypatch
):
    monkeypatch.setattr(origin, "FAILURES_PER_MINUTE", 3)
    assert (await holder.client.get("/key")).status_code == 200
    async with httpx.AsyncClient(base_url=base_url, trust_env=False) as client:
        guesses = [
            await client.get("/key", headers={"x-api-key": f"ocp_{'a' * 26}_{number:043}"})
            for number in range(6)
        ]
    assert [guess.status_code for guess in guesses][:3] == [401] * 3
    refused = next(guess for guess in guesses if guess.status_code == 429)
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert (await holder.client.get("/key")).status_code == 200


async def test_an_expired_token_is_refused(make_holder):
    holder = await make_holder(expires_at=real_now() - timedelta(seconds=1))
    assert (await holder.chat()).status_code == 401


async def test_a_boxs_token_is_worth_nothing_on_the_public_side(holder, upstream):
    response = await holder.client.get("/key", headers=INGRESS)
    assert response.status_code == 403
    assert (await holder.client.get("/key")).status_code == 200
    assert upstream.seen == []


@pytest.mark.parametrize(("has_access", "status"), [(True, 200), (False, 403)])
async def test_an_api_token_works_from_anywhere_when_the_box_allows_it(
    make_holder, has_access, status
):
    holder = await make_holder(kind=TokenKind.API, box={"api_access": has_access})
    assert (await holder.client.get("/key", headers=INGRESS)).status_code == status


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_request"),
        (b"{nonsense", 400, "invalid_request"),
        (b"[1]", 400, "invalid_request"),
        (b"{}", 400, "invalid_request"),
        (b'{"model": 5}', 400, "invalid_request"),
        (b'{"model": "a\\u0000b"}', 400, "invalid_request"),
        (b'{"model": "k2p5", "stream": "yes"}', 400, "invalid_request"),
        (b'{"model": "k3"}', 404, "model_not_found"),
    ],
)
async def test_a_bad_request_never_goes_upstream(holder, upstream, body, status, code):
    response = await holder.client.post("/chat/completions", content=body)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert upstream.seen == []


async def test_a_body_over_the_limit_is_refused(holder, upstream):
    response = await holder.client.post("/messages", content=b"x" * (32 * 1024 * 1024 + 1))
    assert response.status_code == 413
    assert response.json()["error"]["type"] == "request_too_large"
    assert upstream.seen == []


async def test_what_does_not_exist_is_not_found(holder):
    assert (await holder.client.get("/embeddings")).status_code == 404
    assert (await holder.client.get("/chat/completions")).status_code == 404


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [(401, 503), (402, 503), (403, 503), (429, 429), (500, 503), (503, 503), (529, 503)],
)
async def test_the_providers_refusal_is_said_in_our_words(holder, upstream, ledger, theirs, ours):
    body = {"error": {"message": "insufficient_quota: top up your credits", "type": "billing"}}
    upstream.will(whole(body, status=theirs, headers="Retry-After: 7\r\n"))
    response = await holder.chat()
    assert (response.status_code, response.headers["retry-after"]) == (ours, "7")
    assert not {"quota", "credits", "billing"} & set(response.text.lower().split())
    ((event, meta),) = await ledger(holder)
    assert (event.total_tokens, meta.outcome, meta.status_code) == (0, "failed", theirs)


@pytest.mark.parametrize(
    ("status", "expected"),
    [(400, (False, False)), (502, (False, True)), (504, (True, True))],
    ids=["refused", "unclear", "gave up waiting"],
)
async def test_what_may_have_been_billed_is_flagged_and_what_was_worked_at_counts(
    holder, upstream, ledger, status, expected
):
    upstream.will(whole({"error": {}}, status=status))
    await holder.chat()
    ((event, meta),) = await ledger(holder)
    assert (event.prompt_tokens > 0, meta.estimated) == expected
    assert (event.completion_tokens, meta.outcome) == (0, "failed")


async def test_the_providers_word_on_the_request_itself_passes(holder, upstream):
    body = b'{"error":{"message":"messages: too short","type":"invalid_request_error"}}'
    upstream.will(whole(body, status=400))
    response = await holder.chat()
    assert (response.status_code, response.content) == (400, body)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort",
        b"",
    ],
    ids=["not HTTP", "length", "huge header", "chunk size", "too short", "nothing"],
)
async def test_a_malformed_answer_is_a_plain_error(holder, upstream, ledger, answer):
    upstream.will(raw(answer))
    response = await holder.chat()
    assert response.status_code == 502
    assert response.json()["error"]["type"] == "api_error"
    assert len(await ledger(holder)) == 1


async def test_an_answer_may_begin_with_continue_and_end_with_the_connection(holder, upstream):
    upstream.will(
        raw(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}")
    )
    response = await holder.chat()
    assert (response.status_code, response.content) == (200, b"{}")


@pytest.mark.parametrize("way", ["waiting"])
async def test_a_provider_that_cannot_be_reached_costs_nothing(holder, upstream, ledger):
    upstream.server.close()
    response = await holder.chat()
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "upstream_unreachable"
    assert await ledger(holder) == []
    assert (await holder.chat()).status_code == 502, "nothing is held for a request that has ended"


async def test_a_stream_that_fails_midway_says_so_and_is_estimated(holder, upstream, ledger):
    upstream.will(stream(*[chunk("some words here")] * 5, cut=True))
    response = await holder.chat(stream=True, stream_options={"include_usage": True})
    assert response.content.startswith(chunk("some words here") * 5)
    assert b'data: {"error"' in response.content
    assert b"[DONE]" not in response.content
    ((event, meta),) = await ledger(holder)
    assert (meta.outcome, meta.estimated) == ("cut", True)
    assert event.completion_tokens >= 5
    assert event.prompt_tokens > 0
