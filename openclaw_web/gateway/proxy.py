"""The token proxy of this process, and how it is served: inside the web process, or alone."""

import contextlib
from collections.abc import AsyncGenerator, Awaitable
from functools import partial

from openclaw_web.core import collecting, database
from openclaw_web.core.logs import configure_logs
from openclaw_web.core.settings import settings
from openclaw_web.gateway.alone import end_now, end_with_parent
from openclaw_web.gateway.calls import Receive, Send
from openclaw_web.gateway.connection import DirectProtocol
from openclaw_web.gateway.front import Proxy
from openclaw_web.gateway.heads import Scope
from openclaw_web.gateway.memory import PATH, memory
from openclaw_web.gateway.stopping import PRODUCTION, budget_of
from openclaw_web.integrations import redis

proxy = Proxy()


# What uvicorn gives each connection of this process.
HttpProtocol = partial(DirectProtocol, proxy)


def alone(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
    """Serve without the web process; not a coroutine of its own, which each request would pay."""
    if scope["type"] == "http":
        serve = memory if scope["path"].startswith(PATH) else proxy
        return serve(scope, receive, send)
    if scope["type"] == "lifespan":
        return _live(receive, send)
    raise RuntimeError("The token proxy speaks HTTP only.")


@contextlib.asynccontextmanager
async def lifespan() -> AsyncGenerator[None]:
    """Run this process's proxy; the database and Redis are open already."""
    await proxy.start()
    try:
        yield
    finally:
        await proxy.stop(budget_of(settings()))


async def _live(receive: Receive, send: Send) -> None:
    """Open what the web process opens otherwise, and close it at the end."""
    await receive()
    configure_logs(settings().log_level)
    end_with_parent()
    database.open_database(settings().database_url)
    redis.open_redis(settings().redis_url)
    await proxy.start()
    collecting.leave_start_alone()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await proxy.stop(PRODUCTION)
    end_now()
    await redis.close_redis()
    await database.close_database()
    await send({"type": "lifespan.shutdown.complete"})
