"""The billing page: the plan, its change and end, the card and the invoices, for its owner only."""

from datetime import timedelta

import pytest

from openclaw_web.accounts import service as accounts
from openclaw_web.billing import service as billing
from openclaw_web.billing.models import Invoice, Subscription, SubscriptionStatus, Tier
from openclaw_web.core.database import session_scope
from openclaw_web.dashboard.billing import state as page_state
from openclaw_web.dashboard.billing.page import billing_page
from openclaw_web.dashboard.billing.state import STRIPE_IS_AWAY, BillingState
from openclaw_web.integrations import payment_client
from openclaw_web.ui import format as fmt
from openclaw_web.workflows import subscription as workflow
from tests.billing.buying import only, rows
from tests.billing.changing import REFUSED_LATER, actions, invoices, subscribe, use_card
from tests.billing.stripe_world import KEY, stripe_world
from tests.factories import make_box, make_subscription, now
from tests.ui.tab import Tab, customer_cookie, in_app, running_app

ADA, EVE = "ada@example.com", "eve@example.com"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def stripe_process(tmp_path_factory):
    with stripe_world(tmp_path_factory.mktemp("stripe")) as world:
        yield world


@pytest.fixture
def client(database, valkey_server):
    with running_app(database, valkey_server.url, {"/billing": BillingState.load}) as client:
        yield client


@pytest.fixture
def stripe(client, stripe_process):
    async def opened():
        payment_client.open_payments(KEY, stripe_process.url)
        await billing.publish_catalogue()

    in_app(client, opened)
    yield stripe_process
    in_app(client, payment_client.close_payments)


@pytest.fixture
def away(client, monkeypatch):
    """Let Stripe not answer."""

    async def opened():
        payment_client.open_payments(KEY, NOWHERE)

    monkeypatch.setattr(payment_client, "NETWORK_RETRIES", 0)
    in_app(client, opened)
    yield
    in_app(client, payment_client.close_payments)


@pytest.fixture
def ada(client):
    return customer_cookie(client, ADA)


def buys(client, stripe, tier=Tier.STARTER):
    """Let somebody buy a plan, with all that follows, and return their cookie."""

    async def with_address():
        customer_id = await subscribe(stripe, tier)
        async with session_scope() as session:
            found = await accounts.find_customer(session, customer_id)
            return found.email if found else ""

    return customer_cookie(client, in_app(client, with_address))


async def give_plan(email, *, box=True, invoice=None, **plan):
    async with session_scope() as session:
        customer = await accounts.ensure_customer(session, email)
        row = await make_subscription(session, customer=customer, **plan)
        if box:
            await make_box(session, subscription=row, delete_after=now() + timedelta(days=5))
        if invoice:
            session.add(
                Invoice(
                    stripe_invoice_id=f"in_{email}",
                    customer_id=customer.id,
                    currency="usd",
                    finalized_at=now(),
                    **invoice,
                )
            )
    return row


async def worker():
    for customer_id in await workflow.due_syncs():
        await workflow.sync(customer_id)


def opened(client, cookie):
    with Tab(client, "/billing", BillingState, cookie=cookie) as tab:
        tab.open()
        tab.does(BillingState.refresh, _date="now")
        return tab


def test_somebody_without_a_plan_is_told_where_to_get_one(client, ada):
    tab = opened(client, ada)
    assert tab.sees("is_loaded") is True
    assert tab.sees("has_plan") in {None, False}


def test_a_plan_shows_what_it_gives_what_comes_next_and_the_card(client, stripe):
    tab = opened(client, buys(client, stripe, Tier.PRO))
    row = in_app(client, only, Subscription)
    ends = fmt.day(row.current_period_end)
    assert (tab.sees("plan"), tab.sees("badge")) == ("Pro", "Active")
    assert tab.sees("sentence") == f"Your plan renews on {ends}."
    assert (tab.sees("charge"), tab.sees("charge_note")) == ("$49", f"on {ends}")
    assert tab.sees("card") == "Visa ending in 4242"
    (invoice,) = tab.sees("invoices")
    assert (invoice["amount"], invoice["status"]) == ("$49", "Paid")
    assert [plan["kind"] for plan in tab.sees("plans")] == ["downgrade", "current", "upgrade"]


