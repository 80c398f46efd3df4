"""What people say to their assistant, and what it says, is nowhere to be found afterwards."""

import asyncio
import io
import json
import logging
from unittest import mock

import psycopg
import pytest
from psycopg import sql

from openclaw_web.core.logs import JsonFormatter
from openclaw_web.metering.models import TokenKind
from tests.gateway.conftest import UPSTREAM_KEY
from tests.gateway.upstream_server import (
    ANTHROPIC_STREAM,
    DONE,
    USAGE_CHUNK,
    anthropic_event,
    chunk,
    completion,
    raw,
    stream,
    whole,
)

SAID = "canary-said-by-the-person"
ANSWERED = "canary-answered-by-the-model"
TOOLED = "canary-in-a-tools-arguments"
HEADER = "canary-in-a-header"
TOKEN = f"ocp_{'canary' * 4}aa_{'canarycanary' * 4}"[:74]
ECHO = {"error": {"message": f"cannot read: {SAID} {ANSWERED}", "type": "invalid_request_error"}}
ASKED = {
    "messages": [{"role": "system", "content": SAID}, {"role": "user", "content": SAID}],
    "tools": [{"type": "function", "function": {"name": "t", "description": TOOLED}}],
    "user": SAID,
    "metadata": {"user_id": SAID},
}
CALL = {"index": 0, "id": "t:0", "function": {"name": "t", "arguments": json.dumps({"a": TOOLED})}}
CALLED = chunk(choices=[{"index": 0, "delta": {"tool_calls": [CALL]}}])


@pytest.fixture
def everything_logged():
    """Collect what all loggers say at every level, as we write logs."""
    collected = io.StringIO()
    handler = logging.StreamHandler(collected)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    known = [one for one in root.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    levels = {logger: logger.level for logger in (root, *known)}
    for logger in levels:
        logger.setLevel(logging.NOTSET)
    root.setLevel(logging.DEBUG)
    # The test's own client, and the access log that the proxy is never served with.
    for name in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
    root.addHandler(handler)
    yield collected
    root.removeHandler(handler)
    for logger, level in levels.items():
        logger.setLevel(level)


def everything_in(database):
    """Return all rows of all tables as text."""
    with psycopg.connect(database) as connection:
        tables = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.tables"
            " WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
            " AND table_type = 'BASE TABLE'"
        ).fetchall()
        rows = []
        for schema, table in tables:
            statement = sql.SQL("SELECT row_to_json(t)::text FROM {} AS t").format(
                sql.Identifier(schema, table)
            )
            rows += [row for (row,) in connection.execute(statement)]
    assert len(rows) > 5, "the requests left traces"
    return "\n".join(rows)


async def everything_remembered(redis):
    """Return all keys and values of Redis as text."""
    readers = {
        b"string": redis.get,
        b"hash": redis.hgetall,
        b"set": redis.smembers,
        b"list": lambda key: redis.lrange(key, 0, -1),
        b"zset": lambda key: redis.zrange(key, 0, -1, withscores=True),
        b"stream": redis.xrange,
    }
    found = []
    async for key in redis.scan_iter(count=1_000):
        kind = await redis.type(key)
        kind = kind if isinstance(kind, bytes) else kind.encode()
        found.append(f"{key} {await readers[kind](key)}")
    return "\n".join(found)


def everything_on_disk(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return b"\n".join(path.name.encode() + b" " + path.read_bytes() for path in files)


async def whole_answers(holder, upstream):
    upstream.will(whole(completion(ANSWERED, usage={"prompt_tokens": 9, "completion_tokens": 3})))
    assert ANSWERED in (await holder.chat(**ASKED)).text
    upstream.will(whole({"content": [{"type": "text", "text": ANSWERED}]}))
    assert ANSWERED in (await holder.message(**ASKED)).text


async def streams(holder, upstream):
    upstream.will(stream(chunk(ANSWERED), CALLED, USAGE_CHUNK, DONE))
    assert ANSWERED in (await holder.chat(**ASKED, stream=True)).text
    said = anthropic_event("content_block_delta", delta={"type": "text_delta", "text": ANSWERED})
    upstream.will(stream(ANTHROPIC_STREAM[0], said, *ANTHROPIC_STREAM[1:]))
    assert ANSWERED in (await holder.message(**ASKED, stream=True)).text


async def what_the_provider_refuses(holder, upstream):
    for status in (400, 401, 403, 404, 413, 429, 500, 503, 529):
        upstream.will(whole(ECHO, status=status), whole(ECHO, status=status))
        assert (await holder.chat(**ASKED)).status_code >= 400
        assert (await holder.message(**ASKED, stream=True)).status_code >= 400
        assert (await holder.chat()).status_code == 200, "it is not left alone"


async def what_the_provider_breaks(holder, upstream):
    nonsense = ANSWERED.encode()
    for answer in (
        raw(nonsense),
        raw(
            b"HTTP/1.1 200 " + nonsense + b"\r\nX: " + nonsense + b"\r\nContent-Length: 9\r\n\r\nx"
        ),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + nonsense),
        raw(b"HTTP/1.1 200 OK\r\n" + nonsense + b"\r\n\r\n"),
    ):
        upstream.will(answer)
        assert (await holder.chat(**ASKED)).status_code == 502
        assert (await holder.chat()).status_code == 200, "it is not left alone"
    upstream.will(stream(chunk(ANSWERED), cut=True))
    await holder.chat(**ASKED, stream=True)
    upstream.will(whole(b'{"usage": "' + nonsense))
    await holder.chat(**ASKED)


