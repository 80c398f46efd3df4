"""At the limit the assistant says so politely; a program gets a clean 429."""

import asyncio
from datetime import timedelta

import pytest
from sqlmodel import col, select

from openclaw_web.billing.models import Hold, SubscriptionStatus
from openclaw_web.billing.tiers import plan_of
from openclaw_web.core.clock import real_now
from openclaw_web.core.database import session_scope
from openclaw_web.gateway import credentials
from openclaw_web.integrations import redis
from openclaw_web.metering.limits import Bucket
from openclaw_web.metering.meters import Meters
from openclaw_web.metering.models import TokenKind, UsageMonthly
from tests.gateway.upstream_server import chunk, completion, stream, whole

OVER = {"tokens_limit": 1000, "tokens_used": 1000}


async def test_a_streaming_box_is_told_politely(make_holder, upstream, ledger):
    holder = await make_holder(period=OVER)
    response = await holder.chat(stream=True, stream_options={"include_usage": True})
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream"
    assert b"I have reached my monthly limit. It resets on " in response.content
    assert b'"total_tokens":0' in response.content
    assert response.content.endswith(b"data: [DONE]\n\n")
    assert upstream.seen == []
    assert await ledger(holder) == []


async def test_a_streaming_box_is_told_politely_in_the_anthropic_form(make_holder):
    holder = await make_holder(period=OVER)
    response = await holder.message(stream=True)
    assert response.status_code == 200
    assert response.content.startswith(b"event: message_start\n")
    assert b"I have reached my monthly limit." in response.content
    assert response.content.endswith(b'data: {"type":"message_stop"}\n\n')


async def test_a_box_that_does_not_stream_is_told_politely_too(make_holder, upstream, ledger):
    holder = await make_holder(period=OVER)
    openai, anthropic = await holder.chat(), await holder.message()
    assert (openai.status_code, anthropic.status_code) == (200, 200)
    said = openai.json()["choices"][0]["message"]["content"]
    assert said.startswith("I have reached my monthly limit.")
    assert anthropic.json()["content"] == [{"type": "text", "text": said}]
    assert upstream.seen == []
    assert await ledger(holder) == []


@pytest.mark.parametrize("is_stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ({"limit_behaviour": "error"}, TokenKind.BOX),
        ({"api_access": True}, TokenKind.API),
    ],
    ids=["the box wants errors", "a program"],
)
async def test_others_get_a_429_that_says_when_it_ends(make_holder, box, kind, is_stream):
    holder = await make_holder(period=OVER, box=box, kind=kind)
    response = await holder.chat(stream=is_stream)
    assert response.status_code == 429
    message = response.json()["error"]["message"]
    assert message.startswith("monthly usage limit reached, resets on ")
    assert int(response.headers["retry-after"]) > 3600


async def test_a_suspended_customer_is_told_politely(make_holder, upstream):
    holder = await make_holder(subscription={"status": SubscriptionStatus.SUSPENDED})
    streamed, whole_answer = await holder.chat(stream=True), await holder.chat()
    assert (streamed.status_code, whole_answer.status_code) == (200, 200)
    assert b"I am paused" in streamed.content
    assert b"I am paused" in whole_answer.content
    assert upstream.seen == []


async def test_a_suspended_customers_program_is_refused(make_holder, upstream):
    holder = await make_holder(
        subscription={"status": SubscriptionStatus.SUSPENDED},
        box={"api_access": True},
        kind=TokenKind.API,
    )
    response = await holder.chat()
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "subscription_inactive"
    assert upstream.seen == []


async def test_each_reason_to_pause_is_said_in_the_boxs_language(make_holder, session, upstream):
    paused = await make_holder(box={"user_paused_at": real_now(), "language": "pt"})
    held = await make_holder(box={"language": "fr"})
    session.add(Hold(customer_id=held.customer_id, kind="dispute", reason="the bank asked"))
    await session.commit()
    said = [(await one.chat()).json()["choices"][0]["message"]["content"] for one in (paused, held)]
    assert said[0].startswith("Estou em pausa, como foi pedido.")
    assert said[1].startswith("Je suis en pause, le temps qu")
    assert (await held.message(stream=True)).text.count("en pause") == 1
    assert upstream.seen == []


async def test_a_held_box_that_wants_errors_gets_one(make_holder, session, upstream):
    holder = await make_holder(box={"limit_behaviour": "error"})
    session.add(Hold(customer_id=holder.customer_id, kind="dispute", reason="the bank asked"))
    await session.commit()
    response = await holder.message(stream=True)
    assert (response.status_code, response.json()["error"]["type"]) == (403, "permission_error")
    assert upstream.seen == []


async def test_the_limit_holds_before_the_database_knows(make_holder, upstream, proxy):
    holder = await make_holder(period={"tokens_limit": 4_000}, box={"limit_behaviour": "error"})
    upstream.will(whole(completion(usage={"prompt_tokens": 4_000, "completion_tokens": 1})))
    assert (await holder.chat()).status_code == 200
    assert (await holder.chat()).status_code == 429
    await proxy.flush()
    assert (await holder.chat()).status_code == 429


