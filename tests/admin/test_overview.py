"""The overview: everything at a glance, for staff only."""

from datetime import timedelta
from uuid import uuid4

import pytest

from openclaw_web.admin import queries
from openclaw_web.admin.page import overview_page
from openclaw_web.admin.state import AdminState
from openclaw_web.billing.models import SubscriptionStatus, Tier
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.switches import advance_clock
from openclaw_web.jobs import service as jobs
from openclaw_web.jobs.models import JobStatus, JobType, OperatorJob
from openclaw_web.metering.models import UsageDaily
from tests.factories import make_box, make_customer, make_period, make_subscription, now
from tests.ui.tab import Tab, admin_cookie, customer_cookie, in_app, running_app

ADA = "ada_lovelace@example.com"


@pytest.fixture
def client(database, valkey_server):
    with running_app(database, valkey_server.url, {"/admin": AdminState.load}) as client:
        yield client


@pytest.fixture
def root(client):
    return admin_cookie(client, "root@example.com")


async def add_customer(email=ADA, *, status=BoxStatus.ACTIVE, plan=SubscriptionStatus.ACTIVE):
    async with session_scope() as session:
        customer = await make_customer(session, email=email)
        subscription = await make_subscription(
            session, customer=customer, tier=Tier.PRO, status=plan
        )
        box = await make_box(session, subscription=subscription, status=status)
        await make_period(session, subscription=subscription, tokens_used=1_500_000)
        return box


async def add_job(box, status=JobStatus.FAILED, *, error_code=None, age=timedelta(0), **fields):
    async with session_scope() as session:
        session.add(
            OperatorJob(
                customer_id=box.customer_id,
                box_id=box.id,
                job_type=JobType.UPDATE,
                status=status,
                error_code=error_code,
                created_at=now() - age,
                **fields,
            )
        )


def figures(tab):
    return {one["name"]: (one["value"], one["note"]) for one in tab.sees("figures")}


def opened(client, cookie):
    with Tab(client, "/admin", AdminState, cookie=cookie) as tab:
        tab.open()
        return tab


def test_an_empty_house_is_shown_as_one(client, root):
    tab = opened(client, root)
    assert figures(tab) == {
        "Customers": ("1", "0 paying"),
        "Boxes answering": ("0 of 0", "all well"),
        "Jobs waiting": ("0", "none failed in a day"),
        "Tokens today": ("0", "all customers"),
    }
    assert [row["email"] for row in tab.sees("customers")] == ["root@example.com"]
    assert tab.sees("customers")[0]["box"] == "no box"


def test_customers_boxes_jobs_and_tokens_are_counted(client, root):
    box = in_app(client, add_customer)
    in_app(client, add_customer, "b@example.com", status=BoxStatus.UNHEALTHY)
    in_app(
        client,
        add_customer,
        "c@example.com",
        status=BoxStatus.DESTROYED,
        plan=SubscriptionStatus.CANCELLED,
    )
    in_app(client, add_job, box, JobStatus.QUEUED)
    in_app(client, add_job, box)
    in_app(client, add_job, box, error_code="superseded")
    in_app(client, add_job, box, error_code="cancelled")
    in_app(client, add_job, box, age=timedelta(days=2))

    async def use():
        async with session_scope() as session:
            day = (await business_now(session)).date()
            session.add(
                UsageDaily(
                    customer_id=box.customer_id,
                    box_id=box.id,
                    day=day,
                    model="k2p5",
                    prompt_tokens=12_000,
                    completion_tokens=345,
                )
            )

    in_app(client, use)
    assert figures(opened(client, root)) == {
        "Customers": ("4", "2 paying"),
        "Boxes answering": ("1 of 2", "1 unhealthy"),
        "Jobs waiting": ("1", "1 failed in a day"),
        "Tokens today": ("12.3k", "all customers"),
    }


def test_a_customers_row_says_how_they_are(client, root):
    box = in_app(client, add_customer, status=BoxStatus.SUSPENDED, plan=SubscriptionStatus.PAST_DUE)
    row = next(one for one in opened(client, root).sees("customers") if one["email"] == ADA)
    assert (row["tier"], row["subscription"]) == ("Pro", "past due")
    assert (row["box"], row["box_tone"]) == ("suspended", "warning")
    assert (row["namespace"], row["used"]) == (box.k8s_namespace, "1.5M of 10M")


