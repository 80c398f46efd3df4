"""What a log line may say, and what never reaches it."""

import io
import json
import logging
import sys

import pytest

from openclaw_web.core import logs
from openclaw_web.core.logs import JsonFormatter, redact

TAB = "0b9a2f54-5d0e-4c6b-9a38-3e1f8a1c7d2e"


def written(record: logging.LogRecord) -> dict:
    return json.loads(JsonFormatter().format(record))


def a_record(message: str, *args: object, **options) -> logging.LogRecord:
    more = {"exc_info": None, **options}
    return logging.LogRecord("a.logger", logging.INFO, "file.py", 1, message, args, **more)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("token 123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw9 given", "AAHdqTcv"),
        ("with sk_test_51Habc and rk_live_9x", "51Habc"),
        ("signed with whsec_abc123", "abc123"),
        ("a box showed ocp_mfrggzdfmztwq2lknnwg23tpoa_abc-DEF", "mfrggzdf"),
        ("Authorization: Bearer abc.def", "abc.def"),
        ("Cookie: oc_session=abcdef; other=1", "abcdef"),
        ("{'cookie': 'oc_session=abcdef'}", "abcdef"),
        ("postgresql://openclaw:hunter2@db:5432/x is away", "hunter2"),
        ("redis://:hunter2@127.0.0.1:6379/0 is away", "hunter2"),
        (f'"WebSocket /_event/?token={TAB}&EIO=4" [accepted]', TAB),
        (f'"WebSocket /_event/?EIO=4&transport=websocket&token={TAB}" 403', TAB),
    ],
    ids=[
        "telegram", "stripe", "webhook", "proxy", "bearer", "cookie", "cookies", "postgres",
        "redis", "tab first", "tab last",
    ],
)  # fmt: skip
def test_a_secret_is_taken_out(text, secret):
    assert secret in text
    assert secret not in redact(text)
    assert logs.REDACTED in redact(text)


def test_what_is_no_secret_stays():
    text = "Job 7 of customer-1 at http://localhost:3000/start?tier=pro waits; 12:30:45"
    assert redact(text) == text


def test_a_line_is_json_with_what_it_belongs_to():
    record = a_record("Job %s failed", "x")
    record.job_id, record.customer_id = 7, None
    line = written(record)
    assert (line["message"], line["level"], line["logger"]) == ("Job x failed", "info", "a.logger")
    assert line["job_id"] == "7"
    assert "customer_id" not in line


def test_a_traceback_is_redacted_too():
    try:
        int("redis://:hunter2@host")
    except ValueError:
        line = written(a_record("It failed", exc_info=sys.exc_info()))
    assert "hunter2" not in line["traceback"]
    assert "ValueError" in line["traceback"]


def test_an_endless_message_is_cut():
    assert len(written(a_record("x" * 100_000))["message"]) == logs.MAX_CHARACTERS


def test_the_web_servers_line_about_a_connection_hides_its_tab(monkeypatch):
    root, uvicorn = logging.getLogger(), logging.getLogger("uvicorn.error")
    before, level = root.handlers[:], root.level
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    try:
        logs.configure_logs("INFO")
        uvicorn.info('%s - "WebSocket %s" [accepted]', "127.0.0.1", f"/_event/?token={TAB}")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    line = json.loads(shown.getvalue())
    assert line["message"] == '127.0.0.1 - "WebSocket /_event/?token=[redacted]" [accepted]'
