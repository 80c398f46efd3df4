"""The queue of answers: what a test wants the model to say, and how it is to go wrong."""

import json
from dataclasses import dataclass, fields
from typing import Any

from simulators.kimi.faults import Delivery, Fault, Kind
from simulators.kimi.store import Store

USAGE_PLACES = ("choice", "top", "often")


class AnswerError(Exception):
    """A queued answer is not written as it must be."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One queued answer; what is left out is derived from the request.

    `tool_calls` is a list of {"name": …, "arguments": {…} or a string}. `usage_at` tells where a
    stream of the OpenAI form says what it used: "choice" (only in the last choice) or "top" (only
    in a chunk of its own), otherwise both, as Kimi does when it is asked for. "often" tells it on
    the way too, in either form, and always as the sum so far. `fault` is one of `faults.Kind`, and
    happens after `after_chunks` pieces of content or, without that, at once.
    """

    text: str | None = None
    reasoning: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    no_usage: bool = False
    usage_at: str | None = None
    delay_seconds: float = 0.0
    chunk_delay_seconds: float = 0.0
    status: int | None = None
    error: Any = None
    retry_after_seconds: int | None = None
    fault: str | None = None
    after_chunks: int | None = None
    cut_after_chunks: int | None = None
    split_bytes: int | None = None
    gzip: bool = False
    times: int = 1

    def delivery(self) -> Delivery:
        fault = None
        if self.cut_after_chunks is not None:
            fault = Fault(kind=Kind.CLOSE, after_chunks=self.cut_after_chunks)
        elif self.fault is not None:
            fault = Fault(kind=Kind(self.fault), after_chunks=self.after_chunks)
        return Delivery(
            fault=fault,
            chunk_delay_seconds=self.chunk_delay_seconds,
            split_bytes=self.split_bytes,
            is_gzip=self.gzip,
        )


COUNT = (int, type(None))
ACCEPTED = {
    "text": (str, type(None)),
    "reasoning": (str, type(None)),
    "tool_calls": (list, type(None)),
    "usage_at": (str, type(None)),
    "fault": (str, type(None)),
    "delay_seconds": (int, float),
    "chunk_delay_seconds": (int, float),
    "no_usage": (bool,),
    "gzip": (bool,),
    "error": (str, dict, type(None)),
}
CHOICES = {"fault": tuple(Kind), "usage_at": USAGE_PLACES}
NAMES = frozenset(field.name for field in fields(Answer))


class Answers:
    """The queue; it survives a restart."""

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


def _check(spec: dict[str, Any]) -> None:
    for name, value in spec.items():
        if name not in NAMES:
            raise AnswerError(f"unknown field {name!r}; known: {', '.join(sorted(NAMES))}")
        accepted = ACCEPTED.get(name, COUNT)
        is_misplaced_bool = isinstance(value, bool) and bool not in accepted
        if not isinstance(value, accepted) or is_misplaced_bool:
            raise AnswerError(f"{name} has the wrong type")
        known = CHOICES.get(name)
        if known is not None and value is not None and value not in known:
            raise AnswerError(f"{name} is one of {', '.join(known)}")
    for call in spec.get("tool_calls") or ():
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            raise AnswerError("tool_calls is a list of objects with a name and arguments")
    if spec.get("split_bytes") is not None and spec["split_bytes"] < 1:
        raise AnswerError("split_bytes must be at least 1")