@pytest.mark.parametrize("part", ["lovelace", "ADA_", "namespace", "id"])
def test_a_customer_is_found_by_address_id_or_namespace(client, root, part):
    box = in_app(client, add_customer)
    in_app(client, add_customer, "adaxlove@example.com")
    words = {"namespace": box.k8s_namespace[9:20], "id": str(box.customer_id)[:13]}
    with Tab(client, "/admin", AdminState, cookie=root) as tab:
        tab.open()
        tab.does(AdminState.look_for, text=words.get(part, part))
        assert [row["email"] for row in tab.sees("customers")] == [ADA]


@pytest.mark.parametrize("text", ["%", "\x00", "\ud800", "'; --", 7, None, {"a": []}, "x" * 9_000])
def test_nonsense_in_the_search_breaks_nothing(client, root, text, caplog):
    with Tab(client, "/admin", AdminState, cookie=root) as tab:
        tab.open()
        tab.does(AdminState.look_for, text=text)
        assert tab.sees("error") in {None, ""}
    assert "Traceback" not in caplog.text


def test_a_job_names_its_customer_also_outside_the_search(client, root):
    box = in_app(client, add_customer)
    in_app(client, add_job, box, error_log="x" * 4_000)
    with Tab(client, "/admin", AdminState, cookie=root) as tab:
        tab.open()
        tab.does(AdminState.look_for, text="nobody")
        assert tab.sees("customers") == []
        (job,) = tab.sees("jobs")
    assert (job["customer"], job["status"], job["tone"]) == (ADA, "failed", "bad")
    assert len(job["note"]) < 200


def test_ages_are_told_in_business_time(client, root):
    box = in_app(client, add_customer)
    in_app(client, add_job, box, age=timedelta(hours=2))

    async def a_week_passes():
        async with session_scope() as session:
            await advance_clock(session, 7 * 86_400, by="a test")

    in_app(client, a_week_passes)
    (job,) = opened(client, root).sees("jobs")
    assert job["when"] == "7 days ago"


@pytest.mark.parametrize(
    ("detail", "shown"),
    [({"sentence": "Look."}, "Look."), ({"error": "Broken."}, "Broken."), ({}, "")],
)
def test_an_alert_says_what_is_known(client, root, detail, shown):
    async def alarm():
        async with session_scope() as session:
            await jobs.raise_alert(session, code="paid_without_box", subject="sub_1", detail=detail)

    in_app(client, alarm)
    (alert,) = opened(client, root).sees("alerts")
    assert (alert["code"], alert["subject"]) == ("Paid without box", "sub_1")
    assert (alert["detail"], alert["since"]) == (shown, "just now")


def test_a_customer_sees_nothing_of_it(client):
    in_app(client, add_customer)
    eve = customer_cookie(client, "eve@example.com")
    with Tab(client, "/admin", AdminState, cookie=eve) as tab:
        assert '"/home"' in tab.open()
        tab.does(AdminState.look_for, text="ada")
        assert ADA not in tab.heard
        assert tab.sees("customers") in (None, [])


def test_the_margin_of_every_plan_is_shown(client, root):
    shown = {row["name"]: row for row in opened(client, root).sees("margins")}
    assert list(shown) == ["Starter", "Pro", "Team"]
    team = shown["Team"]
    assert (team["cached"], team["half"], team["uncached"]) == ("49.2 %", "14.2 %", "-29.5 %")
    assert (team["half_tone"], team["uncached_tone"]) == ("number", "number bad-text")


def test_the_page_can_be_drawn():
    assert 'id:"customers"' in str(overview_page())


def test_a_visitor_is_asked_to_sign_in(client):
    with Tab(client, "/admin", AdminState) as tab:
        assert "/login?next=%2Fadmin" in tab.open()
        assert tab.sees("customers") in (None, [])


async def test_the_newest_subscription_and_box_stand_for_a_customer(session):
    customer = await make_customer(session, email=ADA)
    old = await make_subscription(
        session,
        customer=customer,
        status=SubscriptionStatus.CANCELLED,
        created_at=now() - timedelta(days=9),
    )
    await make_box(session, subscription=old, status=BoxStatus.DESTROYED)
    new = await make_subscription(session, customer=customer, tier=Tier.TEAM, created_at=now())
    await make_box(session, subscription=new)
    (row,) = await queries.any_customers_overview(session, await business_now(session))
    assert (row.tier, row.subscription_status, row.box_status) == ("team", "active", "active")
    assert (row.tokens_used, row.tokens_limit) == (0, 0)


async def test_a_deleted_customer_is_not_listed(session):
    await make_customer(session, email=ADA, deleted_at=now())
    current = await business_now(session)
    assert await queries.any_customers_overview(session, current) == []
    assert (await queries.any_customers_totals(session, current)).customers == 0
    assert await queries.any_customers_emails(session, [uuid4()]) == {}
