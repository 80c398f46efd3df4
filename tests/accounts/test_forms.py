"""The sign-in forms, as a browser posts them."""

from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import FastAPI

from openclaw_web.accounts import cookies, forms, messages, origins, posting
from openclaw_web.accounts import service as accounts
from openclaw_web.core.database import session_scope
from openclaw_web.core.settings import load

pytestmark = pytest.mark.usefixtures("database", "redis")

EMAIL = "ada@example.com"
OURS = "http://localhost:3000"
PASSWORD = "correct horse battery staple"  # noqa: S105 - a test's


@pytest.fixture
async def browser():
    """Return an HTTP client that posts like a page of ours, and keeps cookies."""
    app = FastAPI()
    app.include_router(forms.router)
    transport = httpx.ASGITransport(app=app, client=("198.51.100.7", 1234))
    async with httpx.AsyncClient(
        transport=transport, base_url=OURS, headers={"origin": OURS}
    ) as client:
        yield client


def target(answer):
    assert answer.status_code == 303
    parts = urlsplit(answer.headers["location"])
    return parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()}


async def who(token):
    async with session_scope() as session:
        return await accounts.find_principal(session, token)


async def enter(browser, mailed_code, **fields):
    await browser.post("/auth/send-code", data={"email": EMAIL})
    code = await mailed_code(EMAIL)
    return await browser.post("/auth/code", data={"email": EMAIL, "code": code, **fields})


async def test_a_browser_signs_in_with_a_code(browser, mailed_code):
    answer = await browser.post("/auth/send-code", data={"email": EMAIL, "next": "/billing?a=1"})
    assert target(answer) == (
        "/login",
        {"step": "code", "sent": "1", "email": EMAIL, "next": "/billing?a=1"},
    )
    answer = await enter(browser, mailed_code, next="/billing?a=1")
    assert answer.headers["location"] == "/billing?a=1"
    assert (await who(browser.cookies["oc_session"])).email == EMAIL


async def test_the_cookie_is_out_of_reach_for_scripts_and_other_sites(browser, mailed_code):
    answer = await enter(browser, mailed_code)
    cookie = answer.headers["set-cookie"].lower()
    for part in ("httponly", "samesite=lax", "path=/", "max-age=2592000"):
        assert part in cookie
    assert "secure" not in cookie
    assert "domain" not in cookie


async def test_over_https_the_cookie_is_bound_to_the_host(browser, mailed_code, monkeypatch):
    public = load({"PUBLIC_URL": "https://cloud.example", "OPENCLAW_CLOUD_ENV": "production"})
    monkeypatch.setattr(cookies, "settings", lambda: public)
    monkeypatch.setattr(origins, "settings", lambda: public)
    browser.headers["origin"] = "https://cloud.example"
    answer = await enter(browser, mailed_code)
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-oc_session=")
    assert "Secure" in cookie


async def test_answers_are_not_kept_by_caches(browser, mailed_code):
    for answer in (
        await browser.post("/auth/send-code", data={"email": EMAIL}),
        await enter(browser, mailed_code),
        await browser.post("/auth/logout"),
        await browser.post("/auth/logout", headers={"origin": "https://evil.example"}),
    ):
        assert answer.headers["cache-control"] == "no-store"


async def test_a_wrong_code_goes_back_with_a_reason(browser):
    await browser.post("/auth/send-code", data={"email": EMAIL})
    answer = await browser.post(
        "/auth/code", data={"email": EMAIL, "code": "1", "next": "/home", "back": "/start?a=b"}
    )
    path, query = target(answer)
    assert path == "/start"
    assert query == {
        "a": "b",
        "step": "code",
        "error": "wrong_code",
        "email": EMAIL,
        "next": "/home",
    }
    assert "oc_session" not in browser.cookies


async def test_a_bad_address_goes_back_with_a_reason(browser):
    _, query = target(await browser.post("/auth/send-code", data={"email": "ada"}))
    assert query == {"error": "bad_email", "email": "ada"}


async def test_every_reason_has_a_sentence():
    assert messages.sentence_of("") == ""
    assert messages.sentence_of("wrong_code") == messages.SENTENCES["wrong_code"]
    assert messages.sentence_of("<b>") == messages.UNKNOWN


