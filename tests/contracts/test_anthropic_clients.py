"""Anthropic's own Python client, sync and async, works with the proxy as it does with Anthropic."""

import asyncio
import importlib

import pytest
import pytest_asyncio

from openclaw_web.billing.models import SubscriptionStatus, Tier

pytest_plugins = ["tests.contracts.gateway_running"]
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("empty_kimi")]

MODEL = "k2p5"
ABOUT_THE_REQUEST = {400, 404, 413, 429}  # all else is between the provider and us
HELLO = [{"role": "user", "content": "hello there"}]
BETAS = "context-management-2025-06-27,files-api-2025-04-14"
MARK = {"type": "ephemeral"}
WEATHER = {
    "name": "weather",
    "description": "Say how the weather is.",
    "input_schema": {
        "type": "object",
        "required": ["city"],
        "properties": {"city": {"type": "string"}, "model": {"type": "string"}},
    },
}
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChw"
    "GA60e6kgAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="module")
def anthropic():
    """Import the client where it is needed: that takes seconds, and each test process its own."""
    return importlib.import_module("anthropic")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nobodys_client(anthropic, gateway):
    """Return the client that all tests share: making one takes a tenth of a second."""
    async with anthropic.AsyncAnthropic(
        base_url=f"{gateway.url}/proxy", api_key="nobody", max_retries=0, timeout=30
    ) as made:
        yield made


@pytest.fixture
def client(nobodys_client, holder):
    return nobodys_client.with_options(api_key=holder.token)


def ask(client, **more):
    asked = {"model": MODEL, "max_tokens": 500, "messages": HELLO} | more
    return client.messages.create(**asked)


async def final(client, **more):
    """Stream with the client's own helper and return what it put together."""
    asked = {"model": MODEL, "max_tokens": 500, "messages": HELLO} | more
    async with client.messages.stream(**asked) as stream:
        return await stream.get_final_message()


async def test_a_whole_answer(client, holder):
    message = await ask(client)
    assert (message.type, message.role, message.stop_reason) == ("message", "assistant", "end_turn")
    assert "hello there" in message.content[0].text
    ((event, meta),) = await holder.settled()
    assert message.usage.input_tokens + message.usage.output_tokens == event.total_tokens > 0
    assert (event.request_id, meta.streamed) == (message._request_id, False)  # noqa: SLF001


async def test_the_synchronous_client(anthropic, holder):
    def talk():
        url = holder.anthropic_url
        with anthropic.Anthropic(base_url=url, api_key=holder.token, timeout=30) as client:
            whole = ask(client)
            with client.messages.stream(model=MODEL, max_tokens=500, messages=HELLO) as stream:
                return whole.content[0].text, "".join(stream.text_stream)

    whole, in_pieces = await asyncio.to_thread(talk)
    assert whole == in_pieces
    assert [meta.streamed for _, meta in await holder.settled()] == [False, True]


async def test_a_stream_is_put_together_and_counted(client, holder):
    holder.gateway.kimi_will(
        text="one two", prompt_tokens=500, cached_tokens=400, completion_tokens=20
    )
    message = await final(client)
    assert message.content[0].text == "one two"
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (100, 400)
    assert message.usage.output_tokens == 20
    ((event, meta),) = await holder.settled()
    assert (event.prompt_tokens, event.completion_tokens, meta.cached_tokens) == (500, 20, 400)


async def test_the_sum_so_far_is_told_often_and_counted_once(client, holder):
    holder.gateway.kimi_will(usage_at="often", prompt_tokens=500, completion_tokens=20)
    assert (await final(client)).usage.output_tokens == 20
    ((event, _),) = await holder.settled()
    assert (event.prompt_tokens, event.completion_tokens) == (500, 20)


async def test_the_events_come_in_their_order(client):
    stream = await ask(client, stream=True, thinking={"type": "enabled", "budget_tokens": 1024})
    kinds = [event.type async for event in stream]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 2


async def test_thinking_comes_with_its_signature_and_can_be_sent_back(client):
    thinking = {"type": "enabled", "budget_tokens": 1024}
    message = await final(client, thinking=thinking)
    thought, text = message.content
    assert (thought.type, text.type) == ("thinking", "text")
    assert thought.thinking
    assert thought.signature
    earlier = {"role": "assistant", "content": [part.model_dump() for part in message.content]}
    messages = [*HELLO, earlier, {"role": "user", "content": "and then?"}]
    assert (
        "and then?" in (await final(client, thinking=thinking, messages=messages)).content[1].text
    )