async def poison(holder, upstream):
    events = [
        b'data: {"usage": "canary-answered-by-the-model", "choices": 7}\n\n',
        b'data: {"choices": [{"usage": {"prompt_tokens": "canary-answered-by-the-model"}}]}\n\n',
        b'data: {"id": 7, "usage": {"prompt_tokens": 1e99, "completion_tokens": -5}}\n\n',
        b"data: " + b"[" * 5_000 + b'"usage"' + ANSWERED.encode() + b"\n\n",
        b"data: \xff\xfe " + ANSWERED.encode() + b' "usage"\n\n',
        chunk(ANSWERED, error={"message": SAID}),
        b'data: {"error": {"message": "' + SAID.encode() + b'"}}\n\n',
    ]
    upstream.will(stream(*events, DONE))
    assert ANSWERED in (await holder.chat(**ASKED, stream=True)).text


async def what_we_refuse(holder, upstream):
    before = len(upstream.seen)
    post = holder.client.post
    for body in (
        f'{{"messages": "{SAID}", "model": }}',
        f'{{"model": ["{SAID}"]}}',
        f'{{"model": "k2p5", "stream": "{SAID}"}}',
        f'"{SAID}"',
        f'{{"model": "{SAID}", "messages": []}}',
    ):
        assert (await post("/chat/completions", content=body)).status_code in {400, 404}
    strange = {"authorization": f"Bearer {TOKEN}", "x-api-key": TOKEN}
    assert (await post("/messages", json=ASKED, headers=strange)).status_code == 401
    assert (await post(f"/{SAID}?q={SAID}", json=ASKED)).status_code == 404
    assert len(upstream.seen) == before


async def a_failure_of_our_own(holder, upstream):
    before = len(upstream.seen)
    broken = mock.Mock(decode=mock.Mock(side_effect=RuntimeError("something of ours broke")))
    with mock.patch("openclaw_web.gateway.wire.ASKED", broken):
        assert (await holder.chat(**ASKED)).status_code == 500
    assert len(upstream.seen) == before


async def a_client_that_leaves(holder, upstream):
    go_on = asyncio.Event()
    upstream.will(stream(chunk(ANSWERED), chunk(ANSWERED), USAGE_CHUNK, DONE, before=go_on))
    body = {"model": "k2p5", "stream": True} | ASKED
    async with holder.client.stream("POST", "/chat/completions", json=body) as response:
        await anext(response.aiter_raw())
    go_on.set()


@pytest.fixture
def places(everything_logged, database, redis, tmp_path):
    """Return a function that reads all places where something could have been kept."""

    async def read():
        return {
            "logs": everything_logged.getvalue(),
            "files": repr(everything_on_disk(tmp_path)),
            "tables": everything_in(database),
            "Redis": await everything_remembered(redis),
        }

    return read


ACTS = (
    whole_answers,
    streams,
    what_the_provider_refuses,
    what_the_provider_breaks,
    poison,
    what_we_refuse,
    a_failure_of_our_own,
    a_client_that_leaves,
)
OVER = {"tokens_limit": 1, "tokens_used": 1}


async def test_no_prompt_no_answer_and_no_token_is_kept(
    make_holder, upstream, proxy, places, ledger
):
    holder = await make_holder(is_unthrottled=True, period={"tokens_limit": 10**9})
    for name in ("x-canary", "cookie", "user-agent"):
        holder.client.headers[name] = HEADER
    for act in ACTS:
        await act(holder, upstream)
    over = await make_holder(period=OVER)
    program = await make_holder(kind=TokenKind.API, box={"api_access": True}, period=OVER)
    assert (await over.chat(**ASKED, stream=True)).status_code == 200
    assert (await program.chat(**ASKED)).status_code == 429

    found = {f"{name}, before": text for name, text in (await places()).items()}
    assert len(await ledger(holder)) > 25
    found |= await places()
    await proxy.stop()
    found |= {f"{name}, after the end": text for name, text in (await places()).items()}
    assert '"level": "debug"' in found["logs"], "all levels are collected"
    assert "kimi-for-coding" in found["tables"], "all tables are read"
    words = {SAID, ANSWERED, TOOLED, HEADER, TOKEN, holder.clear, program.clear, UPSTREAM_KEY}
    words |= {clear[-30:] for clear in (holder.clear, program.clear, UPSTREAM_KEY)}
    kept = {
        (word, place, text[max(0, text.find(word) - 200) : text.find(word) + 200])
        for word in words
        for place, text in found.items()
        if word in text
    }
    assert kept == set()
