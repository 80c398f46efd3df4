"""What the model says next: answers that a test queued, or a friendly sentence of its own."""

import json
import math
from dataclasses import dataclass, fields
from typing import Any

from simulators.kimi.store import Store

BYTES_PER_TOKEN = 4
QUOTE_LENGTH = 160
REASONING = "They want a short and friendly answer."
INTERNAL_CONTEXT = "<<<"  # OpenClaw appends messages for the model alone; they begin so


class AnswerError(Exception):
    """A queued answer is not written as it must be."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One queued answer; what is left out is derived from the request."""

    text: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    delay_seconds: float = 0.0
    chunk_delay_seconds: float = 0.0
    status: int | None = None
    error: Any = None
    retry_after_seconds: int | None = None
    cut_after_chunks: int | None = None
    no_usage: bool = False
    times: int = 1


ACCEPTED = {
    "text": (str, type(None)),
    "delay_seconds": (int, float),
    "chunk_delay_seconds": (int, float),
    "no_usage": (bool,),
    "error": (str, dict, type(None)),
}
COUNT = (int, type(None))
NAMES = frozenset(field.name for field in fields(Answer))


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens, as OpenAI counts them: cached ones are among the prompt, reasoning in completion."""

    prompt: int
    completion: int
    cached: int = 0
    reasoning: int = 0

    def as_json(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "cached_tokens": self.cached,
            "reasoning_tokens": self.reasoning,
        }


@dataclass(frozen=True, kw_only=True)
class Question:
    """What both wire forms ask, in one shape."""

    model: str
    is_stream: bool
    wants_usage: bool
    wants_reasoning: bool
    prompt_bytes: int
    last_user_text: str
    most_tokens: int | None


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What both wire forms answer, in one shape."""

    text: str
    reasoning: str
    usage: Usage
    is_cut_short: bool


class Answers:
    """The queue of answers; it survives a restart."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def queue(self, given: Any) -> int:
        """Add answers to the queue and return how many there are in this call.

        Raises:
            AnswerError: a field is unknown or of the wrong type.
        """
        if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
            raise AnswerError("answers must be a list of objects")
        for one in given:
            _check(one)
        for one in given:
            self._store.add_answer(json.dumps(one), int(one.get("times", 1)))
        return len(given)

    def clear(self) -> None:
        self._store.clear_answers()

    def waiting(self) -> int:
        return self._store.count_answers()

    def take(self) -> Answer:
        spec = self._store.take_answer()
        return Answer(**json.loads(spec)) if spec else Answer()


def compose(question: Question, answer: Answer) -> Reply:
    """Turn a queued answer into words and token counts."""
    text = default_text(question) if answer.text is None else answer.text
    limit = question.most_tokens
    is_cut_short = False
    if answer.completion_tokens is None and limit is not None and count_tokens(text) > limit:
        text = text.encode()[: limit * BYTES_PER_TOKEN].decode(errors="ignore")
        is_cut_short = True
    reasoning = REASONING if question.wants_reasoning or answer.reasoning_tokens else ""
    reasoning_tokens = _first(answer.reasoning_tokens, count_tokens(reasoning))
    usage = Usage(
        prompt=_first(answer.prompt_tokens, max(1, _tokens_of(question.prompt_bytes))),
        completion=_first(answer.completion_tokens, count_tokens(text) + reasoning_tokens),
        cached=_first(answer.cached_tokens, 0),
        reasoning=reasoning_tokens,
    )
    return Reply(text=text, reasoning=reasoning, usage=usage, is_cut_short=is_cut_short)


def default_text(question: Question) -> str:
    said = " ".join(question.last_user_text.split())
    if not said:
        return "Hello! I am here. What can I do for you?"
    if said.startswith("/start"):
        return "Hello! I am your assistant, awake and ready. What can I do for you?"
    quote = said if len(said) <= QUOTE_LENGTH else said[:QUOTE_LENGTH].rstrip() + "…"
    return (
        f"You wrote: “{quote}”. I am a stand-in for {question.model} on your own machine, so I"
        " cannot think about it, but your message came all the way here and this answer came back."
    )


def count_tokens(text: str) -> int:
    return _tokens_of(len(text.encode()))


def _tokens_of(size_bytes: int) -> int:
    return math.ceil(size_bytes / BYTES_PER_TOKEN)


def _first(given: int | None, otherwise: int) -> int:
    return otherwise if given is None else given


def _check(spec: dict[str, Any]) -> None:
    for name, value in spec.items():
        if name not in NAMES:
            raise AnswerError(f"unknown field {name!r}; known: {', '.join(sorted(NAMES))}")
        accepted = ACCEPTED.get(name, COUNT)
        is_misplaced_bool = isinstance(value, bool) and bool not in accepted
        if not isinstance(value, accepted) or is_misplaced_bool:
            raise AnswerError(f"{name} has the wrong type")
