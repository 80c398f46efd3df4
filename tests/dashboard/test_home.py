"""Home: whether the assistant answers, what it used, and what happened, for its customer only."""

from datetime import timedelta

import pytest

from openclaw_web.accounts import service as accounts
from openclaw_web.billing.models import SubscriptionStatus, Tier
from openclaw_web.boxes import incidents
from openclaw_web.boxes.models import BoxSecret, BoxStatus
from openclaw_web.core.database import session_scope
from openclaw_web.dashboard import page
from openclaw_web.dashboard.state import HomeState
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.models import JobStatus, JobType, OperatorJob
from openclaw_web.ui import format as fmt
from tests.factories import make_box, make_period, make_subscription, now
from tests.ui.tab import Tab, admin_cookie, customer_cookie, in_app, running_app

ADA, EVE = "ada@example.com", "eve@example.com"
RUNNING = {"pod": {"phase": "Running", "is_ready": True, "restarts": 0}, "failing": []}


@pytest.fixture
def client(database, valkey_server):
    with running_app(database, valkey_server.url, {"/home": HomeState.load}) as client:
        yield client


@pytest.fixture
def ada(client):
    return customer_cookie(client, ADA)


async def give_box(email, *, tokens_used=0, status=BoxStatus.ACTIVE, plan=None, **fields):
    """Give a customer a subscription, a box and a period, and return the box."""
    async with session_scope() as session:
        customer = await accounts.ensure_customer(session, email)
        subscription = await make_subscription(session, customer=customer, **(plan or {}))
        box = await make_box(session, subscription=subscription, status=status, **fields)
        session.add(BoxSecret(box_id=box.id, bot_username=f"{email[:3]}_bot"))
        await make_period(session, subscription=subscription, tokens_used=tokens_used)
        return box


async def add_job(box, status, *, error_code=None, job_type=JobType.PROVISION):
    async with session_scope() as session:
        session.add(
            OperatorJob(
                customer_id=box.customer_id,
                box_id=box.id,
                job_type=job_type,
                status=status,
                error_code=error_code,
                created_at=now(),
            )
        )


def opened(client, cookie):
    with Tab(client, "/home", HomeState, cookie=cookie) as tab:
        tab.open()
        return tab


async def test_during_an_incident_home_says_that_the_cause_is_not_the_customers(client, ada):
    box = await give_box(ADA, status=BoxStatus.UNHEALTHY, health=RUNNING)
    assert not opened(client, ada).sees("incident_note")
    async with session_scope() as session:
        await jobs.raise_alert(session, code=incidents.ALERT, subject=box.cluster)
    assert opened(client, ada).sees("incident_note") == incidents.BANNER


def test_a_customer_without_a_box_is_told_what_to_do(client, ada):
    tab = opened(client, ada)
    assert tab.sees("is_loaded") is True
    assert tab.sees("has_box") in {None, False}
    assert tab.sees("plan") == "You have no plan at the moment."
    assert tab.sees("error") in {None, ""}


def test_a_box_that_answers_says_so(client, ada):
    three_days_ago = now() - timedelta(days=3)
    in_app(
        client,
        give_box,
        ADA,
        health=RUNNING,
        first_answer_at=now(),
        status_changed_at=three_days_ago,
    )
    tab = opened(client, ada)
    assert (tab.sees("status"), tab.sees("status_tone")) == ("Answering", "good")
    assert tab.sees("sentence") == "Answering on Telegram as @ada_bot."
    assert [link["state"] for link in tab.sees("links")] == ["ok"] * 4
    assert tab.sees("bot_link").endswith("/ada_bot")
    assert tab.sees("since") == "for 3 days"


@pytest.mark.parametrize("status", list(BoxStatus))
def test_every_status_has_a_headline_and_a_sentence(client, ada, status):
    in_app(client, give_box, ADA, status=status)
    tab = opened(client, ada)
    assert tab.sees("error") in {None, ""}
    assert tab.sees("status")
    assert tab.sees("sentence").endswith(".")


def test_a_box_that_waits_says_where_it_stands(client, ada):
    for email in (EVE, ADA):
        box = in_app(client, give_box, email, status=BoxStatus.PENDING)
        in_app(client, add_job, box, JobStatus.QUEUED)
    assert opened(client, ada).sees("queue_note") == "It is number 2 in the queue."


def test_a_box_that_answers_speaks_of_no_queue(client, ada):
    box = in_app(client, give_box, ADA, health=RUNNING)
    in_app(client, add_job, box, JobStatus.QUEUED)
    assert not opened(client, ada).sees("queue_note")


def test_the_strip_shows_the_period(client, ada):
    in_app(client, give_box, ADA, tokens_used=2_500_000)
    tab = opened(client, ada)
    shown = [tab.sees(name) for name in ("used", "limit", "left", "percent", "tone")]
    assert shown == ["2,500,000", "10,000,000", "7,500,000", 25.0, ""]
    assert tab.sees("resets") == fmt.day(now() + timedelta(days=29))
    assert tab.sees("outlook").startswith("At this pace the limit is reached on ")


