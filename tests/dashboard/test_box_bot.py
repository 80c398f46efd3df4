"""Another bot for a box: checked with Telegram, kept secret, and never taken from somebody else."""

from dataclasses import replace

import httpx
import pytest
from fastapi import FastAPI
from sqlmodel import select

from openclaw_web.accounts.models import AuditLog
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.models import BoxSecret
from openclaw_web.boxes.service import Bot
from openclaw_web.core.database import session_scope
from openclaw_web.core.settings import settings
from openclaw_web.dashboard.box import forms
from openclaw_web.integrations import telegram as adapter
from openclaw_web.jobs.models import OperatorJob
from tests.contracts.simulator_process import running
from tests.dashboard.test_export import signed_in
from tests.factories import make_box, make_subscription
from tests.onboarding.visiting import Telegram

pytestmark = pytest.mark.usefixtures("database", "redis")
OWN = {"origin": "http://localhost:3000", "sec-fetch-site": "same-origin"}


@pytest.fixture(scope="module")
def telegram_process(tmp_path_factory):
    with running("telegram", tmp_path_factory.mktemp("telegram")) as simulator:
        yield simulator


@pytest.fixture
def telegram(telegram_process, monkeypatch):
    chosen = replace(settings(), telegram_api_url=telegram_process.url)
    monkeypatch.setattr(adapter, "settings", lambda: chosen)
    return Telegram(telegram_process.http)


@pytest.fixture
async def browser():
    app = FastAPI()
    app.include_router(forms.router)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:3000") as client:
        yield client


async def ada_with_box():
    customer, cookie = await signed_in("ada@example.com")
    async with session_scope() as session:
        subscription = await make_subscription(session, customer=customer)
        return await make_box(session, subscription=subscription), cookie


async def post(browser, cookie, token):
    answer = await browser.post("/box/bot", data={"bot_token": token}, headers={**OWN, **cookie})
    assert answer.status_code == 303
    return answer.headers["location"]


async def one(model):
    async with session_scope() as session:
        return (await session.exec(select(model))).first()


async def actions():
    async with session_scope() as session:
        return [row.action for row in await session.exec(select(AuditLog))]


async def test_a_bot_that_telegram_knows_is_taken_and_the_box_restarts(browser, telegram):
    box, cookie = await ada_with_box()
    bot = telegram.new_bot()
    assert await post(browser, cookie, f"my token: {bot['token']}") == "/box?bot=replaced"
    async with session_scope() as session:
        assert await boxes.bot_token(session, box.id) == bot["token"]
    kept, job = await one(BoxSecret), await one(OperatorJob)
    assert kept is not None
    assert job is not None
    assert kept.bot_username == bot["username"]
    assert "restart" in job.payload["actions"]
    assert "box.bot_replaced" in await actions()
    assert await post(browser, cookie, bot["token"]) == "/box?error=same"


@pytest.mark.parametrize(
    ("token", "word"), [("hello", "not_a_token"), (f"123456789:{'A' * 35}", "unknown")]
)
async def test_what_is_no_bot_changes_nothing(browser, telegram, token, word):
    assert telegram
    _, cookie = await ada_with_box()
    assert await post(browser, cookie, token) == f"/box?error={word}"
    assert (await one(BoxSecret), await one(OperatorJob)) == (None, None)
    assert "box.bot_refused" in await actions()


async def test_a_bot_of_another_box_is_refused(browser, telegram):
    _, cookie = await ada_with_box()
    bot = telegram.new_bot()
    async with session_scope() as session:
        other = await make_box(session)
        theirs = Bot(token=bot["token"], bot_id=bot["id"], username=bot["username"])
        await boxes.replace_bot(session, other, theirs, requested_by="test")
    assert await post(browser, cookie, bot["token"]) == "/box?error=in_use"


async def test_a_telegram_that_is_away_changes_nothing(browser, monkeypatch):
    chosen = replace(settings(), telegram_api_url="http://127.0.0.1:9")
    monkeypatch.setattr(adapter, "settings", lambda: chosen)
    _, cookie = await ada_with_box()
    assert await post(browser, cookie, f"123456789:{'A' * 35}") == "/box?error=telegram"
    assert await one(OperatorJob) is None


async def test_only_a_page_of_ours_and_only_the_signed_in_may_post(browser):
    _, cookie = await ada_with_box()
    foreign = {"origin": "https://evil.example", "sec-fetch-site": "cross-site", **cookie}
    answer = await browser.post("/box/bot", data={"bot_token": "x"}, headers=foreign)
    assert answer.status_code == 403
    assert await post(browser, {}, "x") == "/login?next=%2Fbox"


async def test_without_a_box_there_is_nothing_to_give_a_bot_to(browser, telegram):
    _, cookie = await signed_in("eve@example.com")
    assert await post(browser, cookie, telegram.new_bot()["token"]) == "/box?error=no_box"
