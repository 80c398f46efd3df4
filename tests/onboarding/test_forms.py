"""The visitor's cookie: given once, out of reach for scripts, and only by our own wish anew."""

from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import FastAPI

from openclaw_web.accounts import cookies
from openclaw_web.core.settings import load
from openclaw_web.onboarding import forms

OURS = "http://localhost:3000"
COOKIE = {"cookie": "oc_start=known"}


@pytest.fixture
async def browser():
    app = FastAPI()
    app.include_router(forms.router)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url=OURS) as client:
        yield client


def target(answer):
    assert answer.status_code == 303
    parts = urlsplit(answer.headers["location"])
    assert not parts.netloc
    return parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()}


async def test_a_visitor_gets_a_cookie_that_scripts_cannot_read(browser):
    answer = await browser.get("/start/begin")
    assert target(answer) == ("/start", {"begun": "1"})
    cookie = answer.headers["set-cookie"]
    for part in ("oc_start=", "HttpOnly", "SameSite=lax", "Path=/", "Max-Age=2592000"):
        assert part in cookie
    assert len(browser.cookies["oc_start"]) >= 43
    assert answer.headers["cache-control"] == "no-store"


async def test_a_cookie_stays(browser):
    answer = await browser.get("/start/begin", headers=COOKIE)
    assert target(answer)[0] == "/start"
    assert "set-cookie" not in answer.headers


async def test_every_visitor_gets_another_cookie(browser):
    given = set()
    for _ in range(3):
        browser.cookies.clear()
        await browser.get("/start/begin")
        given.add(browser.cookies["oc_start"])
    assert len(given) == 3


@pytest.mark.parametrize("site", ["same-origin", "none", None])
async def test_a_fresh_start_changes_the_cookie(browser, site):
    headers = COOKIE | ({"sec-fetch-site": site} if site else {})
    answer = await browser.get("/start/begin?fresh=true", headers=headers)
    assert answer.headers["set-cookie"].startswith("oc_start=")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_another_site_cannot_throw_a_chat_away(browser, site):
    headers = COOKIE | {"sec-fetch-site": site}
    answer = await browser.get("/start/begin?fresh=true", headers=headers)
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("tier", "query"),
    [("pro", {"begun": "1", "tier": "pro"}), ("platinum", {"begun": "1"}), ("", {"begun": "1"})],
)
async def test_only_a_tier_of_ours_comes_along(browser, tier, query):
    assert target(await browser.get(f"/start/begin?tier={tier}"))[1] == query


async def test_over_https_the_cookie_is_bound_to_the_host(browser, monkeypatch):
    public = load({"PUBLIC_URL": "https://cloud.example", "OPENCLAW_CLOUD_ENV": "production"})
    monkeypatch.setattr(cookies, "settings", lambda: public)
    cookie = (await browser.get("/start/begin")).headers["set-cookie"]
    assert cookie.startswith("__Host-oc_start=")
    assert "Secure" in cookie
