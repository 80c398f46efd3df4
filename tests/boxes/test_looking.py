"""What a customer reads of a box's log: the end of it, without what nobody else should read."""

import base64

import pytest

from openclaw_web.boxes import looking
from openclaw_web.core.logs import REDACTED

BOT = "123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw9"
GATEWAY = "0f3a" * 16


def shown(text, *secrets):
    (line,) = looking.lines_of(f"2026-11-21T12:00:00Z {text}", secrets)
    return line.text


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ('{"password":"hunter2abc"}', "hunter2"),
        ("password: x1y2z3", "x1y2z3"),
        ("Authorization: Basic QWxhZGRpbjpvcGVu", "QWxhZGRpbjpvcGVu"),
        ("GET /?token=abcdef", "abcdef"),
        ("key AKIAABCDEFGHIJKLMNOP", "AKIAABCDEFGHIJKLMNOP"),
        (f"GET /bot{BOT.replace(':', '%3A')}/getMe", BOT.partition(":")[2]),
        ("sk-proj-0123456789abcdef", "0123456789"),
    ],
    ids=["json", "password", "basic", "address", "cloud", "encoded bot", "model"],
)
def test_what_looks_like_a_secret_is_not_shown(text, secret):
    assert secret in text
    assert secret not in shown(text)
    assert REDACTED in shown(text)


@pytest.mark.parametrize(
    "form", [GATEWAY, base64.b64encode(GATEWAY.encode()).decode()], ids=["plain", "base64"]
)
def test_what_is_known_to_be_a_secret_is_not_shown_in_any_form(form):
    forms = looking.known_forms(GATEWAY)
    said = shown(f"the gateway says {form} today", *forms)
    assert form.rstrip("=") not in said
    assert said.startswith(f"the gateway says {REDACTED}")


def test_what_is_no_secret_stays():
    text = "12:30:45 [telegram] 3 tokens: connected to api.telegram.org as @ada_bot"
    assert shown(text) == text


def test_half_a_secret_at_the_end_of_a_long_line_is_not_shown():
    line = "x " * (looking.READ_CHARACTERS // 2 - 10) + BOT
    assert BOT[:12] in line[: looking.READ_CHARACTERS]
    assert BOT[:6] not in shown(line)


def test_the_newest_lines_are_kept():
    text = "\n".join(f"2026-11-21T12:00:00Z line {number}" for number in range(300))
    found = looking.lines_of(text, ())
    assert [found[0].text, found[-1].text] == ["line 100", "line 299"]
