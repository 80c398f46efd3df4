"""Who is asking: what a proxy remembers of tokens, and what it forgets when there are many."""

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.core.database import session_scope
from openclaw_web.gateway import credentials
from openclaw_web.gateway.credentials import Directory
from openclaw_web.metering import service as metering
from tests.factories import make_box, make_period, make_subscription


async def a_token(session: AsyncSession) -> str:
    subscription = await make_subscription(session)
    await make_period(session, subscription=subscription)
    box = await make_box(session, subscription=subscription)
    issued = await metering.issue_token(session, customer_id=box.customer_id, box_id=box.id)
    return issued.clear


async def test_a_full_directory_still_knows_who_has_just_come(database, monkeypatch):
    assert database
    monkeypatch.setattr(credentials, "MAX_ENTRIES", 1)
    async with session_scope() as session:
        tokens = [await a_token(session) for _ in range(3)]
    directory = Directory()
    for token in tokens:
        caller, account = await directory.find(token)
        assert account.customer_id == caller.customer_id
        assert account.is_entitled
