"""A proxy tells of its own spool: in a cluster nobody else sees its volume."""

import asyncio

from sqlmodel import select

from openclaw_web.core.database import session_scope
from openclaw_web.gateway import alerts
from openclaw_web.gateway.front import Proxy
from openclaw_web.jobs.models import Alert
from openclaw_web.metering import replaying


async def open_codes():
    async with session_scope() as session:
        found = await session.exec(select(Alert.code).where(Alert.resolved_at == None))  # noqa: E711
        return set(found.all())


async def until_open(codes) -> None:
    async with asyncio.timeout(30):
        while await open_codes() != codes:  # noqa: ASYNC110 - it is another task's doing
            await asyncio.sleep(0.01)


async def test_a_proxy_whose_disk_is_full_says_so_until_there_is_room(
    database, redis, proxy_settings, monkeypatch
):
    assert database
    assert redis
    assert proxy_settings
    monkeypatch.setattr(alerts, "SPOOL_SECONDS", 0.01)
    monkeypatch.setattr(replaying, "LEAST_ROOM_BYTES", 1 << 60)
    proxy = Proxy()
    await proxy.start()
    try:
        await until_open({replaying.FULL})
        monkeypatch.setattr(replaying, "LEAST_ROOM_BYTES", 0)
        await until_open(set())
    finally:
        await proxy.stop()
