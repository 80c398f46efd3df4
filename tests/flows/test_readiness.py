"""What a load balancer asks of a web process."""

import httpx
import pytest

from openclaw_web.api import make_api
from openclaw_web.core.database import close_database, open_database

AWAY = "postgresql://nobody@127.0.0.1:9/nothing"


@pytest.fixture
async def web():
    transport = httpx.ASGITransport(app=make_api())
    async with httpx.AsyncClient(transport=transport, base_url="http://web") as client:
        yield client


@pytest.mark.usefixtures("database", "redis")
async def test_a_process_with_its_servers_is_ready(web):
    answer = await web.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "checks": {"database": True, "redis": True}}


@pytest.mark.usefixtures("redis")
async def test_without_the_database_it_is_not_ready_but_alive(web):
    open_database(AWAY)
    try:
        answer = await web.get("/readyz")
    finally:
        await close_database()
    assert answer.status_code == 503
    assert answer.json()["checks"] == {"database": False, "redis": True}
    assert (await web.get("/healthz")).json() == {"status": "ok"}
