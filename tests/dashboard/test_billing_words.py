"""What the billing page says of cards, charges and invoices."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from openclaw_web.billing.models import Invoice, Subscription, SubscriptionStatus, Tier
from openclaw_web.billing.tiers import plan_of
from openclaw_web.boxes.fitting import Misfit
from openclaw_web.dashboard.billing import sentences
from openclaw_web.integrations.payment_changes import Card, Charge

NOW = datetime(2026, 11, 21, tzinfo=UTC)
CHARGE = Charge(amount_cents=1900, currency="usd", at=NOW + timedelta(days=30))


def subscription(**fields: Any):
    known: dict[str, Any] = {
        "tier": Tier.PRO,
        "status": SubscriptionStatus.ACTIVE,
        "current_period_start": NOW,
        "current_period_end": CHARGE.at,
    }
    return Subscription(customer_id=uuid4(), tokens_limit=1, **{**known, **fields})


def invoice(status, **fields: Any):
    return Invoice(
        stripe_invoice_id="in_1",
        customer_id=uuid4(),
        status=status,
        currency="usd",
        due_cents=1900,
        paid_cents=0 if status == "open" else 1900,
        finalized_at=NOW,
        **fields,
    )


@pytest.mark.parametrize(
    ("month", "year", "words", "tone"),
    [
        (10, 2026, "It ended in 10/2026. Replace it", "bad-text"),
        (11, 2026, "before the next charge", "warning-text"),
        (12, 2026, "Good until 12/2026.", ""),
        (1, 2034, "Good until 01/2034.", ""),
    ],
    ids=["over", "ends before the charge", "ends after it", "far away"],
)
def test_a_card_that_ends_before_the_next_charge_is_warned_of(month, year, words, tone):
    card = Card(brand="visa", last4="4242", exp_month=month, exp_year=year)
    name, note, colour = sentences.card(card, CHARGE, NOW)
    assert name == "Visa ending in 4242"
    assert words in note
    assert colour == tone


@pytest.mark.parametrize(
    ("fields", "holds", "badge", "words"),
    [
        ({}, (), "Active", "Your plan renews on 21 Dec 2026."),
        ({"cancel_at_period_end": True}, (), "Ending", "Your plan ends on 21 Dec 2026."),
        ({"pending_tier": Tier.STARTER}, (), "Active", "and on Starter after it."),
        ({"status": SubscriptionStatus.TRIALING}, (), "On trial", "Your trial runs until 21 Dec"),
        (
            {"status": SubscriptionStatus.PAST_DUE, "grace_until": NOW},
            (),
            "Payment overdue",
            "works until 21 Nov 2026",
        ),
        ({"status": SubscriptionStatus.SUSPENDED}, (), "Suspended", "A payment is missing"),
        ({"status": SubscriptionStatus.SUSPENDED}, ("dispute",), "Suspended", "Your bank"),
        ({"status": SubscriptionStatus.SUSPENDED}, ("abuse",), "Suspended", "looking into it"),
        ({"status": SubscriptionStatus.CANCELLED}, (), "Ended", "memory is kept until 26 Nov"),
    ],
)
def test_every_state_of_a_plan_has_its_sentence(fields, holds, badge, words):
    row = subscription(**fields)
    assert sentences.badge(row)[0] == badge
    assert words in sentences.status(row, holds=holds, kept_until=NOW + timedelta(days=5))


def test_what_is_owed_comes_before_what_is_charged_next():
    row = subscription(status=SubscriptionStatus.PAST_DUE)
    assert sentences.next_charge(row, CHARGE, invoice("open")) == (
        "To pay",
        "$19",
        "owed since 21 Nov 2026",
    )
    assert sentences.next_charge(subscription(), None) == ("Next charge", "$49", "on 21 Dec 2026")


def test_a_missing_card_is_said():
    assert sentences.card(None, CHARGE, NOW)[0] == "No card"


def test_a_card_without_a_charge_is_still_told_when_it_ends():
    card = Card(brand="visa", last4="4242", exp_month=11, exp_year=2026)
    assert sentences.card(card, None, NOW)[1] == "It ends in 11/2026, soon."


@pytest.mark.parametrize(
    ("status", "refunded", "label"),
    [
        ("paid", 0, "Paid"),
        ("open", 0, "Open"),
        ("paid", 900, "Partly refunded"),
        ("paid", 1900, "Refunded"),
        ("uncollectible", 0, "Not paid"),
        ("draft", 0, "Draft"),
    ],
)
def test_an_invoice_says_whether_it_is_paid(status, refunded, label):
    shown = sentences.invoice(invoice(status, refunded_cents=refunded))
    assert (shown["status"], shown["day"], shown["amount"]) == (label, "21 Nov 2026", "$19")


def test_what_an_ended_plan_left_open_is_shown_and_not_asked_for():
    assert sentences.invoice(invoice("open"))["action"] == "Pay"
    assert sentences.invoice(invoice("open"), is_payable=False)["action"] == "View"


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, ""),
        (Misfit(people=(22,)), "Starter is for one person: this Telegram user"),
        (Misfit(people=(22, 33)), "these Telegram users could not write any more: 22, 33."),
        (Misfit(model="k3"), "Starter does not have the model k3"),
    ],
)
def test_what_a_smaller_plan_leaves_out_is_told_before_the_click(found, words):
    assert words in sentences.misfit_note(found, plan_of(Tier.STARTER))