@pytest.mark.parametrize(
    ("used", "days", "tone", "outlook"),
    [
        (0, 1, "", "Nothing has been used"),
        (5_000, 0.1, "", "It is too early"),
        (5_000, 1, "", "At this pace the tokens last"),
        (1, 20, "", "At this pace the tokens last"),
        (7_500_000, 1, "warning", "At this pace the limit"),
        (9_999_999, 1, "warning", "At this pace the limit"),
        (10_000_000, 1, "bad", "The limit is reached. It resets on"),
        (10_400_000, 1, "bad", "The limit is reached. It resets on"),
    ],
)
def test_the_outlook_fits_the_pace(client, used, days, tone, outlook):
    ada = customer_cookie(client, ADA)
    plan = {"current_period_start": now() - timedelta(days=days)}
    in_app(client, give_box, ADA, tokens_used=used, plan=plan)
    tab = opened(client, ada)
    assert (tab.sees("tone") or "") == tone
    assert tab.sees("outlook").startswith(outlook)
    assert tab.sees("left") == fmt.tokens(max(0, 10_000_000 - used))


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        ({}, "Renews on "),
        ({"cancel_at_period_end": True}, "Ends on "),
        ({"pending_tier": Tier.STARTER, "tier": Tier.PRO}, "Becomes Starter on "),
        ({"status": SubscriptionStatus.TRIALING}, "On trial until "),
        ({"status": SubscriptionStatus.PAST_DUE}, "The payment is overdue."),
        ({"status": SubscriptionStatus.SUSPENDED}, "Suspended, because a payment is missing."),
    ],
)
def test_the_plan_says_what_happens_next(client, ada, plan, sentence):
    in_app(client, give_box, ADA, plan=plan)
    tab = opened(client, ada)
    assert tab.sees("renews").startswith(sentence)
    assert tab.sees("plan").endswith(" a month")


@pytest.mark.parametrize(
    ("status", "note"),
    [
        (SubscriptionStatus.ACTIVE, ""),
        (SubscriptionStatus.PAST_DUE, "The payment is overdue."),
        (SubscriptionStatus.SUSPENDED, "Suspended, because a payment is missing."),
    ],
)
def test_a_missing_payment_leads_to_the_billing_page(client, ada, status, note):
    in_app(client, give_box, ADA, plan={"status": status})
    assert (opened(client, ada).sees("payment_note") or "").startswith(note)


def test_what_happened_is_told_in_order(client, ada):
    box = in_app(client, give_box, ADA)
    in_app(client, add_job, box, JobStatus.COMPLETE)
    in_app(client, add_job, box, JobStatus.FAILED, job_type=JobType.UPDATE)
    in_app(client, add_job, box, JobStatus.FAILED, error_code="superseded")
    in_app(client, add_job, box, JobStatus.RUNNING, job_type=JobType.SUSPEND)
    told = [(line["text"], line["tone"]) for line in opened(client, ada).sees("story")]
    assert told == [
        ("Pausing your assistant: in progress", ""),
        ("Setting up your assistant: no longer needed", ""),
        ("Changing your assistant: failed", "bad"),
        ("Setting up your assistant: done", "good"),
    ]


def test_a_lost_memory_is_told_until_it_was_read(client, ada):
    in_app(client, give_box, ADA, health={"memory_lost_at": now().isoformat()})
    with Tab(client, "/home", HomeState, cookie=ada) as tab:
        tab.open()
        assert tab.sees("memory_lost")
        tab.does(HomeState.dismiss_memory_notice)
        assert tab.sees("memory_lost") == ""


def test_reading_a_notice_without_a_box_is_no_error(client, ada):
    with Tab(client, "/home", HomeState, cookie=ada) as tab:
        tab.open()
        tab.does(HomeState.dismiss_memory_notice)
        assert tab.sees("error") in {None, ""}


def test_another_look_without_a_change_sends_almost_nothing(client, ada):
    in_app(client, give_box, ADA, tokens_used=5)
    with Tab(client, "/home", HomeState, cookie=ada) as tab:
        tab.open()
        heard = tab.does(HomeState.refresh, _date="now")
    assert "links_rx_state_" not in heard
    assert "sentence_rx_state_" not in heard
    assert "outlook_rx_state_" not in heard


def test_nothing_of_another_customer_appears(client, ada):
    box = in_app(client, give_box, EVE, tokens_used=987_654)
    in_app(client, add_job, box, JobStatus.RUNNING)
    tab = opened(client, ada)
    assert tab.sees("has_box") in {None, False}
    for secret in ("987,654", EVE, "eve_bot", str(box.id), str(box.customer_id), "in progress"):
        assert secret not in tab.heard.lower()


@pytest.mark.parametrize("handler", [HomeState.load, HomeState.dismiss_memory_notice])
def test_without_a_session_nothing_is_shown(client, handler):
    in_app(client, give_box, ADA, tokens_used=987_654)
    with Tab(client, "/home", HomeState) as tab:
        assert "/login?next=%2Fhome" in tab.open()
        assert "/login" in tab.does(handler)
        assert "987,654" not in tab.heard
        assert tab.sees("has_box") in {None, False}


def test_a_failure_is_said_in_one_sentence(client, ada, monkeypatch, caplog):
    async def broken(*_args, **_named):
        raise RuntimeError("a secret of ours")

    monkeypatch.setattr("openclaw_web.dashboard.state.boxes.box_status_view", broken)
    tab = opened(client, ada)
    assert tab.sees("error").startswith("This page could not be loaded")
    assert "a secret of ours" not in tab.heard
    assert "a secret of ours" in caplog.text


def test_the_page_can_be_drawn():
    drawn = str(page.home_page())
    assert "box-sentence" in drawn
    assert "tokens-used" in drawn


def test_an_admin_has_a_home_like_everybody(client):
    cookie = admin_cookie(client, "root@example.com")
    assert opened(client, cookie).sees("is_loaded") is True