def test_an_upgrade_is_previewed_and_then_paid(client, stripe):
    cookie = buys(client, stripe)
    with Tab(client, "/billing", BillingState, cookie=cookie) as tab:
        tab.open()
        tab.does(BillingState.look_at, tier="pro")
        assert tab.sees("is_asking") is True
        lines = {line["name"]: line["value"] for line in tab.sees("asked_lines")}
        assert lines["Tokens a month"] == "40,000,000"
        tab.does(BillingState.confirm)
        in_app(client, worker)
        tab.does(BillingState.refresh, _date="now")
        assert (tab.sees("plan"), tab.sees("is_asking")) == ("Pro", False)
        tab.does(BillingState.confirm)
    newest = in_app(client, invoices, stripe)[0]
    assert lines["To pay now"] == fmt.money(newest["amount_paid"])
    assert in_app(client, actions) == ["plan.upgraded"]


def test_a_refused_card_is_said_where_the_question_stands(client, stripe):
    cookie = buys(client, stripe)
    in_app(client, use_card, stripe, REFUSED_LATER)
    with Tab(client, "/billing", BillingState, cookie=cookie) as tab:
        tab.open()
        tab.does(BillingState.look_at, tier="pro")
        tab.does(BillingState.confirm)
        assert "Nothing has changed and nothing was charged" in tab.sees("problem")
        assert tab.sees("is_asking") is True
        tab.does(BillingState.stop_asking, is_open=False)
        assert (tab.sees("problem"), tab.sees("plan")) == ("", "Starter")


def test_a_smaller_plan_waits_and_is_taken_back(client, stripe):
    cookie = buys(client, stripe, Tier.TEAM)
    with Tab(client, "/billing", BillingState, cookie=cookie) as tab:
        tab.open()
        tab.does(BillingState.look_at, tier="starter")
        assert tab.sees("asked_lines")[0]["value"] == "Nothing"
        tab.does(BillingState.confirm)
        in_app(client, worker)
        tab.does(BillingState.refresh, _date="now")
        assert (tab.sees("plan"), tab.sees("pending"), tab.sees("charge")) == (
            "Team",
            "Starter",
            "$19",
        )
        tab.does(BillingState.undo_change)
        in_app(client, worker)
        tab.does(BillingState.refresh, _date="now")
        assert tab.sees("pending") == ""


def test_leaving_asks_for_a_reason_and_is_taken_back(client, stripe):
    cookie = buys(client, stripe)
    with Tab(client, "/billing", BillingState, cookie=cookie) as tab:
        tab.open()
        tab.does(BillingState.ask_to_leave, is_open=True)
        for form in ({}, {"reason": "nonsense"}, "no form at all"):
            tab.does(BillingState.cancel, form=form)
            assert tab.sees("problem").startswith("Choose one")
        tab.does(BillingState.cancel, form={"reason": "unused", "comment": "\x00Later"})
        in_app(client, worker)
        tab.does(BillingState.refresh, _date="now")
        assert (tab.sees("is_ending"), tab.sees("charge")) == (True, "None")
        assert [plan["button"] for plan in tab.sees("plans")] == ["", "", ""]
        assert in_app(client, only, Subscription).cancel_reason == "unused: Later"
        tab.does(BillingState.undo_cancel)
        in_app(client, worker)
        tab.does(BillingState.refresh, _date="now")
        assert tab.sees("is_ending") is False


@pytest.mark.usefixtures("away")
def test_without_stripe_the_page_shows_what_we_know(client, ada):
    invoice = {"status": "paid", "due_cents": 1900, "paid_cents": 1900}
    in_app(client, give_plan, ADA, invoice=invoice)
    tab = opened(client, ada)
    assert tab.sees("stripe_note") == STRIPE_IS_AWAY
    assert (tab.sees("plan"), tab.sees("charge")) == ("Starter", "$19")
    assert tab.sees("card") in {None, ""}
    assert len(tab.sees("invoices")) == 1
    assert tab.sees("error") in {None, ""}


