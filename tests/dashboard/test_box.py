"""The page of the box: how it is, what runs, what may be done, and nobody else's."""

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlmodel import select

from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.models import AuditLog
from openclaw_web.billing.models import Hold, HoldKind, SubscriptionStatus
from openclaw_web.boxes import waiting, windows
from openclaw_web.boxes.memory import backups
from openclaw_web.boxes.memory.listing import BackupView
from openclaw_web.boxes.models import Box, BoxBackup, BoxStatus
from openclaw_web.boxes.windows import Happening, Line, Seen, Window
from openclaw_web.core.clock import real_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.settings import settings
from openclaw_web.dashboard.box import sentences
from openclaw_web.dashboard.box.page import box_page
from openclaw_web.dashboard.box.state import BoxState
from openclaw_web.integrations import redis
from openclaw_web.jobs import leases, service
from openclaw_web.jobs.models import JobStatus, JobType, OperatorJob
from openclaw_web.jobs.queries import QueueStanding
from openclaw_web.workflows import box_acts
from openclaw_web.workflows.api_access import By
from tests.factories import make_box, make_subscription
from tests.ui.tab import Tab, customer_cookie, in_app, running_app

ADA, EVE = "ada@example.com", "eve@example.com"
HERE = "/box"


@pytest.fixture
def client(database, valkey_server):
    with running_app(database, valkey_server.url, {HERE: BoxState.load}) as client:
        yield client


@pytest.fixture
def open_tab(client):
    tabs = []

    def open_one(email, page=HERE):
        tab = Tab(client, page, BoxState, cookie=customer_cookie(client, email))
        tab.__enter__()
        tabs.append(tab)
        tab.open()
        return tab

    yield open_one
    for tab in tabs:
        tab.__exit__(None, None, None)


async def give_box(email, *, paid=SubscriptionStatus.ACTIVE, **fields):
    async with session_scope() as session:
        customer = await accounts.ensure_customer(session, email)
        subscription = await make_subscription(session, customer=customer, status=paid)
        return await make_box(session, subscription=subscription, **fields)


async def hold(box):
    async with session_scope() as session:
        session.add(Hold(customer_id=box.customer_id, kind=HoldKind.DISPUTE, reason="dp_1"))


async def rows(model):
    async with session_scope() as session:
        return list((await session.exec(select(model))).all())


async def acts():
    return sorted(row.action for row in await rows(AuditLog) if row.action.startswith("box."))


def test_the_page_says_how_it_is_and_when_that_was_seen(client, open_tab):
    moment = real_now() - timedelta(minutes=3)
    pod = {"phase": "Running", "is_ready": True, "restarts": 0, "reason": ""}
    in_app(client, give_box, ADA, last_seen=moment, agent_ok_at=moment, health={"pod": pod})
    tab = open_tab(ADA)
    assert (tab.sees("has_box"), tab.sees("status")) == (True, "Answering")
    assert [link["name"] for link in tab.sees("links")] == [
        "Its process",
        "Its inbox",
        "Telegram",
        "The model",
    ]
    assert [link["when"] for link in tab.sees("links")] == [
        "last seen 3 min ago",
        "last ready 3 min ago",
        "",
        "",
    ]
    assert (tab.sees("may_restart"), tab.sees("may_pause")) == (True, True)
    assert not tab.sees("may_resume")


def test_a_restart_is_a_job_and_written_down_and_five_an_hour_are_enough(client, open_tab):
    in_app(client, give_box, ADA)
    tab = open_tab(ADA)
    assert "It restarts" in tab.does(BoxState.restart)
    (job,) = in_app(client, rows, OperatorJob)
    assert (job.job_type, job.requested_by) == (JobType.UPDATE, "customer")
    assert tab.sees("work") == "Changing your assistant"
    assert tab.sees("work_note") == "It is next in the queue."
    assert in_app(client, acts) == ["box.restart"]

    async def four_more():
        async with session_scope() as session:
            await session.exec(sa.update(OperatorJob).values(status=JobStatus.COMPLETE))
            for _ in range(4):
                session.add(
                    OperatorJob(
                        customer_id=job.customer_id,
                        box_id=job.box_id,
                        job_type=JobType.UPDATE,
                        status="complete",
                        payload={"actions": ["restart"]},
                        created_at=real_now(),
                    )
                )

    in_app(client, four_more)
    assert "Try again later" in tab.does(BoxState.restart)


