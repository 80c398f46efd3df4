"""OpenAI's own Python client, sync and async, works with the proxy as it does with OpenAI."""

import asyncio
import importlib
import json

import pytest
import pytest_asyncio

from openclaw_web.billing.models import SubscriptionStatus

pytest_plugins = ["tests.contracts.gateway_running"]
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("empty_kimi")]

MODEL = "k2p5"
ABOUT_THE_REQUEST = {400, 404, 413, 429}  # all else is between the provider and us
HELLO = [{"role": "user", "content": "hello there"}]
ASKED = {"include_usage": True}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Say how the weather is.",
        "parameters": {
            "type": "object",
            "required": ["city"],
            "properties": {"city": {"type": "string"}, "model": {"type": "string"}},
        },
    },
}
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChw"
    "GA60e6kgAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="module")
def openai():
    """Import the client where it is needed: that takes seconds, and each test process its own."""
    return importlib.import_module("openai")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nobodys_client(openai, gateway):
    """Return the client that all tests share: making one takes a tenth of a second."""
    async with openai.AsyncOpenAI(
        base_url=f"{gateway.url}/proxy/v1", api_key="nobody", max_retries=0, timeout=30
    ) as made:
        yield made


@pytest.fixture
def client(nobodys_client, holder):
    return nobodys_client.with_options(api_key=holder.token)


async def streamed(client, **more):
    stream = await client.chat.completions.create(
        model=MODEL, **{"messages": HELLO} | more, stream=True
    )
    return [chunk async for chunk in stream]


def said_in(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


async def test_a_whole_answer(client, holder):
    completion = await client.chat.completions.create(model=MODEL, messages=HELLO)
    assert completion.object == "chat.completion"
    assert "hello there" in completion.choices[0].message.content
    assert completion.choices[0].finish_reason == "stop"
    ((event, meta),) = await holder.settled()
    assert completion.usage.total_tokens == event.total_tokens > 0
    assert (event.request_id, meta.streamed) == (completion._request_id, False)  # noqa: SLF001


async def test_the_synchronous_client(openai, holder):
    def talk():
        with openai.OpenAI(base_url=holder.openai_url, api_key=holder.token, timeout=30) as client:
            whole = client.chat.completions.create(model=MODEL, messages=HELLO)
            stream = client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
            return whole.choices[0].message.content, said_in(list(stream))

    whole, in_pieces = await asyncio.to_thread(talk)
    assert whole == in_pieces
    assert [meta.streamed for _, meta in await holder.settled()] == [False, True]


async def test_a_stream_tells_its_usage_when_asked(client, holder):
    chunks = await streamed(client, stream_options=ASKED)
    assert "hello there" in said_in(chunks)
    assert chunks[-1].choices == []
    ((event, _),) = await holder.settled()
    assert chunks[-1].usage.total_tokens == event.total_tokens > 0


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": False}}])
async def test_a_stream_has_no_usage_chunk_when_it_was_not_asked_for(client, holder, options):
    chunks = await streamed(client, **options)
    assert "hello there" in said_in(chunks)
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"
    ((event, meta),) = await holder.settled()
    assert (event.total_tokens > 0, meta.estimated) == (True, False)
    assert "stream_options" in holder.gateway.last_asked()["fields"], "the proxy asked for itself"


async def test_cached_tokens_reach_the_client_and_the_ledger(client, holder):
    holder.gateway.kimi_will(prompt_tokens=500, cached_tokens=400, completion_tokens=20)
    completion = await client.chat.completions.create(model=MODEL, messages=HELLO)
    assert completion.usage.prompt_tokens_details.cached_tokens == 400
    ((event, meta),) = await holder.settled()
    assert (event.prompt_tokens, event.completion_tokens, meta.cached_tokens) == (500, 20, 400)


async def test_a_tool_is_called_and_its_result_taken_up(client):
    choice = {"type": "function", "function": {"name": "weather"}}
    asked = await client.chat.completions.create(
        model=MODEL, messages=HELLO, tools=[WEATHER], tool_choice=choice
    )
    (call,) = asked.choices[0].message.tool_calls
    assert asked.choices[0].finish_reason == "tool_calls"
    assert (call.function.name, json.loads(call.function.arguments)) == (
        "weather",
        {"city": "example"},
    )
    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    messages = [*HELLO, asked.choices[0].message.model_dump(exclude_none=True), result]
    answered = await client.chat.completions.create(
        model=MODEL, messages=messages, tools=[WEATHER], tool_choice="auto"
    )
    assert "rain" in answered.choices[0].message.content


async def test_streamed_calls_of_tools_can_be_put_together(client, holder):
    calls = [
        {"name": "weather", "arguments": {"city": "Zürich an der Limmat"}},
        {"name": "weather", "arguments": {"city": "東京 と 大阪"}},
    ]
    holder.gateway.kimi_will(text="Let me look.", tool_calls=calls)
    heard = {0: "", 1: ""}
    chunks = await streamed(client, tools=[WEATHER], tool_choice="required")
    for chunk in chunks:
        for piece in chunk.choices[0].delta.tool_calls or ():
            heard[piece.index] += piece.function.arguments or ""
    assert said_in(chunks) == "Let me look."
    assert [json.loads(one) for one in heard.values()] == [one["arguments"] for one in calls]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


async def test_the_clients_own_stream_helper_puts_everything_together(client, holder):
    holder.gateway.kimi_will(tool_calls=[{"name": "weather", "arguments": {"city": "Rome"}}])
    helper = client.chat.completions.stream(model=MODEL, messages=HELLO, tools=[WEATHER])
    async with helper as stream:
        completion = await stream.get_final_completion()
    (call,) = completion.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Rome"}


async def test_pictures_pass(client, holder):
    parts = [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": PIXEL}},
    ]
    completion = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": parts}]
    )
    assert "one picture" in completion.choices[0].message.content
    assert holder.gateway.last_asked()["images"] == 1


