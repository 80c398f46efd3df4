"""The chat over the real websocket: one visitor's tab never shows or moves another's chat."""

import pytest

from openclaw_web.accounts import guard
from openclaw_web.accounts import service as accounts
from openclaw_web.billing.models import Tier
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.core.database import session_scope
from openclaw_web.core.switches import PlatformSetting
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.models import JobType
from openclaw_web.jobs.queries import PROVISIONING_PAUSED
from openclaw_web.onboarding import conversation, service
from openclaw_web.onboarding.conversation import Step
from openclaw_web.onboarding.models import OnboardingState
from openclaw_web.onboarding.page import start_page
from openclaw_web.onboarding.state import OnboardingView
from tests.factories import make_box, make_subscription
from tests.onboarding.visiting import Visitor, change
from tests.ui.tab import Tab, customer_cookie, in_app, running_app

HANDLERS = (
    (OnboardingView.send, "form"),
    (OnboardingView.choose, "value"),
    (OnboardingView.give_token, "form"),
    (OnboardingView.confirm, "is_me"),
    (OnboardingView.take_tier, "tier"),
    (OnboardingView.give_email, "form"),
    (OnboardingView.tick, "_date"),
)
NONSENSE = (
    None,
    7,
    -1.5,
    True,
    [],
    ["starter"],
    {"text": {"deeper": ["still"]}},
    {"text": 7, "bot_token": None, "email": ["a@b.c"], "client_id": {}},
    {"text": "\x00", "bot_token": "\ud800", "email": "\ud800@\x00"},
    "\x00\ud800",
    "x" * 900_000,
    {"text": "x" * 300_000, "bot_token": "1" * 300_000, "email": "@" * 200_000},
)


@pytest.fixture
def client(database, valkey_server):
    pages = {"/start": OnboardingView.load, "/other": None}
    with running_app(database, valkey_server.url, pages) as client:
        yield client


@pytest.fixture
def unlimited(monkeypatch):
    """Take the limit of events away, which would answer before the handlers do."""
    monkeypatch.setattr(guard, "BURST", 1e9)


def cookie_of(visitor):
    return f"oc_start={visitor.token}"


def test_a_visitor_without_a_cookie_is_sent_to_fetch_one(client):
    with Tab(client, "/start?tier=pro", OnboardingView) as tab:
        assert "/start/begin?tier=pro" in tab.open()
    with Tab(client, "/start?tier=x%26fresh%3Dtrue", OnboardingView) as tab:
        assert 'assign(\\"/start/begin\\")' in tab.open()
        assert tab.sees("messages") == []


def test_a_browser_that_keeps_no_cookies_is_told(client):
    with Tab(client, "/start?begun=1", OnboardingView) as tab:
        assert "/start/begin" not in tab.open()
        assert "keeps no cookies" in tab.sees("error")
        assert tab.sees("is_loaded") is True


def test_without_a_cookie_no_handler_does_anything(client):
    with Tab(client, "/start", OnboardingView) as tab:
        for handler, name in HANDLERS:
            tab.does(handler, **{name: {"text": "hello"}})
        assert tab.sees("step") in {None, ""}


def test_the_chat_goes_on_by_clicks_and_by_text(client):
    visitor = Visitor()
    with Tab(client, "/start", OnboardingView, cookie=cookie_of(visitor)) as tab:
        tab.open()
        assert [one["text"] for one in tab.sees("messages")] == [conversation.HELLO]
        assert tab.sees("step") == Step.HELLO
        tab.does(OnboardingView.choose, value="yes")
        assert tab.sees("step") == Step.USE_CASE
        tab.does(OnboardingView.send, form={"text": "my garden", "client_id": "1"})
        assert tab.sees("step") == Step.BOT_TOKEN
        assert tab.sees("error") in {None, ""}


def test_closing_the_tab_loses_nothing(client):
    visitor = Visitor()
    with Tab(client, "/start", OnboardingView, cookie=cookie_of(visitor)) as tab:
        tab.open()
        tab.does(OnboardingView.choose, value="yes")
    with Tab(client, "/start", OnboardingView, cookie=cookie_of(visitor)) as tab:
        tab.open()
        assert tab.sees("step") == Step.USE_CASE
        assert len(tab.sees("messages")) == 3


