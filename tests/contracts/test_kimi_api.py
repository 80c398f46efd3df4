"""The model API in both wire forms, and what its control endpoints promise."""

import json

import httpx
import pytest

from tests.contracts.simulator_process import running, secret_file

KEY = "sk-kimi-of-a-test"
ASK = {"model": "kimi-for-coding", "messages": [{"role": "user", "content": "hello there"}]}
FORMS = {"openai": "chat/completions", "anthropic": "messages"}


@pytest.fixture(scope="module")
def kimi(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kimi")
    key_file = secret_file(folder / "key", KEY)
    with running("kimi", folder / "run", "--key-file", str(key_file)) as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def _empty(kimi):
    kimi.http.delete("/_control/answers")
    kimi.http.delete("/_control/requests")


def queue(kimi, *answers):
    return kimi.http.post("/_control/answers", json={"answers": list(answers)})


def ask(kimi, form="openai", prefix="", **more):
    headers = {"authorization": f"Bearer {KEY}"} if form == "openai" else {"x-api-key": KEY}
    body = ASK | ({} if form == "openai" else {"max_tokens": 1000}) | more
    return kimi.http.post(f"{prefix}/v1/{FORMS[form]}", json=body, headers=headers)


def events(answer):
    lines = [line for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line[6:]) for line in lines if line != "data: [DONE]"]


def last_request(kimi):
    return kimi.http.get("/_control/requests", params={"last": 1}).json()["requests"][0]


@pytest.mark.parametrize("prefix", ["", "/coding"])
def test_the_default_answer_takes_up_what_was_said(kimi, prefix):
    openai = ask(kimi, prefix=prefix).json()
    anthropic = ask(kimi, "anthropic", prefix=prefix).json()
    assert "hello there" in openai["choices"][0]["message"]["content"]
    assert "hello there" in anthropic["content"][0]["text"]
    assert openai["usage"]["prompt_tokens"] == anthropic["usage"]["input_tokens"] == 3
    assert openai["id"] != ask(kimi, prefix=prefix).json()["id"]


@pytest.mark.parametrize("has_usage", [True, False], ids=["asked", "not asked"])
def test_a_stream_tells_its_usage_only_when_asked(kimi, has_usage):
    queue(kimi, {"text": "one two three", "prompt_tokens": 500, "cached_tokens": 400,
                 "completion_tokens": 20, "reasoning_tokens": 8})  # fmt: skip
    options = {"stream_options": {"include_usage": True}} if has_usage else {}
    answer = ask(kimi, stream=True, **options)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("data: [DONE]\n\n")
    chunks = events(answer)
    text = "".join(
        one["choices"][0]["delta"].get("content", "") for one in chunks if one["choices"]
    )
    assert text == "one two three"
    usages = [one["usage"] for one in chunks if "usage" in one]
    details = {"prompt_tokens_details": {"cached_tokens": 400},
               "completion_tokens_details": {"reasoning_tokens": 8}}  # fmt: skip
    counts = {"prompt_tokens": 500, "completion_tokens": 20, "total_tokens": 520}
    expected = {**counts, "cached_tokens": 400, **details}
    assert usages == ([expected] if has_usage else [])
    last = [one for one in chunks if one["choices"]][-1]
    assert last["choices"][0]["usage"] == expected, "Kimi's own place, asked or not"
    assert (chunks[-1]["choices"] == []) is has_usage


def test_an_anthropic_stream_counts_the_cache_beside_the_input(kimi):
    queue(kimi, {"text": "a b", "prompt_tokens": 500, "cached_tokens": 400, "completion_tokens": 9})
    stream = events(ask(kimi, "anthropic", stream=True))
    assert stream[0]["type"] == "message_start"
    assert stream[0]["message"]["usage"]["input_tokens"] == 100
    assert stream[0]["message"]["usage"]["cache_read_input_tokens"] == 400
    assert stream[-2]["type"] == "message_delta"
    assert stream[-2]["usage"]["output_tokens"] == 9
    assert stream[-1] == {"type": "message_stop"}