def test_what_does_not_run_is_not_restarted(client, open_tab):
    in_app(client, give_box, ADA, status=BoxStatus.SUSPENDED)
    tab = open_tab(ADA)
    assert not tab.sees("may_restart")
    assert "nothing to restart" in tab.does(BoxState.restart)
    assert in_app(client, rows, OperatorJob) == []


def test_a_pause_is_taken_back(client, open_tab):
    in_app(client, give_box, ADA)
    tab = open_tab(ADA)
    assert "It is being paused" in tab.does(BoxState.pause)
    assert (tab.sees("may_pause"), tab.sees("may_resume")) == (False, True)
    tab.does(BoxState.pause)
    assert "It wakes up" in tab.does(BoxState.resume)
    assert in_app(client, acts) == ["box.pause", "box.resume"]
    assert [box.user_paused_at for box in in_app(client, rows, Box)] == [None]


def test_a_missing_payment_is_said_before_and_after_resuming(client, open_tab):
    in_app(
        client,
        give_box,
        ADA,
        paid=SubscriptionStatus.SUSPENDED,
        status=BoxStatus.SUSPENDED,
        user_paused_at=real_now(),
    )
    tab = open_tab(ADA)
    assert tab.sees("must_pay") is True
    assert "A payment is missing" in tab.sees("kept_asleep")
    assert "Resuming alone does not start it" in tab.sees("kept_asleep")
    assert "until the missing payment arrives" in tab.does(BoxState.resume)
    assert "starts again by itself" in tab.sees("kept_asleep")


def test_a_hold_is_said(client, open_tab):
    box = in_app(client, give_box, ADA, status=BoxStatus.SUSPENDED)
    in_app(client, hold, box)
    tab = open_tab(ADA)
    assert "a question about this account" in tab.sees("kept_asleep")
    assert not tab.sees("must_pay")


def test_what_is_done_now_is_shown_line_by_line(client, open_tab):
    box = in_app(client, give_box, ADA)

    async def claim():
        async with session_scope() as session:
            await service.request_job(
                session,
                customer_id=box.customer_id,
                box_id=box.id,
                job_type=JobType.UPDATE,
                requested_by="test",
            )
        async with session_scope() as session:
            claimed = await leases.claim_job(session, owner="a")
            assert claimed is not None
            await leases.add_progress(session, claimed.fence, "Waiting for its pod.")

    in_app(client, claim)
    tab = open_tab(ADA)
    assert [step["text"] for step in tab.sees("steps")][-1] == "Waiting for its pod."
    assert [step["tone"] for step in tab.sees("steps")][-1] == "now"
    assert not tab.sees("work_note")


async def keep_backup(box, **fields):
    async with session_scope() as session:
        backup = BoxBackup(
            box_id=box.id,
            reason="manual",
            location="backups/one",
            size_bytes=1_234_567,
            key_ct=b"sealed",
            created_at=real_now(),
            finished_at=real_now(),
            expires_at=real_now() + timedelta(days=30),
            **fields,
        )
        session.add(backup)
    return backup


@pytest.fixture
def _keeper(monkeypatch):
    chosen = replace(settings(), keeper_image="test/keeper:1")
    monkeypatch.setattr(backups, "settings", lambda: chosen)