@pytest.mark.usefixtures("away")
def test_a_click_that_stripe_does_not_answer_says_so(client, ada):
    in_app(client, give_plan, ADA)
    with Tab(client, "/billing", BillingState, cookie=ada) as tab:
        tab.open()
        tab.does(BillingState.look_at, tier="pro")
        assert tab.sees("problem").startswith("Stripe, which handles our payments, did not")
        assert "did not take this" in tab.does(BillingState.undo_cancel)
        assert tab.sees("is_asking") in {None, False}


@pytest.mark.usefixtures("away")
def test_an_overdue_payment_leads_to_its_invoice(client, ada):
    invoice = {"status": "open", "due_cents": 1900, "hosted_url": "https://pay.example/i/1"}
    in_app(client, give_plan, ADA, status=SubscriptionStatus.PAST_DUE, invoice=invoice)
    with Tab(client, "/billing", BillingState, cookie=ada) as tab:
        tab.open()
        assert tab.sees("is_overdue") is True
        assert "https://pay.example/i/1" in tab.does(BillingState.fix_payment)


def test_a_plan_that_has_ended_is_paid_anew_while_its_box_is_kept(client, ada, stripe):
    assert stripe
    in_app(client, give_plan, ADA, status=SubscriptionStatus.CANCELLED)
    with Tab(client, "/billing", BillingState, cookie=ada) as tab:
        tab.open()
        assert "/c/pay/" in tab.does(BillingState.look_at, tier="pro")


@pytest.mark.usefixtures("away")
def test_a_plan_whose_box_is_gone_begins_with_the_chat(client, ada):
    in_app(client, give_plan, ADA, status=SubscriptionStatus.CANCELLED, box=False)
    with Tab(client, "/billing", BillingState, cookie=ada) as tab:
        tab.open()
        assert "/start?tier=pro" in tab.does(BillingState.look_at, tier="pro")


@pytest.mark.usefixtures("away")
def test_nothing_of_another_customer_appears(client, ada):
    invoice = {"status": "paid", "due_cents": 98765, "number": "EVE-1"}
    in_app(client, give_plan, EVE, tier=Tier.TEAM, invoice=invoice)
    tab = opened(client, ada)
    assert tab.sees("has_plan") in {None, False}
    for secret in ("EVE-1", "987.65", EVE):
        assert secret not in tab.heard


def test_without_a_session_nothing_is_shown_or_done(client):
    in_app(client, give_plan, ADA)
    with Tab(client, "/billing", BillingState) as tab:
        assert "/login?next=%2Fbilling" in tab.open()
        for handler, payload in (
            (BillingState.load, {}),
            (BillingState.look_at, {"tier": "team"}),
            (BillingState.confirm, {}),
            (BillingState.cancel, {"form": {"reason": "other"}}),
            (BillingState.undo_cancel, {}),
            (BillingState.open_portal, {}),
        ):
            assert "/login" in tab.does(handler, **payload)
        assert tab.sees("plan") in {None, ""}
    assert in_app(client, rows, Subscription)[0].cancel_reason is None


def test_a_failure_is_said_in_one_sentence(client, ada, monkeypatch, caplog):
    async def broken(*_args, **_named):
        raise RuntimeError("a secret of ours")

    in_app(client, give_plan, ADA)
    monkeypatch.setattr(page_state.queries, "invoices_of_customer", broken)
    with Tab(client, "/billing", BillingState, cookie=ada) as tab:
        tab.open()
        assert tab.sees("error").startswith("This page could not be loaded")
        assert "a secret of ours" not in tab.heard
    assert "a secret of ours" in caplog.text


def test_the_page_can_be_drawn():
    drawn = str(billing_page())
    for piece in ("plan-sentence", "confirm-change", "confirm-cancel", "invoices"):
        assert piece in drawn
