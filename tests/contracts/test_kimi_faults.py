"""The model API breaks in every way that a test may ask for, and goes on with the next request."""

import contextlib
import gzip
import json
import socket

import httpx
import pytest

from tests.contracts.simulator_process import eventually, running, secret_file

KEY = "sk-kimi-of-a-test"
FORMS = {"openai": "chat/completions", "anthropic": "messages"}
BODY = {
    "model": "kimi-for-coding",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hi"}],
}
LAST_EVENTS = {"openai": "[DONE]", "anthropic": "message_stop"}


@pytest.fixture(scope="module")
def kimi(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kimi")
    key_file = secret_file(folder / "key", KEY)
    with running("kimi", folder / "run", "--key-file", str(key_file)) as simulator:
        simulator.http.headers["authorization"] = f"Bearer {KEY}"
        yield simulator


@pytest.fixture(autouse=True)
def _empty(kimi):
    kimi.http.delete("/_control/answers")
    kimi.http.delete("/_control/requests")


def queue(kimi, **answer):
    kimi.http.post("/_control/answers", json={"answers": [answer]}).raise_for_status()


def ask(kimi, form="openai", **more):
    return kimi.http.post(f"/v1/{FORMS[form]}", json=BODY | more)


def last_request(kimi):
    """Return the newest record; it is written when the connection has ended."""
    found = eventually(lambda: kimi.http.get("/_control/requests").json()["requests"])
    return found[0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("fault", ["close", "reset"])
def test_a_connection_ends_without_an_answer(kimi, form, is_stream, fault):
    queue(kimi, fault=fault)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        ask(kimi, form, stream=is_stream)
    record = last_request(kimi)
    assert (record["fault"], record["was_cut"], record["usage"]) == (fault, True, None)
    assert ask(kimi, form).status_code == 200


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fault", ["close", "reset"])
def test_a_stream_is_cut_midway(kimi, form, fault):
    queue(kimi, fault=fault, after_chunks=2, text="one two three four")
    heard = []
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        listen(kimi, form, heard)
    assert b" three" not in b"".join(heard)
    assert last_request(kimi)["was_cut"] is True


def listen(kimi, form, heard):
    body = BODY | {"stream": True}
    with kimi.http.stream("POST", f"/v1/{FORMS[form]}", json=body) as answer:
        assert answer.status_code == 200
        heard.extend(answer.iter_bytes())


def test_a_reset_is_a_reset_and_no_end(kimi):
    """Only a socket tells the two apart."""
    queue(kimi, fault="reset")
    body = json.dumps(BODY)
    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{kimi.port}\r\n"
        f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    )
    with socket.create_connection(("127.0.0.1", kimi.port), timeout=20) as connection:
        connection.sendall(request.encode())
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


@pytest.mark.parametrize("form", FORMS)
def test_a_stream_ends_as_if_that_were_all(kimi, form):
    queue(kimi, fault="end", after_chunks=1, text="one two")
    answer = ask(kimi, form, stream=True)
    assert answer.status_code == 200
    assert "one" in answer.text
    assert LAST_EVENTS[form] not in answer.text


@pytest.mark.parametrize("form", FORMS)
def test_a_stream_says_that_it_failed(kimi, form):
    queue(kimi, fault="error", after_chunks=1, text="one two")
    answer = ask(kimi, form, stream=True)
    last = answer.text.strip().splitlines()[-1]
    assert json.loads(last.removeprefix("data: "))["error"]["message"]
    assert ("event: error" in answer.text) is (form == "anthropic")
    assert LAST_EVENTS[form] not in answer.text


@pytest.mark.parametrize("form", FORMS)
def test_nonsense_among_the_events_is_followed_by_the_rest(kimi, form):
    queue(kimi, fault="malformed", after_chunks=1, text="one two")
    answer = ask(kimi, form, stream=True)
    assert b"\xff\xfe" in answer.content
    assert LAST_EVENTS[form] in answer.text
    queue(kimi, fault="malformed")
    with pytest.raises(json.JSONDecodeError):
        ask(kimi, form).json()


@pytest.mark.parametrize("after_chunks", [None, 1], ids=["before the head", "midway"])
@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "whole"])
def test_an_answer_hangs_until_the_client_leaves(kimi, is_stream, after_chunks):
    queue(kimi, fault="hang", after_chunks=after_chunks, text="one two")
    waiting = httpx.Timeout(20, read=0.2)
    with contextlib.suppress(httpx.ReadTimeout):
        kimi.http.post("/v1/chat/completions", json=BODY | {"stream": is_stream}, timeout=waiting)
        pytest.fail("an answer came")
    record = last_request(kimi)
    assert (record["fault"], record["was_cut"]) == ("hang", True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "whole"])
def test_a_body_may_be_packed_although_nobody_asked_for_it(kimi, form, is_stream):
    queue(kimi, gzip=True, text="grüße")
    body = BODY | {"stream": is_stream}
    headers = {"accept-encoding": "identity"}
    with kimi.http.stream("POST", f"/v1/{FORMS[form]}", json=body, headers=headers) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        packed = b"".join(answer.iter_raw())
    said = json.dumps("grüße") if is_stream else "grüße"
    assert said.strip('"') in gzip.decompress(packed).decode()


@pytest.mark.parametrize("size", [1, 2, 7])
def test_events_and_letters_may_be_cut_at_every_byte(kimi, size):
    queue(kimi, split_bytes=size, tool_calls=[{"name": "say", "arguments": {"text": "grüße 世界"}}])
    with kimi.http.stream("POST", "/v1/chat/completions", json=BODY | {"stream": True}) as answer:
        whole = b"".join(answer.iter_raw())
    assert whole.endswith(b"data: [DONE]\n\n")
    lines = [line[6:] for line in whole.splitlines() if line.startswith(b"data: {")]
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines]
    parts = [one["tool_calls"][0]["function"]["arguments"] for one in deltas if "tool_calls" in one]
    assert json.loads("".join(parts)) == {"text": "grüße 世界"}


@pytest.mark.parametrize("form", FORMS)
def test_usage_may_be_missing_or_nothing(kimi, form):
    queue(kimi, no_usage=True)
    queue(kimi, prompt_tokens=0, completion_tokens=0)
    options = {"stream": True} | (
        {"stream_options": {"include_usage": True}} if form == "openai" else {}
    )
    assert '"usage"' not in ask(kimi, form, **options).text
    zero = "completion_tokens" if form == "openai" else "output_tokens"
    assert f'"{zero}": 0' in ask(kimi, form, **options).text


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 429, 500, 503, 529])
def test_any_status_comes_with_the_vendors_body(kimi, form, status):
    queue(kimi, status=status, retry_after_seconds=7)
    answer = ask(kimi, form, stream=True)
    assert (answer.status_code, answer.headers["retry-after"]) == (status, "7")
    assert set(answer.json()["error"]) == {"message", "type"}
    assert ("type" in answer.json()) is (form == "anthropic")
