"""What the mails say."""

import pytest

from openclaw_web.accounts import layout, mails


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


def test_what_a_customer_typed_cannot_become_markup():
    letter = mails.write("suspended", {"reason": "<script>alert(1)</script>"})
    assert "<script>" not in layout.as_html(letter)


def test_a_code_mail_without_code_is_an_error():
    with pytest.raises(mails.UnknownMailError):
        mails.write("code", {})
