"""A customer hears at 75, 90 and 100 %, once in a period, whoever looks how often."""

import asyncio

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from openclaw_web.accounts import mails
from openclaw_web.accounts.mails import MailKind
from openclaw_web.accounts.models import Customer, Notice, OutboxMail
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.metering import notices, tasks
from openclaw_web.metering import service as metering
from openclaw_web.metering.models import UsageMonthly
from tests.factories import make_period

pytestmark = pytest.mark.usefixtures("redis")


@pytest.fixture
async def period(session):
    row = await make_period(session, tokens_limit=1_000)
    await session.commit()
    return row


async def use(period, tokens, **values):
    async with session_scope() as session:
        await session.exec(
            sa.update(UsageMonthly)
            .where(col(UsageMonthly.id) == period.id)
            .values(tokens_used=tokens, **values)
        )


async def sent():
    async with session_scope() as session:
        found = await session.exec(select(OutboxMail).order_by(col(OutboxMail.created_at)))
        return [mail.kind for mail in found]


@pytest.mark.parametrize(
    ("used", "limit", "expected"),
    [
        (749, 1000, []),
        (750, 1000, [MailKind.LIMIT_75]),
        (899, 1000, [MailKind.LIMIT_75]),
        (900, 1000, [MailKind.LIMIT_75, MailKind.LIMIT_90]),
        (1000, 1000, [MailKind.LIMIT_75, MailKind.LIMIT_90, MailKind.LIMIT_100]),
        (5, 1, [MailKind.LIMIT_75, MailKind.LIMIT_90, MailKind.LIMIT_100]),
    ],
)
def test_a_mark_is_reached_to_the_token(used, limit, expected):
    assert notices.kinds_reached(used, limit) == expected


async def test_each_mark_is_told_once(period):
    told = []
    for used in (749, 750, 800, 900, 950, 1000, 1200):
        await use(period, used)
        told.append(await tasks.send_limit_notices())
        assert await tasks.send_limit_notices() == 0
    assert told == [0, 1, 0, 1, 0, 1, 0]
    assert await sent() == ["limit_75", "limit_90", "limit_100"]


async def test_whoever_passes_all_marks_at_once_gets_one_mail(period):
    await use(period, 2_000)
    assert await tasks.send_limit_notices() == 1
    assert await sent() == ["limit_100"]
    async with session_scope() as session:
        assert len((await session.exec(select(Notice))).all()) == 3


async def test_two_workers_send_one_mail(period):
    await use(period, 760)
    told = await asyncio.gather(*(tasks.send_limit_notices() for _ in range(4)))
    assert sum(told) == 1
    assert await sent() == ["limit_75"]


async def test_the_next_period_has_notices_of_its_own(session, period):
    await use(period, 800)
    await tasks.send_limit_notices()
    now = await business_now(session)
    following = await metering.open_period(
        session,
        customer_id=period.customer_id,
        period_start=now,
        period_end=period.period_end,
        tokens_limit=100,
    )
    await session.commit()
    assert await tasks.send_limit_notices() == 0
    await use(following, 80)
    assert await tasks.send_limit_notices() == 1
    assert await sent() == ["limit_75", "limit_75"]


async def test_nobody_hears_of_a_provisional_period_or_after_they_are_gone(session, period):
    await use(period, 990, is_provisional=True)
    assert await tasks.send_limit_notices() == 0
    await use(period, 990, is_provisional=False)
    customer = await session.get(Customer, period.customer_id)
    customer.deleted_at = customer.created_at
    await session.commit()
    assert await tasks.send_limit_notices() == 0


async def test_the_mail_says_how_much_and_until_when(period):
    await use(period, 912)
    await tasks.send_limit_notices()
    async with session_scope() as session:
        mail = (await session.exec(select(OutboxMail))).one()
    letter = mails.write(mail.kind, mail.payload)
    assert "912 of 1,000 tokens" in letter.paragraphs[0]
    assert letter.subject == "90 % of your tokens are used"
    assert letter.address.endswith("/usage")
