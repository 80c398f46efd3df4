"""What of a Stripe event may be stored: ids, states and amounts, but nothing about a person.

The sync fetches again what it needs, so nothing of ours reads what is taken out here.
"""

import re
from functools import lru_cache
from typing import Any

from openclaw_web.core.logs import REDACTED, redact
from openclaw_web.jobs.merging import SECRET_WORDS

PERSONAL = frozenset(
    {
        "address",
        "billing_details",
        "business_name",
        "card",
        "custom_fields",
        "customer_address",
        "customer_details",
        "customer_email",
        "customer_name",
        "customer_phone",
        "customer_shipping",
        "customer_tax_ids",
        "description",
        "email",
        "evidence",
        "individual_name",
        "ip_address",
        "name",
        "payment_method_details",
        "phone",
        "receipt_email",
        "shipping",
        "shipping_details",
        "statement_descriptor",
        "tax_ids",
    }
)
# Whoever has one of these can pay, read an invoice, or act for the customer.
BEARER = frozenset(
    {"client_secret", "hosted_invoice_url", "invoice_pdf", "receipt_url", "secret", "url"}
)
TAKEN_OUT = PERSONAL | BEARER
DEEPEST = 40  # Stripe nests about ten deep; a signed but absurd document must not exhaust the stack

_EMAIL = re.compile(r"[^\s@<>\"']+@[^\s@<>\"']+\.[^\s@<>\"']+")


def without_people(value: Any, *, depth: int = 0) -> Any:
    """Return a copy of a document without personal fields and secrets; empty ones stay empty."""
    if isinstance(value, str):
        return _text(value)
    if depth > DEEPEST and isinstance(value, dict | list):
        return REDACTED
    if isinstance(value, dict):
        return {
            name: REDACTED if one and is_taken_out else without_people(one, depth=depth + 1)
            for (name, is_taken_out), one in zip(map(_field, value), value.values(), strict=True)
        }
    if isinstance(value, list):
        return [without_people(one, depth=depth + 1) for one in value]
    return value


def _text(value: str) -> str:
    """Take e-mail addresses and secrets out of a text, and the NUL that PostgreSQL refuses."""
    clean = redact(value.replace("\x00", "") if "\x00" in value else value)
    return _EMAIL.sub(REDACTED, clean) if "@" in clean else clean


@lru_cache(maxsize=4_096)
def _field(name: str) -> tuple[str, bool]:
    """Return a field's name as it may be stored, and whether its value may not.

    There are few names, and they come again in every event.
    """
    is_secret = any(word in name.lower() for word in SECRET_WORDS)
    return _text(name), name in TAKEN_OUT or is_secret