def test_a_double_click_is_one_answer_and_no_error(client):
    with Tab(client, "/start", OnboardingView, cookie=cookie_of(Visitor())) as tab:
        tab.open()
        for _ in range(3):
            tab.does(OnboardingView.choose, value="yes")
        assert (tab.sees("step"), len(tab.sees("messages"))) == (Step.USE_CASE, 3)
        assert tab.sees("error") in {None, ""}


def test_a_stale_tab_shows_what_the_other_did_instead_of_answering(client):
    visitor = Visitor()
    with (
        Tab(client, "/start", OnboardingView, cookie=cookie_of(visitor)) as first,
        Tab(client, "/start", OnboardingView, cookie=cookie_of(visitor)) as second,
    ):
        first.open()
        second.open()
        first.does(OnboardingView.choose, value="yes")
        second.does(OnboardingView.choose, value="yes")
        assert second.sees("step") == Step.USE_CASE
        assert len(second.sees("messages")) == 3


def test_a_look_that_finds_nothing_sends_nothing(client):
    visitor = Visitor()
    with Tab(client, "/start", OnboardingView, cookie=cookie_of(visitor)) as tab:
        tab.open()
        in_app(client, put_at_payment, visitor, "ada@example.com", with_customer=False)
        tab.open()
        assert tab.sees("is_waiting") is True
        heard = tab.does(OnboardingView.tick, _date="now")
        assert "messages" not in heard
        assert "composer_id" not in heard


def test_another_visitor_in_the_tab_never_sees_the_former_chat(client):
    ada, eve = Visitor(), Visitor()
    with Tab(client, "/start", OnboardingView, cookie=cookie_of(ada)) as tab:
        tab.open()
        tab.does(OnboardingView.choose, value="yes")
        tab.does(OnboardingView.send, form={"text": "my secret garden", "client_id": "1"})
    with Tab(client, "/start", OnboardingView, cookie=cookie_of(eve), token=tab.token) as again:
        again.open()
        again.does(OnboardingView.choose, value="yes")
    assert "my secret garden" in tab.heard
    assert "my secret garden" not in again.heard
    assert again.sees("step") == Step.USE_CASE


def test_a_customers_chat_opens_for_that_customer_only(client):
    visitor = Visitor()
    in_app(client, put_at_payment, visitor, "ada@example.com")
    ada = customer_cookie(client, "ada@example.com")
    eve = customer_cookie(client, "eve@example.com")
    with Tab(client, "/start", OnboardingView, cookie=f"{cookie_of(visitor)}; {ada}") as tab:
        tab.open()
        assert tab.sees("step") == Step.PAY
    for cookie in (cookie_of(visitor), f"{cookie_of(visitor)}; {eve}"):
        with Tab(client, "/start", OnboardingView, cookie=cookie) as tab:
            assert "/start/begin?fresh=true" in tab.open()
            heard = tab.does(OnboardingView.change_tier)
            assert "/start/begin?fresh=true" in heard
            tab.does(OnboardingView.tick)
            tab.does(OnboardingView.pay)
            assert conversation.ASK_PAYMENT not in tab.heard
            assert "checkout" not in tab.heard
    assert in_app(client, visitor.step) is Step.PAY


def test_signing_in_gives_the_chat_its_customer(client):
    visitor = Visitor()
    in_app(client, put_at_tier, visitor)
    in_app(client, visitor.do, service.choose_tier, Tier.PRO)
    ada = customer_cookie(client, "ada@example.com")
    with Tab(client, "/start", OnboardingView, cookie=f"{cookie_of(visitor)}; {ada}") as tab:
        tab.open()
        assert tab.sees("step") == Step.PAY
        assert tab.sees("messages")[-1]["text"] == conversation.ASK_PAYMENT


def test_whoever_has_paid_sees_the_place_in_the_queue_and_why_it_waits(client):
    visitor, email = Visitor(), "ada@example.com"
    in_app(client, put_in_queue, visitor, email, ahead=2)
    cookie = f"{cookie_of(visitor)}; {customer_cookie(client, email)}"
    with Tab(client, "/start", OnboardingView, cookie=cookie) as tab:
        tab.open()
        assert tab.sees("step") == Step.WATCH
        assert tab.sees("waiting_note") == "It is number 3 in the queue."
        in_app(client, pause_set_ups)
        tab.does(OnboardingView.tick, _date="now")
        assert tab.sees("waiting_note").startswith("We have stopped new set-ups for a moment.")


