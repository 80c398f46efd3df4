"""Events that come together: one commit for many, and nobody waits for another's fault."""

import asyncio

import pytest
from sqlalchemy.exc import DataError, OperationalError
from sqlmodel import col, select

from openclaw_web.billing import inbox as billing_inbox
from openclaw_web.billing.inbox import Inbox
from openclaw_web.core.database import session_scope
from openclaw_web.jobs.inbox import Received
from openclaw_web.jobs.models import WebhookEvent

pytestmark = pytest.mark.usefixtures("database", "redis")


def event(name, **payload):
    return Received(
        provider="stripe", event_id=f"evt_{name}", event_type="invoice.paid", payload=payload
    )


async def stored():
    async with session_scope() as session:
        rows = await session.exec(
            select(WebhookEvent.event_id).order_by(col(WebhookEvent.event_id))
        )
        return list(rows)


@pytest.fixture
def commits(monkeypatch):
    """Return how many events each commit had."""
    sizes = []
    keep = billing_inbox.inbox.keep

    async def count(session, events):
        sizes.append(len(events))
        return await keep(session, events)

    monkeypatch.setattr(billing_inbox.inbox, "keep", count)
    return sizes


async def test_what_comes_together_is_committed_together(commits):
    inbox = Inbox()
    answers = await asyncio.gather(*(inbox.keep(event(f"{number:02d}")) for number in range(30)))
    assert answers == [True] * 30
    assert len(await stored()) == 30
    assert commits == [30]


async def test_the_same_event_is_new_once():
    inbox = Inbox()
    answers = await asyncio.gather(*(inbox.keep(event("same")) for _ in range(3)))
    assert sorted(answers) == [False, False, True]
    assert await inbox.keep(event("same")) is False
    assert await stored() == ["evt_same"]


async def test_one_that_the_database_refuses_fails_alone():
    inbox = Inbox()
    answers = await asyncio.gather(
        inbox.keep(event("a")),
        inbox.keep(event("bad", text="\x00")),
        inbox.keep(event("c")),
        return_exceptions=True,
    )
    assert [answers[0], answers[2]] == [True, True]
    assert isinstance(answers[1], DataError)
    assert await stored() == ["evt_a", "evt_c"]


async def test_without_a_database_everybody_is_told_and_the_next_is_tried_again(monkeypatch):
    inbox = Inbox()
    keep = billing_inbox.inbox.keep

    async def away(_session, _events):
        raise OperationalError("INSERT", {}, Exception("the database is away"))

    monkeypatch.setattr(billing_inbox.inbox, "keep", away)
    answers = await asyncio.gather(
        inbox.keep(event("a")), inbox.keep(event("b")), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [OperationalError, OperationalError]
    monkeypatch.setattr(billing_inbox.inbox, "keep", keep)
    assert await inbox.keep(event("a")) is True


async def test_who_hangs_up_holds_nobody_up():
    inbox = Inbox()
    leaving = asyncio.create_task(inbox.keep(event("leaver")))
    staying = asyncio.create_task(inbox.keep(event("stayer")))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying is True
    assert await stored() == ["evt_leaver", "evt_stayer"]