async def test_what_is_under_way_is_held_back_and_given_back(make_holder, upstream):
    holder = await make_holder(period={"tokens_limit": 1_000})
    go_on = asyncio.Event()
    upstream.will(stream(chunk("a"), b"data: [DONE]\n\n", before=go_on))
    running = asyncio.create_task(holder.chat(stream=True, max_tokens=5_000))
    await upstream.until_seen(1)
    waiting = await holder.chat()
    assert (waiting.status_code, waiting.headers["retry-after"]) == (429, "2")
    go_on.set()
    await running
    assert (await holder.chat()).status_code == 200


async def test_too_many_at_once_are_refused_unless_unthrottled(make_holder, upstream):
    for is_unthrottled, expected in ((False, 429), (True, 200)):
        holder = await make_holder(is_unthrottled=is_unthrottled)
        go_on = asyncio.Event()
        plan = plan_of("starter")
        upstream.will(
            *[stream(chunk("a"), chunk("b"), before=go_on) for _ in range(plan.parallel_requests)]
        )
        before = len(upstream.seen)
        running = [
            asyncio.create_task(holder.chat(stream=True)) for _ in range(plan.parallel_requests)
        ]
        await upstream.until_seen(before + plan.parallel_requests)
        response = await holder.chat()
        assert response.status_code == expected
        go_on.set()
        await asyncio.gather(*running)


@pytest.mark.interpreted
async def test_too_fast_is_refused_with_the_time_to_wait(holder, monkeypatch):
    assert (await holder.chat()).status_code == 200
    monkeypatch.setattr(Bucket, "take", lambda *_arguments: 1.2)
    response = await holder.chat()
    assert (response.status_code, response.headers["retry-after"]) == (429, "2")


async def test_a_missing_period_is_opened_at_the_first_request(make_holder, session):
    holder = await make_holder(period=False)
    assert (await holder.chat()).status_code == 200
    (period,) = (await session.exec(select(UsageMonthly))).all()
    assert (period.tokens_limit, period.is_provisional) == (10_000_000, False)


async def test_between_periods_a_provisional_one_is_opened(make_holder, session, monkeypatch):
    start = real_now() - timedelta(days=40)
    end = start + timedelta(days=31)
    holder = await make_holder(
        subscription={"current_period_start": start, "current_period_end": end}
    )
    assert (await holder.chat()).status_code == 200
    monkeypatch.setattr(credentials, "FRESH_SECONDS", 0.0)
    assert (await holder.chat()).status_code == 200
    in_order = select(UsageMonthly).order_by(col(UsageMonthly.period_start))
    periods = (await session.exec(in_order)).all()
    assert [period.is_provisional for period in periods] == [False, True]
    assert periods[1].period_start == end
    assert periods[1].tokens_limit == plan_of("starter").tokens_limit // 4


async def test_a_refusal_says_what_may_come_and_when(make_holder, upstream):
    holder = await make_holder()
    used = {"prompt_tokens": 500_000, "completion_tokens": 1}
    upstream.will(whole(completion(usage=used)))
    assert (await holder.chat()).status_code == 200
    response = await holder.chat()
    assert response.status_code == 429
    assert 1 <= int(response.headers["retry-after"]) <= 14
    assert response.headers["x-ratelimit-limit-tokens"] == "400000"
    assert response.headers["x-ratelimit-remaining-tokens"] == "0"
    assert {"x-ratelimit-remaining-requests", "x-ratelimit-reset-tokens"} <= set(response.headers)


async def test_an_agent_sees_what_another_proxy_has_settled(holder, upstream, database):
    assert database
    upstream.will(whole(completion(usage={"prompt_tokens": 300, "completion_tokens": 1})))
    await holder.chat()
    other = Meters()
    await other.start()
    period = (await holder.client.get("/key")).json()
    async with session_scope() as session:
        start = (await session.exec(select(UsageMonthly.period_start))).one()
    async with asyncio.timeout(20):
        while await other.used(holder.customer_id, start, known=0) != 301:
            pass
    await other.stop()
    assert (period["used"], period["left"]) == (301, period["limit"] - 301)


async def test_without_redis_near_the_limit_agents_are_asked_to_wait(
    make_holder, upstream, monkeypatch
):
    async def broken(*_arguments, **_options):
        raise TimeoutError

    holder = await make_holder(period={"tokens_limit": 1_000})
    monkeypatch.setattr(redis, "run_script", broken)
    go_on = asyncio.Event()
    upstream.will(stream(chunk("a"), b"data: [DONE]\n\n", before=go_on))
    running = asyncio.create_task(holder.chat(stream=True))
    await upstream.until_seen(1)
    waiting = await holder.chat()
    assert (waiting.status_code, waiting.headers["retry-after"]) == (503, "2")
    go_on.set()
    assert (await running).status_code == 200


@pytest.mark.parametrize(("used", "said"), [(8_990_000, None), (9_150_000, "91%")])
async def test_an_answer_close_to_the_limit_says_so_in_its_head(make_holder, upstream, used, said):
    holder = await make_holder(period={"tokens_limit": 10_000_000, "tokens_used": used})
    upstream.will(whole(completion()))
    response = await holder.chat()
    assert response.status_code == 200
    warning = response.headers.get("x-token-warning")
    assert warning == (said and f"{said} of the monthly limit is used")
