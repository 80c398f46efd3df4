"""The invariants of money: each can fail, and a customer with whom all is well breaks none."""

import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.billing import invariants, sabotage
from openclaw_web.billing.invariants import Invariant
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import engine
from openclaw_web.core.errors import NotFoundError


async def test_every_sabotage_is_noticed_and_every_question_can_fail(database):
    assert database
    asked = set()
    for name in sabotage.NAMES:
        async with AsyncSession(engine()) as session:
            found = await sabotage.check_broken(session, name)
            await session.rollback()
        assert sabotage.NOTICED_BY[name] in {one.invariant for one in found}, name
        asked |= {one.question for one in found if one.question}
    assert asked == set(invariants.QUESTIONS)
    assert set(sabotage.NOTICED_BY.values()) == set(Invariant) == set(invariants.SENTENCES)


async def test_a_sabotage_leaves_nothing_behind(session):
    await sabotage.check_broken(session, "two-live")
    await session.rollback()
    assert await invariants.check(session, await business_now(session)) == []


async def test_an_unknown_sabotage_is_refused(session):
    with pytest.raises(NotFoundError, match="never-delivered"):
        await sabotage.check_broken(session, "coffee")