async def test_reasoning_passes_and_is_counted(client, holder):
    chunks = await streamed(client, reasoning_effort="medium", stream_options=ASKED)
    thoughts = [getattr(one.choices[0].delta, "reasoning_content", None) for one in chunks[:-1]]
    assert "".join(one for one in thoughts if one)
    ((_, meta),) = await holder.settled()
    assert meta.reasoning_tokens == chunks[-1].usage.completion_tokens_details.reasoning_tokens > 0


async def test_unknown_fields_and_extra_headers_do_no_harm(client, holder):
    await client.chat.completions.create(
        model=MODEL,
        messages=HELLO,
        temperature=0.3,
        seed=7,
        extra_body={"thinking": {"type": "disabled"}, "x_new_field": [1.0, None]},
        extra_headers={"openai-beta": "assistants=v2", "x-title": "mine"},
    )
    asked = holder.gateway.last_asked()
    assert asked["fields"] == [
        "messages",
        "model",
        "seed",
        "temperature",
        "thinking",
        "x_new_field",
    ]
    assert asked["headers"]["user-agent"].startswith("AsyncOpenAI/Python ")
    assert asked["headers"]["accept-encoding"] == "identity"
    unwanted = {"x-title", "x-stainless-lang", "cookie", "traceparent"}
    assert not unwanted & set(asked["header_names"])
    assert "openai-beta" in asked["header_names"]


async def test_models_are_listed_and_described(openai, client):
    listed = [model async for model in client.models.list()]
    assert [model.id for model in listed] == ["k2p5", "kimi-for-coding"]
    assert all(model.object == "model" and model.owned_by for model in listed)
    one = await client.models.retrieve("kimi-for-coding")
    assert one == listed[1]
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("k3")


async def test_every_answer_names_its_request(openai, client):
    completion = await client.chat.completions.create(model=MODEL, messages=HELLO)
    assert completion._request_id.startswith("req_")  # noqa: SLF001
    raw = await client.chat.completions.with_raw_response.create(
        model=MODEL, messages=HELLO, stream=True
    )
    assert raw.request_id.startswith("req_")
    assert (await client.models.retrieve(MODEL))._request_id.startswith("req_")  # noqa: SLF001
    with pytest.raises(openai.NotFoundError) as refused:
        await client.chat.completions.create(model="k3", messages=HELLO)
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
    ],
)
async def test_what_the_provider_refuses_is_the_right_exception(
    openai, client, holder, theirs, kind
):
    holder.gateway.kimi_will(status=theirs, retry_after_seconds=7, times=2)
    for is_stream in (True, False):
        with pytest.raises(getattr(openai, kind)) as refused:
            await client.chat.completions.create(model=MODEL, messages=HELLO, stream=is_stream)
        assert refused.value.status_code == (theirs if theirs in ABOUT_THE_REQUEST else 503)
        assert refused.value.type
        assert "membership" not in refused.value.message
    await client.chat.completions.create(model=MODEL, messages=HELLO)  # the next one goes through