@pytest.mark.usefixtures("_keeper")
def test_a_backup_is_made_and_brought_back_by_hand(client, open_tab):
    box = in_app(client, give_box, ADA, activated_at=real_now())
    in_app(client, keep_backup, box)
    tab = open_tab(ADA)
    assert (tab.sees("may_back_up"), tab.sees("has_backups")) == (True, True)
    (row,) = tab.sees("backups")
    assert (row["why"], row["size"]) == ("made by you", "1.2 MB")
    assert row["kept"].startswith("kept until ")
    assert "A backup is made" in tab.does(BoxState.back_up)
    assert "The backup comes back" in tab.does(BoxState.restore, backup=row["id"])
    (job,) = in_app(client, rows, OperatorJob)
    assert {"backup", "restore"} <= set(job.payload["actions"])
    assert in_app(client, acts) == ["box.backup", "box.restore"]


@pytest.mark.usefixtures("_keeper")
def test_nobody_restores_another_customers_backup(client, open_tab):
    backup = in_app(client, keep_backup, in_app(client, give_box, ADA))
    in_app(client, give_box, EVE)
    eve = open_tab(EVE)
    assert not eve.sees("has_backups")
    for asked in (str(backup.id), str(uuid4()), "x", None, 5):
        assert "There is no such backup" in eve.does(BoxState.restore, backup=asked)
    assert in_app(client, rows, OperatorJob) == []


@pytest.mark.usefixtures("_keeper")
def test_what_a_former_assistant_remembered_is_offered_to_the_next_one(client, open_tab):
    over = SubscriptionStatus.CANCELLED
    gone = in_app(client, give_box, ADA, status=BoxStatus.DESTROYED, paid=over)
    kept = in_app(client, keep_backup, gone)
    tab = open_tab(ADA)
    assert "What your former assistant remembered is kept until " in tab.sees("no_box_note")
    in_app(client, give_box, ADA, activated_at=real_now())
    tab = open_tab(ADA)
    (row,) = tab.sees("backups")
    assert (row["id"], row["why"]) == (str(kept.id), sentences.FORMER)
    assert "The backup comes back" in tab.does(BoxState.restore, backup=row["id"])
    assert in_app(client, acts) == ["box.restore"]
    (job,) = in_app(client, rows, OperatorJob)
    assert job.payload["backup_id"] == str(kept.id)


def test_a_snapshot_says_what_it_is():
    seen = BackupView(
        id=uuid4(),
        reason="scheduled",
        made_at=real_now(),
        size_bytes=0,
        expires_at=None,
        is_usable=True,
    )
    row = sentences.backup_row(seen)
    assert (row["why"], row["size"], row["kept"]) == (
        "made by itself, while it ran",
        "a snapshot of its volume",
        "kept",
    )


def test_where_backups_are_off_there_is_no_card(client, open_tab):
    in_app(client, give_box, ADA, activated_at=real_now())
    tab = open_tab(ADA)
    names = ("are_backups_on", "has_backups", "may_back_up")
    assert not any(tab.sees(name) for name in names)


@pytest.mark.parametrize(
    ("position", "because", "said"),
    [
        (1, "", "It is next in the queue."),
        (7, "", "It is number 7 in the queue."),
        (1, "retry", "the next one is in 2 min"),
        (1, "paused", "stopped new set-ups"),
        (1, "held", "until the cause is found"),
        (1, "another_job", "right after"),
        (1, "no_worker", "We were told"),
    ],
)
def test_the_queue_has_words_for_each_reason(position, because, said):
    now = real_now()
    standing = QueueStanding(
        position=position, waiting_because=because, due_at=now + timedelta(minutes=2, seconds=5)
    )
    assert said in waiting.sentence_of(standing, now)


def test_the_log_is_asked_for_only_while_it_is_open(client, open_tab):
    box = in_app(client, give_box, ADA)
    asked = f"window:asked:{box.id}"
    tab = open_tab(ADA)
    assert in_app(client, redis.kept, asked) == [None]
    tab.does(BoxState.open_log)
    assert tab.sees("log_note") == sentences.LOG_COMES
    assert in_app(client, redis.kept, asked) == ["1"]
    in_app(client, put_view, box.id)
    tab.does(BoxState.refresh, _date="now")
    assert tab.sees("log") == "14:00:01  a line of Ada's"
    assert tab.sees("log_note") == ""
    assert [one["text"] for one in tab.sees("events")] == ["Started: it runs"]
    tab.does(BoxState.close_log)
    assert (tab.sees("log"), tab.sees("is_watching")) == ("", False)
    assert in_app(client, redis.kept, asked) == [None]


