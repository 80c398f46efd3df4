"""Logs: one JSON object a line, with every secret that we can recognise taken out."""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

REDACTED = "[redacted]"
MAX_CHARACTERS = 8_000
CORRELATION_FIELDS = ("customer_id", "box_id", "job_id", "request_id")

# Linear whatever the text is: people read logs here that somebody else wrote.
_SECRETS = re.compile(
    r"(?<!\d)\d{6,20}(?::|%3[Aa])[A-Za-z0-9_-]{30,}"  # Telegram bot tokens
    r"|(?:sk|rk)_(?:test|live)_\w+"  # Stripe keys
    r"|whsec_\w+"
    r"|ocp_[A-Za-z0-9_-]+"  # our proxy tokens
    r"|(?<=Bearer )\S+"
    r"|(?<=[?&]token=)[^&\s\"']+"  # a tab's token, in the address of its websocket
    r"|(?<=(?i:cookie): )[^\r\n]+"
    r"|(?<=(?i:cookie)': ')[^']+"
    r"|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"  # user and password in an address; Redis has no user
)


def redact(text: str) -> str:
    """Take recognisable secrets out of a text.

    Each of them has one of the marks below. Most texts have none, and a webhook has hundreds.
    """
    has_mark = (
        ":" in text
        or "k_" in text
        or "ocp_" in text
        or "whsec_" in text
        or "Bearer " in text
        or "%3" in text
        or "token=" in text
    )
    return _SECRETS.sub(REDACTED, text) if has_mark else text


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage())[:MAX_CHARACTERS],
        }
        for field in CORRELATION_FIELDS:
            if (value := getattr(record, field, None)) is not None:
                entry[field] = str(value)
        if record.exc_info:
            entry["traceback"] = redact(self.formatException(record.exc_info))[-MAX_CHARACTERS:]
        return json.dumps(entry, ensure_ascii=False)


def configure_logs(level: str = "INFO") -> None:
    """Send all logs of this process to standard error, as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "stripe", "kubernetes", "asyncio", "aiosmtplib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
