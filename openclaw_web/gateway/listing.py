"""The models of a plan, listed as either API lists its own."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

from openclaw_web.gateway.errors import BadRequestError, Form, NotFoundError

PAGE = 20
LARGEST_PAGE = 1_000
UNKNOWN_SINCE = "1970-01-01T00:00:00Z"  # Anthropic's own way to say that a date is not known


def models(names: Sequence[str], form: Form, query: bytes) -> dict[str, Any]:
    """List the models; Anthropic's form has pages, OpenAI's has not.

    Raises:
        BadRequestError: the page's limit is no number that the API takes.
    """
    if form is Form.OPENAI:
        return {"object": "list", "data": [_entry(name, form) for name in names]}
    asked = parse_qs(query.decode("latin-1"))
    limit = _limit(asked.get("limit", [str(PAGE)])[-1])
    before, after = asked.get("before_id", [""])[-1], asked.get("after_id", [""])[-1]
    if before in names:
        end = names.index(before)
        page, has_more = names[max(0, end - limit) : end], end > limit
    else:
        start = names.index(after) + 1 if after in names else 0
        page, has_more = names[start : start + limit], start + limit < len(names)
    return {
        "data": [_entry(name, form) for name in page],
        "has_more": has_more,
        "first_id": page[0] if page else None,
        "last_id": page[-1] if page else None,
    }


def model(names: Sequence[str], name: str, form: Form) -> dict[str, Any]:
    """Describe one model.

    Raises:
        NotFoundError: it is not part of the plan.
    """
    if name not in names:
        raise NotFoundError(f"The model {name} is not part of this plan.", code="model_not_found")
    return _entry(name, form)


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= LARGEST_PAGE):
        raise BadRequestError(f"`limit` must be a number from 1 to {LARGEST_PAGE}.")
    return int(text)


def _entry(name: str, form: Form) -> dict[str, Any]:
    if form is Form.OPENAI:
        return {"id": name, "object": "model", "created": 0, "owned_by": "kimi"}
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": UNKNOWN_SINCE,
        "lifecycle": "active",
    }