async def put_view(box_id):
    view = Window(
        seen=Seen.OK,
        at=real_now().isoformat(),
        lines=(Line(at="2026-11-21T14:00:01.123456789Z", text="a line of Ada's"),),
        events=(Happening(at="", is_warning=False, text="Started: it runs"),),
    )
    await windows.leave_view(box_id, view)


def test_nobody_sees_another_customers_log(client, open_tab):
    box = in_app(client, give_box, ADA)
    in_app(client, put_view, box.id)
    in_app(client, give_box, EVE)
    eve = open_tab(EVE)
    eve.does(BoxState.open_log)
    eve.does(BoxState.refresh, _date="now")
    assert "a line of Ada's" not in eve.heard
    assert str(box.id) not in eve.heard
    assert in_app(client, redis.kept, f"window:asked:{box.id}") == [None]


@pytest.mark.parametrize(
    ("seen", "age", "said"),
    [
        (Seen.UNREACHABLE, timedelta(0), sentences.LOG_IS_LATE),
        (Seen.OK, timedelta(minutes=1), sentences.LOG_IS_LATE),
        (Seen.NO_POD, timedelta(0), sentences.LOG_NO_POD),
        (Seen.OK, timedelta(0), sentences.LOG_EMPTY),
    ],
)
def test_a_log_that_is_not_there_says_why(seen, age, said):
    now = real_now()
    window = Window(seen=seen, at=(now - age).isoformat())
    assert sentences.log_note(window, now) == said


def test_without_a_session_nothing_happens(client):
    box = in_app(client, give_box, ADA)
    with Tab(client, HERE, BoxState) as tab:
        tab.open()
        for handler in (
            BoxState.load,
            BoxState.restart,
            BoxState.pause,
            BoxState.resume,
            BoxState.open_log,
        ):
            assert "/login" in tab.does(handler)
    assert in_app(client, rows, OperatorJob) == []
    assert in_app(client, redis.kept, f"window:asked:{box.id}") == [None]


@pytest.mark.parametrize("status", [None, BoxStatus.DESTROYED])
def test_without_an_assistant_there_is_nothing_to_do(client, open_tab, status):
    if status is not None:
        in_app(client, give_box, ADA, status=status)
    tab = open_tab(ADA)
    assert (tab.sees("is_loaded"), bool(tab.sees("has_box"))) == (True, False)
    assert "There is no assistant." in tab.does(BoxState.restart)
    assert "There is no assistant." in tab.does(BoxState.pause)


async def test_tokens_are_tried_ten_times_an_hour(session):
    box = await make_box(session)
    by = By(customer_id=box.customer_id)
    token = f"{uuid4().int % 10**9:09d}:{'A' * 35}"
    for _ in range(box_acts.BOT_TRIES):
        await box_acts.check_bot(session, token, by=by)
        await box_acts.note_refused_bot(session, by=by)
    with pytest.raises(box_acts.ValidationError, match="Too many"):
        await box_acts.check_bot(session, token, by=by)


def test_a_word_in_the_address_is_no_text_of_ours(client, open_tab):
    in_app(client, give_box, ADA)
    assert not open_tab(ADA, f"{HERE}?error=<b>hello</b>").sees("bot_problem")
    assert "BotFather" in open_tab(ADA, f"{HERE}?error=not_a_token").sees("bot_problem")
    assert "restarts with it" in open_tab(ADA, f"{HERE}?bot=replaced").sees("bot_note")


def test_the_page_can_be_drawn():
    drawn = str(box_page())
    for mark in ("restart", "open-log", "replace-bot", "/box/bot", "log-note"):
        assert mark in drawn
