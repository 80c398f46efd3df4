"""The app and its route table: every URL that a browser can open is here."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import reflex as rx
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from openclaw_web.accounts import page as accounts
from openclaw_web.accounts.guard import SessionGuard
from openclaw_web.accounts.websockets import TokenCheck
from openclaw_web.admin import page as admin
from openclaw_web.admin.state import AdminState
from openclaw_web.admin.usage import page as admin_usage
from openclaw_web.admin.usage.state import AdminUsageState
from openclaw_web.api import (
    MEMORY_PREFIX,
    PROXY_PREFIX,
    WEBHOOK_PREFIX,
    make_api,
    memory,
    proxy,
)
from openclaw_web.billing import page as landing
from openclaw_web.billing import pricing_page as pricing
from openclaw_web.billing.pricing_state import PricingView
from openclaw_web.core import collecting
from openclaw_web.core.logs import configure_logs
from openclaw_web.core.settings import settings
from openclaw_web.dashboard import page as dashboard
from openclaw_web.dashboard.api_access import page as api_access
from openclaw_web.dashboard.api_access.state import ApiAccessState
from openclaw_web.dashboard.billing import page as billing
from openclaw_web.dashboard.billing.state import BillingState
from openclaw_web.dashboard.box import page as box
from openclaw_web.dashboard.box.state import BoxState
from openclaw_web.dashboard.box_settings import page as box_settings
from openclaw_web.dashboard.box_settings.state import BoxSettingsState
from openclaw_web.dashboard.state import HomeState
from openclaw_web.dashboard.usage import page as usage
from openclaw_web.dashboard.usage.state import UsageState
from openclaw_web.onboarding import page as onboarding
from openclaw_web.onboarding.state import OnboardingView
from openclaw_web.ui import headers, not_found

DESCRIPTION = (
    "Your own OpenClaw assistant on Telegram, running in minutes. No server, no keys, no upkeep."
)

configure_logs(settings().log_level)
api = make_api()


def serve() -> ASGIApp:
    """Return what the server runs: what programs send goes its way before all middleware."""
    inner: Any = app()  # uvicorn and Starlette name the same types differently
    pages: Any = ProxyHeadersMiddleware(inner, trusted_hosts=settings().trusted_proxies)

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        if path.startswith(PROXY_PREFIX):
            await proxy(scope, receive, send)
        elif path.startswith(MEMORY_PREFIX):
            await memory(scope, receive, send)
        elif path.startswith(WEBHOOK_PREFIX):
            await api(scope, receive, send)
        else:
            await pages(scope, receive, send)

    return dispatch


@asynccontextmanager
async def run_api() -> AsyncGenerator[None]:
    """Run the sub-app's lifespan.

    Which Starlette leaves out for an outer app that Reflex is mounted in.
    """
    async with api.router.lifespan_context(api):
        collecting.leave_start_alone()
        yield


app = rx.App(
    html_lang="en",
    stylesheets=["/style.css"],
    head_components=[
        rx.el.link(rel="icon", href="/favicon.svg", type="image/svg+xml"),
        rx.el.meta(name="viewport", content="width=device-width, initial-scale=1"),
        rx.el.meta(name="color-scheme", content="light dark"),
    ],
    api_transformer=[api, headers.with_security_headers, TokenCheck],
)
app.add_middleware(SessionGuard(), index=0)
app.register_lifespan_task(run_api)

app.add_page(
    landing.landing_page,
    route="/",
    title=("OpenClaw Cloud: your own assistant, running"),
    description=DESCRIPTION,
)
app.add_page(
    pricing.pricing_page,
    route="/pricing",
    title="Pricing · OpenClaw Cloud",
    description=pricing.DESCRIPTION,
    on_load=PricingView.load,
)
app.add_page(
    onboarding.start_page,
    route="/start",
    title="Start · OpenClaw Cloud",
    on_load=OnboardingView.load,
)
app.add_page(accounts.login_page, route="/login", title="Sign in · OpenClaw Cloud")
app.add_page(
    dashboard.home_page, route="/home", title="Home · OpenClaw Cloud", on_load=HomeState.load
)
app.add_page(box.box_page, route="/box", title="Box · OpenClaw Cloud", on_load=BoxState.load)
app.add_page(
    box_settings.box_settings_page,
    route="/box/settings",
    title="Settings · OpenClaw Cloud",
    on_load=BoxSettingsState.load,
)
app.add_page(
    usage.usage_page, route="/usage", title="Usage · OpenClaw Cloud", on_load=UsageState.load
)
app.add_page(
    billing.billing_page,
    route="/billing",
    title="Billing · OpenClaw Cloud",
    on_load=BillingState.load,
)
app.add_page(
    api_access.api_access_page,
    route="/api-access",
    title="API access · OpenClaw Cloud",
    on_load=ApiAccessState.load,
)
app.add_page(
    admin.overview_page, route="/admin", title="Admin · OpenClaw Cloud", on_load=AdminState.load
)
app.add_page(
    admin_usage.usage_page,
    route="/admin/usage",
    title="Meters · OpenClaw Cloud",
    on_load=AdminUsageState.load,
)
app.add_page(not_found.not_found_page, route="404", title="Not found · OpenClaw Cloud")
