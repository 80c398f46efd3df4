"""What somebody chose on the page of the settings, read with a clear sentence for each mistake."""

from collections.abc import Mapping, Sequence
from typing import Any

from openclaw_web.boxes.models import DEFAULT_MODEL
from openclaw_web.boxes.openclaw_config import LANGUAGES, THINKING_LEVELS, model_id
from openclaw_web.boxes.service import BoxSettings
from openclaw_web.core.errors import ValidationError

LONGEST_TEXT = 500
LARGEST_ID = 2**52  # Telegram promises that its ids fit in so many bits
PROVIDER = DEFAULT_MODEL.partition("/")[0]
MODEL_LABELS = {"k2p5": "Kimi, always the newest (k2p5)"}
LEVEL_LABELS = {
    "off": "Off: answers at once",
    "minimal": "Minimal",
    "low": "Low",
    "medium": "Medium (the usual)",
    "high": "High",
    "xhigh": "Very high",
    "max": "Max: slowest, and uses the most tokens",
}
LIMIT_LABELS = {
    "polite": "Say politely in the chat that the tokens are used up",
    "error": "Give an error, as a program expects it",
}


def person(text: Any, known: Sequence[int], most: int, plan: str) -> int:
    """Read the Telegram id of somebody new.

    Raises:
        ValidationError: it is none, it is on the list, or the list is full.
    """
    digits = "".join(text.split()) if isinstance(text, str) else ""
    if not (digits.isascii() and digits.isdigit()) or not 0 < int(digits[:20]) < LARGEST_ID:
        raise ValidationError(
            "A Telegram id is a number such as 123456789. Names with an @ do not work here."
        )
    if int(digits) in known:
        raise ValidationError("This person is on the list already.")
    if len(known) >= most:
        raise ValidationError(f"The {plan} plan is for {people(most)}. Upgrade it to add more.")
    return int(digits)


def chosen(form: Any, ids: Sequence[int]) -> tuple[BoxSettings, str]:
    """Read the form: the settings, and what happens at the limit.

    Raises:
        ValidationError: a text is too long, or a choice is none of those offered.
    """
    fields = form if isinstance(form, Mapping) else {}
    wanted = BoxSettings(
        telegram_user_ids=tuple(ids),
        language=_one_of(fields, "language", LANGUAGES, "Choose a language from the list."),
        model=_text(fields, "model", "model"),
        thinking_level=_one_of(
            fields, "thinking_level", THINKING_LEVELS, "Choose a thinking level from the list."
        ),
        use_case=_text(fields, "use_case", "What you want it for"),
        style=_text(fields, "style", "How it should answer"),
    )
    at_limit = _one_of(fields, "limit_behaviour", LIMIT_LABELS, "Choose what happens at the limit.")
    return wanted, at_limit


def model_options(models: Sequence[str]) -> list[dict[str, str]]:
    """Return the models of a plan, as a box's row names them."""
    return [
        {"value": f"{PROVIDER}/{name}", "label": MODEL_LABELS.get(name, name)} for name in models
    ]


def model_value(model: str) -> str:
    """Return a box's model as the list of options names it."""
    return f"{PROVIDER}/{model_id(model)}"


def people(count: int) -> str:
    return "1 person" if count == 1 else f"{count} people"


def _one_of(fields: Mapping[str, Any], name: str, known: Any, problem: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or value not in known:
        raise ValidationError(problem)
    return value


def _text(fields: Mapping[str, Any], name: str, label: str) -> str:
    value = fields.get(name)
    words = " ".join(value.replace("\x00", "").split()) if isinstance(value, str) else ""
    if len(words) > LONGEST_TEXT:
        raise ValidationError(f"“{label}” may have {LONGEST_TEXT} characters.")
    return words.encode("utf-8", "ignore").decode()
