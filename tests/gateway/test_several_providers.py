"""The proxy in front of several providers: one request is one event, whoever answers it."""

import gzip
import json

import pytest
from sqlmodel import select

from openclaw_web.core.settings import settings
from openclaw_web.jobs.models import Alert
from tests.gateway.upstream_server import (
    DONE,
    USAGE_CHUNK,
    chunk,
    completion,
    raw,
    serving,
    stream,
    whole,
)


@pytest.fixture
async def stand_in():
    async with serving() as server:
        yield server


@pytest.fixture
def proxy_settings(monkeypatch, tmp_path, upstream, stand_in):
    path = tmp_path / "upstreams.toml"
    path.write_text(
        f"""
        [[upstreams]]
        name = "main"
        openai_url = "{upstream.url}"
        keys_env = ["KIMI_API_KEY"]
        [[upstreams]]
        name = "stand-in"
        openai_url = "{stand_in.url}"
        anthropic_url = "{stand_in.url}"
        priority = 2
        [upstreams.models]
        kimi-for-coding = "another-name"
        """
    )
    monkeypatch.setenv("KIMI_API_KEY", "sk-main")
    monkeypatch.setenv("UPSTREAMS_FILE", str(path))
    monkeypatch.setenv("OPENCLAW_CLOUD_HOME", str(tmp_path))
    settings.cache_clear()
    yield settings()
    settings.cache_clear()


async def test_the_event_names_the_provider_that_answered(holder, upstream, stand_in, ledger):
    upstream.will(whole({"error": {"message": "top up"}}, status=402))
    stand_in.will(stream(chunk("a"), USAGE_CHUNK, DONE))
    response = await holder.chat(model="kimi-for-coding", stream=True)
    assert (response.status_code, response.content) == (200, chunk("a") + DONE)
    assert stand_in.seen[0].json["model"] == "another-name"
    (event, meta), (before, told) = await ledger(holder)
    assert (event.total_tokens, meta.upstream, meta.outcome) == (120, "stand-in", "complete")
    assert event.model == "another-name"
    assert before.request_id == f"{event.request_id}-1"
    assert (before.model, before.total_tokens) == ("kimi-for-coding", 0)
    assert (told.upstream, told.status_code, told.outcome) == ("main", 402, "failed")
    assert not told.estimated


async def test_a_failure_of_the_last_one_names_it(holder, upstream, stand_in, ledger):
    upstream.will(whole({"error": {}}, status=503))
    stand_in.will(raw(b""))
    assert (await holder.chat()).status_code == 502
    (event, meta), (_, told) = await ledger(holder)
    assert (event.completion_tokens, meta.upstream, meta.outcome) == (0, "stand-in", "failed")
    assert (event.prompt_tokens > 0, meta.estimated) == (True, True)
    assert (told.upstream, told.status_code) == ("main", 503)


async def test_the_refusal_of_all_is_said_in_our_words(holder, upstream, stand_in, ledger):
    told = {"error": {"message": "sk-main has no credits", "type": "billing"}}
    upstream.will(whole(told, status=429, headers="Retry-After: 7\r\n"))
    stand_in.will(whole(told, status=401))
    response = await holder.chat()
    assert (response.status_code, response.headers["retry-after"]) == (429, "7")
    assert not {"sk-main", "credits"} & set(response.text.split())
    (_, meta), (_, told) = await ledger(holder)
    assert (meta.upstream, meta.status_code) == ("main", 429)
    assert (told.upstream, told.status_code) == ("stand-in", 401)


async def test_a_form_is_spoken_where_it_is_known(holder, upstream, stand_in):
    stand_in.will(whole({"usage": {"input_tokens": 1, "output_tokens": 1}}))
    assert (await holder.message()).status_code == 200
    assert (len(upstream.seen), len(stand_in.seen)) == (0, 1)


async def test_a_provider_that_is_left_alone_is_shown_to_people(holder, proxy, upstream, session):
    upstream.will(*[whole({"error": {}}, status=503)] * 5)
    for _ in range(6):
        assert (await holder.chat()).status_code == 200
    await proxy.stop()
    (alert,) = await session.exec(select(Alert))
    assert (alert.code, alert.subject, alert.resolved_at) == ("model_provider_down", "main", None)
    assert "http_503" in alert.detail["sentence"]
    await proxy.start()
    await proxy.stop()
    await session.refresh(alert)
    assert alert.resolved_at is not None, "the next process has yet to see for itself"


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
async def test_a_packed_answer_passes_and_is_estimated(holder, upstream, ledger, is_stream):
    plain = chunk("words " * 200) + DONE if is_stream else json.dumps(completion()).encode()
    packed = gzip.compress(plain)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    upstream.will(raw(head + packed))
    response = await holder.chat(stream=is_stream)
    assert (response.status_code, response.content) == (200, plain)
    ((event, meta),) = await ledger(holder)
    assert meta.estimated
    assert event.completion_tokens > 0
    assert event.prompt_tokens > 0


@pytest.mark.parametrize("way", ["waiting"])
async def test_nothing_is_sent_for_a_request_that_nobody_could_take(holder, upstream, stand_in):
    upstream.server.close()
    stand_in.server.close()
    for _ in range(6):
        assert (await holder.chat()).status_code == 502
    assert (await holder.chat()).json()["error"]["code"] == "upstream_resting"