def test_thinking_is_shown_and_counted_when_asked(kimi):
    openai = ask(kimi, reasoning_effort="medium").json()
    assert openai["choices"][0]["message"]["reasoning_content"]
    assert openai["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0
    thinking = {"type": "enabled", "budget_tokens": 100}
    kinds = [part["type"] for part in ask(kimi, "anthropic", thinking=thinking).json()["content"]]
    assert kinds == ["thinking", "text"]


@pytest.mark.parametrize(
    ("change", "status", "kind"),
    [
        ({"model": "k2p5"}, 404, "resource_not_found_error"),
        ({"messages": []}, 400, "invalid_request_error"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 400, "invalid_request_error"),
        ({"model": None}, 400, "invalid_request_error"),
        (
            {"messages": [{"role": "user", "content": "x" * 2_097_153}]},
            400,
            "invalid_request_error",
        ),
        (
            {"messages": [{"role": "user", "content": "x" * 1_100_000}]},
            400,
            "invalid_request_error",
        ),
        ({"tools": [{"function": {"name": "a"}}] * 2}, 400, "invalid_request_error"),
        ({"tools": [{"function": {}}]}, 400, "invalid_request_error"),
    ],
    ids=[
        "unknown model",
        "no messages",
        "wrong role",
        "no model",
        "too large",
        "too many tokens",
        "a tool twice",
        "a tool without a name",
    ],
)
def test_a_wrong_request_gets_the_vendors_error(kimi, change, status, kind):
    answer = ask(kimi, **change)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == kind


def test_invalid_json_is_refused_in_each_form(kimi):
    headers = {"x-api-key": KEY, "content-type": "application/json"}
    openai = kimi.http.post("/v1/chat/completions", content=b"{", headers=headers)
    anthropic = kimi.http.post("/v1/messages", content=b"{", headers=headers)
    assert [openai.status_code, anthropic.status_code] == [400, 400]
    assert anthropic.json()["type"] == "error"


@pytest.mark.parametrize("form", list(FORMS))
def test_a_wrong_key_is_refused_in_each_form(kimi, form):
    headers = {"authorization": "Bearer sk-wrong"}
    answer = kimi.http.post(f"/v1/{FORMS[form]}", json=ASK, headers=headers)
    kinds = {"openai": "invalid_authentication_error", "anthropic": "authentication_error"}
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == kinds[form]
    assert ("type" in answer.json()) is (form == "anthropic")


def test_the_usage_can_be_told_in_one_place_only_or_on_the_way(kimi):
    options = {"stream": True, "stream_options": {"include_usage": True}}
    queue(kimi, {"usage_at": "choice"}, {"usage_at": "top"}, {"usage_at": "often", "text": "a b"})
    in_choice, at_top, often = (events(ask(kimi, **options)) for _ in range(3))
    assert not [one for one in in_choice if "usage" in one]
    assert not [one for one in at_top if one["choices"] and "usage" in one["choices"][0]]
    assert len([one for one in often if "usage" in one]) == 4
    queue(kimi, {"usage_at": "often", "completion_tokens": 9})
    told = [one["usage"]["output_tokens"] for one in events(ask(kimi, "anthropic", stream=True))
            if one["type"] == "message_delta"]  # fmt: skip
    assert told == [4, 9], "the sum so far, never a difference"


def test_tools_are_called_and_their_results_taken_up(kimi):
    function = {"name": "weather", "parameters": WEATHER}
    asked = {"tools": [{"type": "function", "function": function}], "tool_choice": "required"}
    choice = ask(kimi, **asked).json()["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], call["id"]) == ("tool_calls", "weather:0")
    assert json.loads(call["function"]["arguments"]) == {"city": "example"}
    result = {"role": "tool", "tool_call_id": call["id"], "content": "rain, 9 degrees"}
    messages = [*ASK["messages"], choice["message"], result]
    said = ask(kimi, messages=messages).json()["choices"][0]["message"]["content"]
    assert said == "The tool answered: “rain, 9 degrees”."


def test_streamed_calls_of_tools_arrive_in_pieces(kimi):
    call = {"name": "weather", "arguments": {"city": "Zürich an der Limmat"}}
    queue(kimi, {"tool_calls": [call]}, {"tool_calls": [call], "reasoning": "so be it"})
    deltas = [one["choices"][0]["delta"] for one in events(ask(kimi, stream=True))]
    parts = [delta["tool_calls"][0]["function"]["arguments"] for delta in deltas
             if "tool_calls" in delta]  # fmt: skip
    assert len(parts) > 2
    assert json.loads("".join(parts)) == call["arguments"]
    stream = events(ask(kimi, "anthropic", stream=True))
    blocks = [
        one["content_block"]["type"] for one in stream if one["type"] == "content_block_start"
    ]
    assert blocks == ["thinking", "tool_use"]
    pieces = [one["delta"] for one in stream if one["type"] == "content_block_delta"]
    assert [piece["type"] for piece in pieces[:4]] == ["thinking_delta"] * 3 + ["signature_delta"]
    assert json.loads("".join(one["partial_json"] for one in pieces[4:])) == call["arguments"]
    assert stream[-2]["delta"]["stop_reason"] == "tool_use"


def test_pictures_are_seen_and_wrong_ones_refused(kimi):
    def with_picture(url):
        parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "so?"}]
        return ask(kimi, messages=[{"role": "user", "content": parts}])

    said = with_picture("data:image/png;base64,AAAA").json()["choices"][0]["message"]["content"]
    assert said == "I was sent one picture and: “so?”."
    refused = with_picture("/home/me/screen.png")
    assert refused.status_code == 400
    assert "unsupported image url" in refused.json()["error"]["message"]


