"""The FastAPI sub-app: Stripe's webhook, sign-in forms, health, and a laptop's /dev pages."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

from openclaw_web import tables
from openclaw_web.accounts import forms as account_forms
from openclaw_web.accounts import live
from openclaw_web.billing import webhooks
from openclaw_web.core import database
from openclaw_web.core.settings import require, settings
from openclaw_web.dashboard.box import forms as box_forms
from openclaw_web.dashboard.usage import forms as usage_forms
from openclaw_web.gateway import memory as keepers
from openclaw_web.gateway import proxy as gateway
from openclaw_web.integrations import payment_client, redis
from openclaw_web.local import dev_pages
from openclaw_web.onboarding import forms as onboarding_forms

proxy = gateway.proxy
memory = keepers.memory
MEMORY_PREFIX = keepers.PATH
PROXY_PREFIX = "/proxy/"
WEBHOOK_PREFIX = "/webhooks/"


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
    """Open what the web process needs, and close it in the opposite order."""
    chosen = settings()
    require(chosen)
    async with AsyncExitStack() as stack:
        tables.resolve()
        database.open_database(chosen.database_url)
        stack.push_async_callback(database.close_database)
        redis.open_redis(chosen.redis_url)
        stack.push_async_callback(redis.close_redis)
        stack.push_async_callback(payment_client.close_payments)
        await stack.enter_async_context(gateway.lifespan())
        await stack.enter_async_context(live.listening())
        yield


def make_api() -> FastAPI:
    """Return the sub-app; its own documentation pages stay off, since they would be public."""
    api = FastAPI(
        title="OpenClaw Cloud", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )
    api.include_router(account_forms.router)
    api.include_router(onboarding_forms.router)
    api.include_router(box_forms.router)
    api.include_router(usage_forms.router)
    api.include_router(webhooks.router)
    if settings().dev_services:
        api.include_router(dev_pages.router)
    api.get("/healthz")(healthz)
    api.get("/readyz")(readyz)
    return api


async def healthz() -> dict[str, str]:
    """Say that the process runs."""
    return {"status": "ok"}


async def readyz() -> JSONResponse:
    """Say whether requests can be served: 200, or 503 with what is missing."""
    checks = {"database": await _database_answers(), "redis": await redis.is_alive()}
    ready = checks["database"]  # without Redis pages and the proxy go on, only slower
    return JSONResponse(
        {"status": "ready" if ready else "not ready", "checks": checks},
        status_code=200 if ready else 503,
    )


async def _database_answers() -> bool:
    try:
        async with database.session_scope() as session:
            await (await session.connection()).execute(sa.select(1))
    except (SQLAlchemyError, OSError):
        return False
    return True
