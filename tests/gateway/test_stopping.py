"""A proxy that is asked to end does so in time, tells its clients, and leaves nothing uncounted."""

import asyncio

import pytest
from sqlmodel import select

from openclaw_web.core.database import session_scope
from openclaw_web.gateway import stopping
from openclaw_web.local import children
from openclaw_web.metering.models import UsageEvent, UsageEventMeta
from tests.gateway.conftest import WAYS
from tests.gateway.upstream_server import DONE, USAGE_CHUNK, chunk, stream

KUBERNETES_SECONDS = 30  # its default, and what docs/operations.md asks for
AT_ONCE = stopping.Budget(streams=0, drains=0.05, flush=5.0, rest=5.0)
BODIES = {
    "/chat/completions": {"model": "k2p5", "messages": [], "stream": True},
    "/messages": {"model": "k2p5", "messages": [], "max_tokens": 9, "stream": True},
}


@pytest.fixture(params=WAYS)
def way(request):
    return request.param


async def stop(proxy, within=AT_ONCE):
    """End as uvicorn does: its tasks are cancelled, then the app is asked to end."""
    for task in asyncio.all_tasks():
        if "watch_over" in repr(task) or "run_asgi" in repr(task):
            task.cancel()
    await asyncio.sleep(0)
    await proxy.stop(within)


async def counted():
    async with session_scope() as session:
        rows = select(UsageEvent, UsageEventMeta).where(UsageEvent.id == UsageEventMeta.event_id)
        return list((await session.exec(rows)).all())


def test_the_whole_end_fits_into_what_kubernetes_allows():
    assert stopping.PRODUCTION.total < KUBERNETES_SECONDS - 2
    assert stopping.LAPTOP.total < children.GRACE_SECONDS


@pytest.mark.parametrize("path", BODIES)
async def test_a_stream_that_outlasts_the_end_gets_an_error_event_and_is_counted(
    holder, upstream, proxy, path
):
    never = asyncio.Event()
    upstream.will(stream(chunk("word " * 40), USAGE_CHUNK, DONE, before=never))
    async with holder.client.stream("POST", path, json=BODIES[path]) as response:
        parts = response.aiter_raw()
        got = await anext(parts)
        ending = asyncio.create_task(stop(proxy))
        async for part in parts:  # a reset would raise
            got += part
        await ending
    assert b'"message":"The proxy is being restarted; ask again."' in got
    assert (b"event: error\n" in got) is (path == "/messages")
    ((event, meta),) = await counted()
    assert (meta.estimated, meta.outcome) == (True, "abandoned")
    assert event.completion_tokens > 10
    never.set()


async def test_what_has_not_begun_is_refused_in_its_form_and_counted(holder, upstream, proxy):
    never = asyncio.Event()

    async def late(_, writer):
        await never.wait()
        writer.close()

    upstream.will(late)
    asking = asyncio.create_task(holder.chat())
    await upstream.until_seen(1)
    await stop(proxy)
    answer = await asking
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "restarting")
    assert answer.headers["retry-after"]
    ((_, meta),) = await counted()
    assert meta.estimated
    never.set()


async def test_an_answer_that_ends_within_the_budget_is_counted_exactly(holder, upstream, proxy):
    go_on = asyncio.Event()
    upstream.will(stream(chunk("a"), USAGE_CHUNK, DONE, before=go_on))
    body = BODIES["/chat/completions"]
    async with holder.client.stream("POST", "/chat/completions", json=body) as response:
        await anext(response.aiter_raw())
        ending = asyncio.create_task(stop(proxy, stopping.PRODUCTION))
        await asyncio.sleep(0)
        go_on.set()
        await ending
    ((event, meta),) = await counted()
    assert (event.total_tokens, meta.estimated) == (120, False)