@pytest.mark.parametrize(
    "elsewhere",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "/\t/evil.example", "evil", ""],
)
async def test_signing_in_never_leads_to_another_site(browser, mailed_code, elsewhere):
    answer = await enter(browser, mailed_code, next=elsewhere)
    assert answer.headers["location"] == "/home"
    answer = await browser.post("/auth/send-code", data={"email": "x", "back": elsewhere})
    assert target(answer)[0] == "/login"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "http://localhost:3000.evil.example"},
        {"origin": "http://localhost:4000"},
        {"origin": "null"},
        {"origin": OURS, "sec-fetch-site": "cross-site"},
        {"origin": "null", "sec-fetch-site": "same-origin", "host": "evil.example:3000"},
    ],
    ids=str,
)
@pytest.mark.parametrize("form", ["send-code", "code", "password", "logout"])
async def test_a_form_of_another_site_is_refused(browser, form, headers):
    answer = await browser.post(f"/auth/{form}", data={"email": EMAIL}, headers=headers)
    assert answer.status_code == 403


async def test_a_request_that_does_not_say_where_it_comes_from_is_refused(browser):
    del browser.headers["origin"]
    assert (await browser.post("/auth/logout")).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": OURS, "sec-fetch-site": "same-origin"},
        {"origin": "http://127.0.0.1:3000"},
        {"origin": "null", "sec-fetch-site": "same-origin"},
    ],
    ids=str,
)
async def test_a_page_of_ours_is_let_in(browser, headers):
    answer = await browser.post("/auth/send-code", data={"email": EMAIL}, headers=headers)
    assert answer.status_code == 303


async def test_a_large_form_is_refused_before_it_is_read(browser):
    async def endless():
        for _ in range(10_000):
            yield b"x" * 1024

    answer = await browser.post(
        "/auth/send-code", content=endless(), headers={"content-type": posting.FORM_TYPE}
    )
    assert answer.status_code == 413


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "multipart/form-data"])
async def test_only_html_forms_are_read(browser, kind):
    answer = await browser.post(
        "/auth/send-code", content=b"email=a%40b.c", headers={"content-type": kind}
    )
    assert answer.status_code == 415


async def test_an_admin_signs_in_with_a_password(browser):
    async with session_scope() as session:
        await accounts.create_admin(session, EMAIL, PASSWORD)
    answer = await browser.post("/auth/password", data={"email": EMAIL, "password": "wrong"})
    assert target(answer)[1] == {"step": "password", "error": "wrong_password", "email": EMAIL}
    answer = await browser.post("/auth/password", data={"email": EMAIL, "password": PASSWORD})
    assert answer.headers["location"] == "/admin"


async def test_a_password_never_goes_into_an_address(browser):
    answer = await browser.post("/auth/password", data={"email": EMAIL, "password": PASSWORD})
    assert "horse" not in str(answer.headers)


async def test_signing_out_ends_the_session_and_forgets_everything(browser, mailed_code):
    await enter(browser, mailed_code)
    token = browser.cookies["oc_session"]
    browser.cookies.set("oc_start", "a visitor", domain="localhost.local")
    answer = await browser.post("/auth/logout")
    assert answer.headers["location"] == "/"
    assert answer.headers["clear-site-data"] == '"storage"'
    removed = answer.headers.get_list("set-cookie")
    assert len([one for one in removed if "Max-Age=0" in one]) == 2
    assert "oc_session" not in browser.cookies
    assert await who(token) is None


async def test_signing_in_again_ends_the_browsers_old_session(browser, mailed_code):
    await enter(browser, mailed_code)
    old = browser.cookies["oc_session"]
    await enter(browser, mailed_code)
    assert await who(old) is None
    assert await who(browser.cookies["oc_session"]) is not None


async def test_a_session_that_somebody_planted_does_not_survive_signing_in(browser, mailed_code):
    browser.cookies.set("oc_session", "planted", domain="localhost.local")
    await enter(browser, mailed_code)
    assert browser.cookies["oc_session"] != "planted"