WEATHER = {"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}}


def test_thinking_wants_to_see_earlier_thoughts(kimi):
    call = {"id": "a:0", "type": "function", "function": {"name": "a", "arguments": "{}"}}
    earlier = {"role": "assistant", "content": "", "tool_calls": [call]}
    messages = [*ASK["messages"], earlier, {"role": "tool", "tool_call_id": "a:0", "content": "1"}]
    refused = ask(kimi, messages=messages, thinking={"type": "enabled"})
    assert refused.status_code == 400
    assert "reasoning_content is missing" in refused.json()["error"]["message"]
    messages[1] = earlier | {"reasoning_content": "hm"}
    assert ask(kimi, messages=messages, thinking={"type": "enabled"}).status_code == 200


def test_models_are_listed(kimi):
    listed = kimi.http.get("/v1/models", headers={"authorization": f"Bearer {KEY}"}).json()
    assert "kimi-for-coding" in [one["id"] for one in listed["data"]]
    assert kimi.http.get("/v1/models").status_code == 401


def test_queued_errors_come_in_order_and_end(kimi):
    queue(kimi, {"status": 429, "error": "slow down", "retry_after_seconds": 3, "times": 2},
          {"status": 503})  # fmt: skip
    answers = [ask(kimi) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [429, 429, 503, 200]
    assert answers[0].headers["retry-after"] == "3"
    assert answers[0].json()["error"]["message"] == "slow down"


@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "whole"])
def test_an_answer_can_break_off(kimi, is_stream):
    queue(kimi, {"text": "one two three four", "cut_after_chunks": 2})
    with pytest.raises(httpx.RemoteProtocolError):
        ask(kimi, stream=is_stream)
    assert last_request(kimi)["was_cut"] is True
    assert last_request(kimi)["usage"] is None


def test_usage_can_be_left_out(kimi):
    queue(kimi, {"no_usage": True})
    assert "usage" not in ask(kimi).json()


def test_what_does_not_exist_gets_the_vendors_own_answer(kimi):
    answer = kimi.http.post("/v1/responses", json={}, headers={"user-agent": "x/1"})
    assert answer.status_code == 404
    assert answer.json()["error"] == "url.not_found"
    assert (answer.json()["url"], answer.json()["ua"]) == ("/v1/responses", "x/1")


@pytest.mark.parametrize(
    "spec",
    [{"fault": "melt"}, {"usage_at": "bottom"}, {"split_bytes": 0}, {"tool_calls": [{"x": 1}]}],
)
def test_a_fault_that_does_not_exist_is_refused(kimi, spec):
    assert queue(kimi, spec).status_code == 400


def test_an_unknown_field_of_an_answer_is_refused(kimi):
    answer = queue(kimi, {"txt": "x"})
    assert answer.status_code == 400
    assert "txt" in answer.json()["error"]
    assert queue(kimi, {"prompt_tokens": "many"}).status_code == 400


def test_a_record_says_who_asked_but_never_what(kimi, tmp_path_factory):
    ask(kimi, messages=[{"role": "user", "content": "my secret diary"}])
    record = last_request(kimi)
    assert (record["model"], record["stream"], record["status"]) == ("kimi-for-coding", False, 200)
    assert "authorization" in record["header_names"]
    assert record["fields"] == ["messages", "model"]
    assert record["headers"]["user-agent"].startswith("python-httpx/")
    assert record["usage"]["prompt_tokens"] == 4
    stored = b"".join(
        path.read_bytes() for path in tmp_path_factory.getbasetemp().rglob("kimi.sqlite3*")
    )
    assert b"my secret diary" not in stored
    assert KEY.encode() not in stored


def test_records_and_queued_answers_survive_a_kill(kimi):
    ask(kimi)
    queue(kimi, {"text": "after the restart"})
    kimi.restart(9)
    assert kimi.http.get("/_control/requests").json()["count"] == 1
    assert ask(kimi).json()["choices"][0]["message"]["content"] == "after the restart"
    assert kimi.rss_megabytes() < 50


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"origin": "https://evil.example"}, 403), ({"host": "evil.example"}, 421),
     ({"content-type": "text/plain"}, 415)],
    ids=["foreign origin", "wrong host", "simple request"],
)  # fmt: skip
def test_web_pages_of_others_are_kept_out(kimi, headers, status):
    allowed = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    body = json.dumps(ASK).encode()
    answer = kimi.http.post("/v1/chat/completions", content=body, headers=allowed | headers)
    assert answer.status_code == status


def test_the_control_endpoints_need_the_token(kimi):
    assert (
        kimi.http.get("/_control/requests", headers={"x-simulator-token": "x"}).status_code == 401
    )
    assert "Kimi simulator" in kimi.http.get("/").text