async def test_a_tool_is_called_and_its_result_taken_up(client):
    choice = {"type": "tool", "name": "weather"}
    asked = await ask(client, tools=[WEATHER], tool_choice=choice)
    (call,) = asked.content
    assert (asked.stop_reason, call.name, call.input) == (
        "tool_use",
        "weather",
        {"city": "example"},
    )
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
    messages = [
        *HELLO,
        {"role": "assistant", "content": [call.model_dump()]},
        {"role": "user", "content": [result]},
    ]
    answered = await ask(client, tools=[WEATHER], tool_choice={"type": "auto"}, messages=messages)
    assert "rain" in answered.content[0].text


async def test_streamed_calls_of_tools_are_put_together(client, holder):
    calls = [
        {"name": "weather", "arguments": {"city": "Zürich an der Limmat"}},
        {"name": "weather", "arguments": {"city": "東京 と 大阪"}},
    ]
    holder.gateway.kimi_will(text="Let me look.", tool_calls=calls)
    message = await final(client, tools=[WEATHER])
    text, *uses = message.content
    assert text.text == "Let me look."
    assert [use.input for use in uses] == [one["arguments"] for one in calls]


async def test_system_texts_cache_marks_and_pictures_pass(client, holder):
    picture = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    parts = [
        {"type": "image", "source": picture},
        {"type": "text", "text": "what is this?", "cache_control": MARK},
    ]
    message = await ask(
        client,
        system=[{"type": "text", "text": "Be brief.", "cache_control": MARK}],
        tools=[WEATHER | {"cache_control": MARK}],
        messages=[{"role": "user", "content": parts}],
    )
    assert "one picture" in message.content[0].text
    asked = holder.gateway.last_asked()
    assert (asked["images"], asked["tools"]) == (1, 1)
    assert "system" in asked["fields"]


async def test_unknown_fields_and_beta_headers_reach_the_provider(client, holder):
    await ask(
        client,
        metadata={"user_id": "u1"},
        extra_body={"context_management": {"edits": []}, "x_new_field": [1.0, None]},
        extra_headers={"anthropic-beta": BETAS, "anthropic-version": "2023-06-01"},
    )
    asked = holder.gateway.last_asked()
    assert {"metadata", "context_management", "x_new_field"} <= set(asked["fields"])
    headers = asked["headers"]
    assert headers["anthropic-beta"] == BETAS
    assert headers["anthropic-version"] == "2023-06-01"
    assert headers["user-agent"].startswith("AsyncAnthropic/Python ")
    assert headers["accept-encoding"] == "identity"
    assert not {"authorization", "cookie", "x-stainless-lang"} & set(asked["header_names"])


async def test_the_models_have_pages(anthropic, client, make_holder, nobodys_client):
    page = await client.models.list()
    assert [model.id for model in page.data] == ["k2p5", "kimi-for-coding"]
    assert (page.has_more, page.first_id, page.last_id) == (False, "k2p5", "kimi-for-coding")
    first = page.data[0]
    assert (first.type, first.display_name, first.created_at.year) == ("model", "k2p5", 1970)
    team = nobodys_client.with_options(
        api_key=(await make_holder(subscription={"tier": Tier.TEAM})).token
    )
    every = [model.id async for model in team.models.list(limit=1)]
    assert every == [model.id for model in (await team.models.list()).data]
    assert len(every) > 2
    before = await team.models.list(limit=1, before_id=every[2])
    assert ([model.id for model in before.data], before.has_more) == ([every[1]], True)
    with pytest.raises(anthropic.BadRequestError):
        await team.models.list(limit=5_000)


async def test_one_model_is_described(anthropic, client):
    assert (await client.models.retrieve("kimi-for-coding")).type == "model"
    with pytest.raises(anthropic.NotFoundError) as refused:
        await client.models.retrieve("claude-9")
    assert refused.value.body["error"]["type"] == "not_found_error"


async def test_every_answer_names_its_request(anthropic, client):
    assert (await ask(client))._request_id.startswith("req_")  # noqa: SLF001
    raw = await client.messages.with_raw_response.create(
        model=MODEL, max_tokens=9, messages=HELLO, stream=True
    )
    assert raw.request_id.startswith("req_")
    with pytest.raises(anthropic.NotFoundError) as refused:
        await ask(client, model="k3")
    assert refused.value.request_id.startswith("req_")


