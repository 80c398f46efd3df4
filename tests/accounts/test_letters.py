"""What the mails say."""

import pytest

from openclaw_web.accounts import layout, mails

DAY = "2026-12-03T10:00:00+00:00"


@pytest.mark.parametrize("kind", [kind for kind in mails.MailKind if kind != "code"])
def test_each_mail_can_be_written_from_an_empty_payload(kind):
    letter = mails.write(kind, {})
    assert letter.subject
    assert letter.address
    for text in (layout.as_text(letter), layout.as_html(letter)):
        assert "None" not in text
        assert "{" not in layout.as_text(letter)


def test_the_payload_fills_the_mail():
    payload = {
        "tokens_used": 7_500_000,
        "tokens_limit": 10_000_000,
        "period_end": "2026-12-21T10:00:00+00:00",
    }
    text = layout.as_text(mails.write("limit_75", payload))
    assert "7,500,000 of 10,000,000 tokens" in text
    assert "21 Dec 2026" in text


@pytest.mark.parametrize(
    ("kind", "payload", "sentence"),
    [
        ("renewal_receipt", {"amount_cents": 4900, "invoice_number": "A-7"}, "number A-7"),
        ("grace_ending", {"grace_until": DAY, "price_cents": 1900}, "stops answering on 3 Dec"),
        ("payment_thanks", {"amount_cents": 1900, "period_end": DAY}, "paid until 3 Dec 2026"),
        ("plan_changed", {"tier_name": "Pro", "tokens_limit": 40_000_000}, "40,000,000 tokens"),
        ("plan_change_scheduled", {"tier_name": "Starter", "period_end": DAY}, "on 3 Dec 2026"),
        ("cancel_scheduled", {"period_end": DAY}, "works until 3 Dec 2026"),
        ("cancel_undone", {"price_cents": 1900, "period_end": DAY}, "$19 on 3 Dec 2026"),
        ("destroy_soon", {"delete_after": DAY}, "deleted on 3 Dec 2026"),
        ("refunded", {"amount_cents": 1950, "reason": "we failed"}, "because we failed."),
        ("dispute_opened", {"amount_cents": 4900}, "payment of $49 was not in order"),
    ],
)
def test_the_letters_about_money_name_the_sum_and_the_day(kind, payload, sentence):
    letter = mails.write(kind, payload)
    assert sentence in " ".join(layout.as_text(letter).split())
    assert letter.address.endswith("/billing")


def test_what_a_customer_typed_cannot_become_markup():
    letter = mails.write("suspended", {"reason": "<script>alert(1)</script>"})
    assert "<script>" not in layout.as_html(letter)


def test_a_code_mail_without_code_is_an_error():
    with pytest.raises(mails.UnknownMailError):
        mails.write("code", {})