async def test_what_we_refuse_is_the_right_exception(openai, client, holder, make_holder):
    stranger = client.with_options(api_key="sk-somebody-else")
    with pytest.raises(openai.AuthenticationError) as refused:
        await stranger.chat.completions.create(model=MODEL, messages=HELLO)
    assert refused.value.code == "invalid_token"
    with pytest.raises(openai.NotFoundError) as refused:
        await client.chat.completions.create(model="gpt-9", messages=HELLO)
    assert refused.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        await client.embeddings.create(model=MODEL, input="x")
    closed = await make_holder(box={"api_access": False})
    with pytest.raises(openai.PermissionDeniedError):
        await client.with_options(api_key=closed.token).models.list()
    assert holder.gateway.times_asked() == 0


async def test_at_the_limit_a_program_gets_a_429_that_says_when_it_ends(
    openai, client, make_holder
):
    used_up = await make_holder(period={"tokens_limit": 1000, "tokens_used": 1000})
    with pytest.raises(openai.RateLimitError) as refused:
        await client.with_options(api_key=used_up.token).chat.completions.create(
            model=MODEL, messages=HELLO, stream=True
        )
    assert refused.value.body["message"].startswith("monthly usage limit reached, resets on ")
    assert (refused.value.code, refused.value.type) == ("usage_limit_reached", "rate_limit_error")
    assert int(refused.value.response.headers["retry-after"]) > 3600


async def test_a_suspended_customers_program_gets_a_403(openai, client, make_holder):
    suspended = await make_holder(subscription={"status": SubscriptionStatus.SUSPENDED})
    with pytest.raises(openai.PermissionDeniedError) as refused:
        await client.with_options(api_key=suspended.token).chat.completions.create(
            model=MODEL, messages=HELLO
        )
    assert refused.value.code == "subscription_inactive"


async def test_the_client_waits_as_long_as_it_is_told_and_succeeds(client, holder, monkeypatch):
    waits = []

    async def note(seconds):
        waits.append(seconds)

    monkeypatch.setattr("openai._base_client.anyio.sleep", note)
    holder.gateway.kimi_will(status=429, retry_after_seconds=7)
    patient = client.with_options(max_retries=2)
    completion = await patient.chat.completions.create(model=MODEL, messages=HELLO)
    assert "hello there" in completion.choices[0].message.content
    assert waits == [7]
    assert [meta.outcome for _, meta in await holder.settled()] == ["failed", "complete"]


@pytest.mark.parametrize("fault", ["close", "reset"])
async def test_no_answer_at_all_is_a_502(openai, client, holder, fault):
    holder.gateway.kimi_will(fault=fault, times=2)  # a kept connection may be replaced once
    with pytest.raises(openai.InternalServerError) as refused:
        await client.chat.completions.create(model=MODEL, messages=HELLO)
    assert refused.value.status_code == 502
    holder.gateway.kimi.http.delete("/_control/answers")
    await client.chat.completions.create(model=MODEL, messages=HELLO)  # the next one goes through


@pytest.mark.parametrize("fault", ["close", "reset"])
async def test_a_stream_that_is_cut_raises_and_is_counted(openai, client, holder, fault):
    holder.gateway.kimi_will(fault=fault, after_chunks=2, text="one two three four")
    with pytest.raises(openai.APIError):
        await streamed(client)
    ((event, meta),) = await holder.settled()
    assert (meta.outcome, meta.estimated) == ("cut", True)
    assert event.total_tokens > 0


async def test_a_stream_that_reports_an_error_raises(openai, client, holder):
    holder.gateway.kimi_will(fault="error", after_chunks=1, text="one two")
    with pytest.raises(openai.APIError):
        await streamed(client)
    ((_, meta),) = await holder.settled()
    assert meta.outcome == "failed"


async def test_events_cut_at_every_byte_come_out_whole(client, holder):
    holder.gateway.kimi_will(split_bytes=1, text="grüße 世界 🦞")
    assert said_in(await streamed(client)) == "grüße 世界 🦞"


async def test_a_body_of_32_megabytes_passes_and_one_of_33_is_refused(openai, client, holder):
    def with_picture(megabytes):
        room = megabytes * 1024 * 1024 - 600
        url = PIXEL[: len("data:image/png;base64,")] + "A" * room
        parts = [{"type": "image_url", "image_url": {"url": url}}]
        return client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": parts}]
        )

    completion = await with_picture(32)
    assert "one picture" in completion.choices[0].message.content
    with pytest.raises(openai.APIStatusError) as refused:
        await with_picture(33)
    assert (refused.value.status_code, refused.value.type) == (413, "request_too_large")
    assert holder.gateway.times_asked() == 1
