"""What every letter is made of, and how its parts are written."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from openclaw_web.core.settings import settings
from openclaw_web.ui import format as written

Payload = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Letter:
    """What a mail says; `layout` turns it into text and HTML."""

    subject: str
    heading: str
    paragraphs: tuple[str, ...]
    code: str = ""
    button: str = ""
    address: str = ""
    closing: str = "You get this mail because you have an assistant at OpenClaw Cloud."


def usage(payload: Payload) -> str:
    used, limit = payload.get("tokens_used"), payload.get("tokens_limit")
    until = day(payload, "period_end")
    counted = (
        f"Used so far: {written.tokens(int(used))} of {written.tokens(int(limit))} tokens"
        if used is not None and limit is not None
        else "Your assistant is near the tokens of your plan"
    )
    return f"{counted}{f'. The count starts anew on {until}' if until else ''}."


def day(payload: Payload, name: str) -> str:
    """Return a day of the payload as it is read, or nothing without one."""
    value = payload.get(name)
    return written.day(datetime.fromisoformat(value)) if isinstance(value, str) and value else ""


def money(payload: Payload, name: str = "price_cents") -> str:
    cents = payload.get(name)
    return "" if cents is None else written.money(int(cents), str(payload.get("currency") or "usd"))


def plan(payload: Payload, otherwise: str = "your plan") -> str:
    """Return the plan by its name: `the Pro plan`."""
    return f"the {payload['tier_name']} plan" if payload.get("tier_name") else otherwise


def page(path: str) -> str:
    return f"{settings().public_url}{path}"
