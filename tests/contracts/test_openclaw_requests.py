"""What a real OpenClaw sends comes through as it is, and what comes back it can read."""

import json

import httpx
import pytest

from openclaw_web.metering.models import TokenKind
from tests.contracts.openclaw_requests import (
    ANTHROPIC_HEADERS,
    OPENAI_HEADERS,
    TOOLS,
    anthropic_body,
    openai_body,
)

pytest_plugins = ["tests.contracts.gateway_running"]
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("empty_kimi")]


async def post(holder, path, body, headers):
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        return await client.post(f"{holder.openai_url}/{path}", content=body, headers=headers)


def data_of(response):
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


async def test_a_turn_in_the_openai_form(make_holder):
    box = await make_holder(kind=TokenKind.BOX)
    headers = OPENAI_HEADERS | {"authorization": f"Bearer {box.token}"}
    response = await post(box, "chat/completions", openai_body(effort="medium"), headers)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "content-encoding" not in response.headers
    chunks = data_of(response)
    assert chunks[-1]["usage"]["total_tokens"] > 7_000
    asked = box.gateway.last_asked()
    assert (asked["tools"], asked["model"]) == (len(TOOLS), "kimi-for-coding")
    ((event, _),) = await box.settled()
    assert event.total_tokens == chunks[-1]["usage"]["total_tokens"]


async def test_a_turn_in_the_anthropic_form(make_holder):
    box = await make_holder(kind=TokenKind.BOX)
    headers = ANTHROPIC_HEADERS | {"x-api-key": box.token}
    response = await post(box, "messages", anthropic_body(), headers)
    assert response.status_code == 200
    kinds = [event["type"] for event in data_of(response)]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    asked = box.gateway.last_asked()
    assert (asked["tools"], asked["model"]) == (len(TOOLS), "kimi-for-coding")
    assert asked["header_names"] == [
        *("accept-encoding", "anthropic-version", "content-length", "content-type", "host"),
        *("user-agent", "x-api-key"),
    ]
    ((event, meta),) = await box.settled()
    assert (meta.outcome, event.prompt_tokens > 7_000) == ("complete", True)


@pytest.mark.parametrize("fault", ["reset", "end"])
async def test_a_broken_stream_can_be_told_from_a_whole_one(make_holder, fault):
    """OpenClaw sends the turn again then; a broken answer that looks whole would be shown."""
    box = await make_holder(kind=TokenKind.BOX)
    box.gateway.kimi_will(fault=fault, after_chunks=2, text="one two three four")
    headers = OPENAI_HEADERS | {"authorization": f"Bearer {box.token}"}
    response = await post(box, "chat/completions", openai_body(), headers)
    assert "[DONE]" not in response.text
    ((_, meta),) = await box.settled()
    assert (meta.outcome, meta.estimated) == ("cut", True)


async def test_at_the_limit_the_assistant_says_so_in_its_language(make_holder):
    used_up = {"tokens_limit": 1000, "tokens_used": 1000}
    box = await make_holder(kind=TokenKind.BOX, period=used_up, box={"language": "de"})
    headers = OPENAI_HEADERS | {"authorization": f"Bearer {box.token}"}
    response = await post(box, "chat/completions", openai_body(), headers)
    chunks = data_of(response)
    said = "".join(one["choices"][0]["delta"].get("content", "") for one in chunks[:-1])
    assert (response.status_code, box.gateway.times_asked()) == (200, 0)
    assert said.startswith("Ich habe mein Monatslimit erreicht. Am ")
    assert chunks[-1]["usage"]["total_tokens"] == 0