@pytest.mark.parametrize(
    ("theirs", "kind"),
    [
        (400, "BadRequestError"),
        (401, "InternalServerError"),
        (403, "InternalServerError"),
        (404, "NotFoundError"),
        (413, "APIStatusError"),
        (429, "RateLimitError"),
        (500, "InternalServerError"),
        (502, "InternalServerError"),
        (503, "InternalServerError"),
        (529, "InternalServerError"),
    ],
)
async def test_what_the_provider_refuses_is_the_right_exception(
    anthropic, client, holder, theirs, kind
):
    holder.gateway.kimi_will(status=theirs, retry_after_seconds=7, times=2)
    for is_stream in (True, False):
        with pytest.raises(getattr(anthropic, kind)) as refused:
            await ask(client, stream=is_stream)
        assert refused.value.status_code == (theirs if theirs in ABOUT_THE_REQUEST else 503)
        assert refused.value.body["type"] == "error"
        assert set(refused.value.body["error"]) >= {"type", "message"}
    await ask(client)  # the next one goes through


async def test_what_we_refuse_is_the_right_exception(anthropic, client, holder, make_holder):
    with pytest.raises(anthropic.AuthenticationError) as refused:
        await ask(client.with_options(api_key="sk-somebody-else"))
    assert refused.value.body["error"]["type"] == "authentication_error"
    with pytest.raises(anthropic.NotFoundError) as refused:
        await ask(client, model="claude-9")
    assert refused.value.body["error"]["type"] == "not_found_error"
    closed = await make_holder(box={"api_access": False})
    with pytest.raises(anthropic.PermissionDeniedError) as refused:
        await ask(client.with_options(api_key=closed.token))
    assert refused.value.body["error"]["type"] == "permission_error"
    assert holder.gateway.times_asked() == 0


async def test_at_the_limit_a_program_gets_a_429_that_says_when_it_ends(
    anthropic, client, make_holder
):
    used_up = await make_holder(period={"tokens_limit": 1000, "tokens_used": 1000})
    with pytest.raises(anthropic.RateLimitError) as refused:
        await ask(client.with_options(api_key=used_up.token), stream=True)
    error = refused.value.body["error"]
    assert error["type"] == "rate_limit_error"
    assert error["message"].startswith("monthly usage limit reached, resets on ")
    assert int(refused.value.response.headers["retry-after"]) > 3600


async def test_a_suspended_customers_program_gets_a_403(anthropic, client, make_holder):
    suspended = await make_holder(subscription={"status": SubscriptionStatus.SUSPENDED})
    with pytest.raises(anthropic.PermissionDeniedError):
        await ask(client.with_options(api_key=suspended.token))


async def test_the_client_waits_as_long_as_it_is_told_and_succeeds(client, holder, monkeypatch):
    waits = []

    async def note(seconds):
        waits.append(seconds)

    monkeypatch.setattr("anthropic._base_client.anyio.sleep", note)
    holder.gateway.kimi_will(status=429, retry_after_seconds=7)
    message = await ask(client.with_options(max_retries=2))
    assert "hello there" in message.content[0].text
    assert waits == [7]
    assert [meta.outcome for _, meta in await holder.settled()] == ["failed", "complete"]


@pytest.mark.parametrize("fault", ["close", "reset"])
async def test_a_stream_that_is_cut_raises_and_is_counted(anthropic, client, holder, fault):
    holder.gateway.kimi_will(fault=fault, after_chunks=2, text="one two three four")
    with pytest.raises(anthropic.APIError):
        await final(client)
    ((event, meta),) = await holder.settled()
    assert (meta.outcome, meta.estimated) == ("cut", True)
    assert event.total_tokens > 0


async def test_a_stream_that_reports_an_error_raises(anthropic, client, holder):
    holder.gateway.kimi_will(fault="error", after_chunks=1, text="one two")
    with pytest.raises(anthropic.APIError):
        await final(client)
    ((_, meta),) = await holder.settled()
    assert meta.outcome == "failed"


async def test_events_cut_at_every_byte_come_out_whole(client, holder):
    holder.gateway.kimi_will(split_bytes=1, text="grüße 世界 🦞")
    assert (await final(client)).content[0].text == "grüße 世界 🦞"


async def test_a_body_over_32_megabytes_is_refused_in_the_clients_form(anthropic, client, holder):
    with pytest.raises(anthropic.APIStatusError) as refused:
        await ask(client, messages=[{"role": "user", "content": "x" * 33 * 1024 * 1024}])
    assert refused.value.status_code == 413
    assert refused.value.body["error"]["type"] == "request_too_large"
    assert holder.gateway.times_asked() == 0