async def put_in_queue(visitor, email, *, ahead):
    """Have somebody paid whose set-up waits behind others."""
    await put_at_payment(visitor, email)
    async with session_scope() as session:
        for _ in range(ahead):
            await queue(session, await make_box(session))
        customer = await accounts.ensure_customer(session, email)
        subscription = await make_subscription(session, customer=customer)
        box = await make_box(session, subscription=subscription, status=BoxStatus.PENDING)
        await queue(session, box)
        state = OnboardingState.PROVISIONING
        await change(session, await visitor.chat(), state=state, box_id=box.id)


async def queue(session, box):
    await jobs.request_job(
        session,
        customer_id=box.customer_id,
        box_id=box.id,
        job_type=JobType.PROVISION,
        requested_by="test",
    )


async def pause_set_ups():
    async with session_scope() as session:
        session.add(PlatformSetting(key=PROVISIONING_PAUSED, value=True))


def test_whoever_has_an_assistant_is_led_to_it(client):
    ada = customer_cookie(client, "ada@example.com")
    in_app(client, give_box, "ada@example.com")
    with Tab(client, "/start", OnboardingView, cookie=f"{cookie_of(Visitor())}; {ada}") as tab:
        assert '"/home"' in tab.open()


def test_an_error_of_the_sign_in_form_is_said_in_a_sentence(client):
    cookie = cookie_of(Visitor())
    with Tab(client, "/start?error=wrong_code", OnboardingView, cookie=cookie) as tab:
        tab.open()
        assert tab.sees("error").startswith("That code is not right")
    with Tab(client, "/start?error=%3Cb%3E", OnboardingView, cookie=cookie) as tab:
        tab.open()
        assert tab.sees("error") == "Something went wrong. Please try again."


def test_every_step_has_something_to_click():
    drawn = str(start_page())
    with_chips = {step for step in Step if conversation.choices(step)}
    for step in set(Step) - with_chips:
        assert f'("{step.value}")' in drawn


@pytest.mark.parametrize("step", [Step.HELLO, Step.TIER], ids=str)
@pytest.mark.usefixtures("unlimited")
def test_nonsense_from_the_browser_breaks_nothing(client, caplog, step):
    visitor = Visitor()
    if step is Step.TIER:
        in_app(client, put_at_tier, visitor)
    with Tab(
        client, "/start?tier=%00&checkout=%00", OnboardingView, cookie=cookie_of(visitor)
    ) as tab:
        tab.open()
        for handler, name in HANDLERS:
            for value in NONSENSE:
                if handler is OnboardingView.send and isinstance(value, dict):
                    continue  # a long text is a text; see below
                tab.does(handler, **{name: value})
        assert tab.sees("step") == step
    assert "The onboarding page failed" not in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("value", [one for one in NONSENSE if isinstance(one, dict)], ids=repr)
def test_nonsense_in_the_composer_is_refused_in_a_sentence(client, caplog, value):
    visitor = Visitor()
    with Tab(client, "/start", OnboardingView, cookie=cookie_of(visitor)) as tab:
        tab.open()
        tab.does(OnboardingView.send, form=value)
        assert tab.sees("step") == Step.HELLO
        assert tab.sees("error").endswith(("first.", "here."))
    assert "The onboarding page failed" not in caplog.text


async def put_at_tier(visitor):
    """Put a chat where the tier is chosen, without a Telegram."""
    chat = await visitor.arrive()
    async with session_scope() as session:
        session.add(service.OnboardingSecret(**secret_of(chat)))
    async with session_scope() as session:
        await change(
            session, chat, state=OnboardingState.RECOMMENDING_TIER, telegram_user_id=111222333
        )


async def put_at_payment(visitor, email, *, with_customer=True):
    await put_at_tier(visitor)
    await visitor.do(service.choose_tier, Tier.STARTER)
    if with_customer:
        async with session_scope() as session:
            customer = await accounts.ensure_customer(session, email)
        await visitor.do(service.attach_customer, customer.id)
    else:
        async with session_scope() as session:
            await change(session, await visitor.chat(), state=OnboardingState.AWAITING_PAYMENT)


async def give_box(email):
    async with session_scope() as session:
        customer = await accounts.ensure_customer(session, email)
        subscription = await make_subscription(session, customer=customer)
        await make_box(session, subscription=subscription)


def secret_of(chat):
    return {
        "session_id": chat.id,
        "telegram_token_ct": b"sealed",
        "token_fingerprint": chat.id.hex,
        "bot_id": 123456,
        "bot_username": "a_test_bot",
        "key_id": "k1",
    }
