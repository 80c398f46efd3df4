"""The wire, byte by byte, without a network."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_web.gateway import wire
from openclaw_web.gateway.errors import BadRequestError, Form
from openclaw_web.gateway.streams import StreamReader
from openclaw_web.gateway.usage import Usage, read_usage
from openclaw_web.gateway.wire import MOST_LOOKED_THROUGH, read_request, with_model
from tests.gateway.upstream_server import ANTHROPIC_STREAM, DONE, USAGE_CHUNK, chunk, model_for

QUIET = b'{"model":"k2p5","stream":true}'
ASKING = b'{"model":"k2p5","stream":true,"stream_options":{"include_usage":true}}'


def request(body=QUIET, form=Form.OPENAI):
    return read_request(body, form, model_for)


def counted(usage):
    return (usage.prompt, usage.completion, usage.cached, usage.reasoning)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 1000])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_the_usage_chunk_is_left_out_however_the_bytes_are_cut(size, newline):
    data = (chunk("a") + chunk('"usage"') + USAGE_CHUNK + DONE).replace(b"\n", newline)
    expected = (chunk("a") + chunk('"usage"') + DONE).replace(b"\n", newline)
    reader = StreamReader(request())
    parts = [reader.feed(data[start : start + size]) for start in range(0, len(data), size)]
    assert b"".join(parts) + reader.close() == expected
    assert (reader.usage.prompt, reader.usage.completion) == (100, 20)
    assert reader.is_finished


@pytest.mark.parametrize("size", [1, 5, 64])
def test_an_asked_for_stream_passes_untouched_and_at_once(size):
    data = chunk("a") + USAGE_CHUNK + DONE
    reader = StreamReader(request(ASKING))
    for start in range(0, len(data), size):
        assert reader.feed(data[start : start + size]) == data[start : start + size]
    assert reader.close() == b""
    assert (reader.usage.completion, reader.is_finished) == (20, True)


@pytest.mark.parametrize("size", [1, 33])
def test_cumulative_counts_are_set_and_not_added(size):
    data = b"".join(ANTHROPIC_STREAM)
    reader = StreamReader(request(form=Form.ANTHROPIC))
    for start in range(0, len(data), size):
        reader.feed(data[start : start + size])
    reader.close()
    assert (reader.usage.prompt, reader.usage.completion, reader.usage.cached) == (100, 20, 60)


def test_each_kind_of_anthropics_input_is_set_by_itself():
    usage = Usage()
    started = (
        '{"message":{"usage":{"input_tokens":10,"cache_read_input_tokens":1000,'
        '"cache_creation_input_tokens":50,"output_tokens":1}}}'
    )
    read_usage(started.encode(), usage)
    assert (usage.prompt, usage.cached) == (1060, 1000)
    read_usage(b'{"usage":{"input_tokens":12,"output_tokens":7}}', usage)
    assert (usage.prompt, usage.cached, usage.completion) == (1062, 1000, 7)
    read_usage(b'{"usage":{"output_tokens":9}}', usage)
    assert (usage.prompt, usage.cached, usage.completion) == (1062, 1000, 9)
    read_usage(b'{"usage":{"cache_read_input_tokens":0,"output_tokens":9}}', usage)
    assert (usage.prompt, usage.cached) == (62, 0)


def test_zero_is_not_missing():
    usage = Usage()
    read_usage(b'{"usage":{"prompt_tokens":0,"completion_tokens":0}}', usage)
    assert (usage.prompt, usage.completion) == (0, 0)
    read_usage(b'{"usage":null}', usage)
    assert (usage.prompt, usage.completion) == (0, 0)


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b'{"usage":"much"}', b"[]", b'{"usage":{"prompt_tokens":"x"}}']
)
def test_nonsense_counts_as_nothing(body):
    usage = Usage()
    read_usage(body, usage)
    assert counted(usage) == counted(Usage())
    assert usage.provider_id is None


@pytest.mark.parametrize("count", [-1, 2**31, 2**63])
def test_a_count_that_cannot_be_true_is_none(count):
    usage = Usage()
    read_usage(b'{"usage":{"prompt_tokens":%d,"completion_tokens":%d}}' % (count, count), usage)
    assert (usage.prompt, usage.completion) == (None, None)


def test_a_usage_chunk_without_a_blank_line_after_it_is_left_out_too():
    reader = StreamReader(request())
    passed = reader.feed(chunk("a") + USAGE_CHUNK.rstrip()) + reader.close()
    assert passed == chunk("a")
    assert reader.usage.prompt == 100


@pytest.mark.parametrize(
    "body", [b'{"model":"k2p5","x":"\\ud800"}', b'{"x":[1,2],"model":"k2p5","n":1e400}']
)
def test_another_provider_gets_the_same_request_under_its_own_name(body):
    assert with_model(body, "other") == body.replace(b"k2p5", b"other")


def test_a_body_that_nests_too_deeply_is_a_bad_request():
    with pytest.raises(BadRequestError):
        request(b'{"model":"k2p5","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def test_other_stream_options_are_kept():
    body = b'{"model":"k2p5","stream":true,"stream_options":{"x":1},"n":1e400}'
    assert b'"stream_options":{"x":1,"include_usage":true}' in request(body).body
    assert b'"n":1e400' in request(body).body


def test_what_is_no_model_name_is_refused_and_a_long_one_is_not_kept_in_memory():
    before = wire._is_name.cache_info().currsize  # noqa: SLF001 - what stays is not seen otherwise
    for number in range(300):
        with pytest.raises(BadRequestError, match="not a model's name"):
            request(json.dumps({"model": f"{number:0100d}x"}).encode())
    assert wire._is_name.cache_info().currsize == before  # noqa: SLF001
    for name in ("", "-k", "k 2", "k2\n"):
        with pytest.raises(BadRequestError, match="not a model's name"):
            request(json.dumps({"model": name}).encode())


def test_the_last_of_two_models_is_the_one_that_is_checked_and_sent():
    read = request(b'{"model":"k3","model":"k2p5","stream":true}')
    assert read.asked_model == "k2p5"
    assert b"k3" not in read.body


def test_the_words_usage_and_done_in_a_text_mean_nothing():
    reader = StreamReader(request(ASKING))
    reader.feed(chunk('data: [DONE]\n"usage":{"prompt_tokens":5}'))
    assert counted(reader.usage) == counted(Usage())
    assert not reader.is_finished


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"k2p5","messages":[{"content":"a \\"model\\": \\"k3\\" b"}],"x":1.50}',
        b'  {\n "model" : "kimi-coding/k2p5",\n "top_p":0.10, "n": 1e0 }\n',
        b'{"messages":[],"z":{"a":1,"a":2},"model":"k2p5" ,"stream":false}',
        b'{"messages":["\\ud83d\\ude00 \xc3\xa9"], "model": "k2p5"}',
    ],
    ids=["first", "spaced", "last", "unicode"],
)
def test_only_the_models_name_is_another_one(body):
    expected = re.sub(rb'"model"\s*:\s*"[^"]*k2p5"', b'"model":"kimi-for-coding"', body)
    assert request(body).body == expected


def test_a_body_that_needs_nothing_is_the_same_object():
    body = b'{"messages":[],"model":"kimi-for-coding"}'
    assert request(body).body is body


def test_usage_is_asked_for_and_all_else_stays():
    found = request(b'{"stream": true, "model": "k2p5", "tools": [ ]}')
    asked = b'"stream_options":{"include_usage":true},"model":"kimi-for-coding"'
    assert found.body == b'{"stream": true, ' + asked + b', "tools": [ ]}'


def test_other_stream_options_stay():
    body = b'{"model":"k2p5","stream":true,"stream_options":{"a":1,"include_usage":false}}'
    sent = json.loads(request(body).body)
    assert sent["stream_options"] == {"a": 1, "include_usage": True}


def test_stream_options_of_null_ask_for_the_usage_all_the_same():
    body = b'{"model":"k2p5","stream":true,"stream_options":null}'
    sent = json.loads(request(body).body, object_pairs_hook=list)
    assert [value for name, value in sent if name == "stream_options"] == [
        [("include_usage", True)]
    ]


LARGE = b'"messages":["' + b"x" * MOST_LOOKED_THROUGH + b'"]'


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"k2p5","stream":true,"stream_options":{"include_usage":false}, %b}',
        b'{"tools":[{"model":"k3"}], %b ,"stream":true,"model":"k2p5"}',
        b'{"model":"k3", %b ,"stream":true,"mod\\u0065l":"k2p5"}',
    ],
)
def test_a_large_body_that_cannot_be_spliced_keeps_its_meaning(body):
    whole = body % LARGE
    expected = json.loads(whole) | {
        "model": "kimi-for-coding",
        "stream_options": {"include_usage": True},
    }
    assert json.loads(request(whole).body) == expected


def test_half_a_surrogate_pair_is_refused_only_where_a_large_body_has_to_be_written_anew():
    half = b'"user":"\\ud83d"'
    fields = b'{"model":"k2p5","stream":true,%b,%b}'
    assert half in request(fields % (half, LARGE)).body
    with pytest.raises(BadRequestError, match="half of a surrogate pair"):
        request(fields % (b'"stream_options":{},' + half, LARGE))


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        (b'{"model":"k3","model":"k2p5"}', "k2p5"),
        (b'{"messages":[],"model":"k3","model":"k2p5"}', "k2p5"),
        (b'{"\\u006dodel":"k3","messages":[],"model":"k2p5"}', "k2p5"),
        (b'{"model":"k2p5","\\u006dod\\u0065l":"k3"}', "k3"),
        (b'{"tools":[{"model":"k2p5"}],"mod\\u0065l":"k3"}', "k3"),
    ],
    ids=["twice", "twice later", "escaped first", "escaped last", "escaped and nested"],
)
def test_a_model_that_is_named_twice_cannot_be_two_models(body, asked):
    found = request(body)
    assert found.asked_model == asked
    named = [
        value for key, value in json.loads(found.body, object_pairs_hook=list) if key == "model"
    ]
    assert named == [found.model]


@given(
    st.dictionaries(
        st.sampled_from(["model", "stream", "a", "messages", "mod\u0435l", "tools"]),
        st.sampled_from(["k2p5", "k3", None, {"model": "k2p5"}, ['"model":"k3"'], 7]),
    ),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_any_order_of_fields_keeps_its_meaning(fields, indent, ascii_only):
    fields = {**fields, "model": "k2p5", "stream": True}
    body = json.dumps(fields, indent=indent, ensure_ascii=ascii_only).encode()
    expected = {**fields, "model": "kimi-for-coding", "stream_options": {"include_usage": True}}
    assert json.loads(request(body).body) == expected


def openai_event(text, field="content"):
    """Return an event as Kimi sends them: some 200 bytes around a word."""
    choice = {"index": 0, "delta": {field: text}, "finish_reason": None}
    frame = {"id": "chatcmpl-" + "7" * 32, "object": "chat.completion.chunk", "created": 1}
    event = {**frame, "model": "kimi-for-coding", "choices": [choice], "system_fingerprint": "f"}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


@pytest.mark.parametrize("count", [1, 26, 500])
@pytest.mark.parametrize("field", ["content", "reasoning_content"])
def test_a_cut_stream_is_guessed_by_its_words_and_not_by_their_frames(count, field):
    reader = StreamReader(request(ASKING))
    for _ in range(count):
        reader.feed(openai_event("word", field))
    assert count <= reader.estimated_completion() <= count + 1


def test_long_pieces_count_by_their_characters():
    reader = StreamReader(request(ASKING))
    for _ in range(40):
        reader.feed(openai_event("x" * 400))
    assert reader.estimated_completion() == pytest.approx(4_000, rel=0.02)


def test_a_cut_anthropic_stream_is_guessed_too():
    reader = StreamReader(request(form=Form.ANTHROPIC))
    for text in ("one", "two", "three"):
        event = {"type": "content_block_delta", "index": 0, "delta": {"text": text}}
        reader.feed(b"event: content_block_delta\ndata: " + json.dumps(event).encode() + b"\n\n")
    assert 2 <= reader.estimated_completion() <= 4


@pytest.mark.parametrize("data", [b"", b"data: [DONE]\n\n", b"data: [[[[\n\n", b": hi\n\n"])
def test_events_without_a_word_are_guessed_as_next_to_nothing(data):
    reader = StreamReader(request(ASKING))
    reader.feed(data)
    assert reader.estimated_completion() <= 1


def test_what_cannot_be_read_counts_by_its_bytes():
    reader = StreamReader(request(ASKING))
    for _ in range(10):
        reader.feed(b"\x1f\x8b\xff\x00" * 100)
    assert reader.estimated_completion() == 1_000
