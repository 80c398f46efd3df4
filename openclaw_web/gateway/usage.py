"""Where an answer says what it used, in either API's form."""

from typing import Final

import msgspec

from openclaw_web.gateway.shapes import PART, Counts, Part

MAX_TOKENS: Final = 2**31 - 1  # what the ledger has room for


class Usage:
    """Tokens as the provider counts them; `None` until it said so. Set, never added up."""

    __slots__ = ("cached", "completion", "created", "fresh", "prompt", "provider_id", "reasoning")

    def __init__(self, prompt: int | None = None, completion: int | None = None) -> None:
        self.prompt = prompt
        self.completion = completion
        self.cached = 0
        self.reasoning = 0
        self.provider_id: str | None = None
        self.fresh = 0  # of Anthropic's prompts: what was not cached,
        self.created = 0  # and what went into the cache


def read_usage(data: bytes, usage: Usage) -> Part | None:
    """Take over what one body, chunk or event says about usage; anything else is left alone."""
    try:
        part = PART.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    message = part.message
    if part.id is not None:
        usage.provider_id = part.id
    elif message is not None and message.id is not None:
        usage.provider_id = message.id
    # Kimi puts it into the last chunk's choice unless it was asked for at the top.
    found = part.usage or (part.choices[0].usage if part.choices else None)
    if found is not None:
        _take_over(found, usage)
    elif message is not None and message.usage is not None:
        _take_over_prompt(message.usage, usage)  # its output is only what had been written then
    return part


def is_usage_only(part: Part) -> bool:
    """Say whether a chunk has nothing but the usage, as the one that was asked for has."""
    return part.choices == [] and part.usage is not None


def _take_over(found: Counts, usage: Usage) -> None:
    _take_over_prompt(found, usage)
    if found.completion_tokens is not None:
        usage.completion = _count(found.completion_tokens)
    elif found.output_tokens is not None:
        usage.completion = _count(found.output_tokens)
    details = found.completion_tokens_details
    if details is not None and details.reasoning_tokens is not None:
        usage.reasoning = _count(details.reasoning_tokens) or 0


def _take_over_prompt(found: Counts, usage: Usage) -> None:
    """Set what is given, and leave what is not as it was said before."""
    if found.prompt_tokens is not None:
        usage.prompt = _count(found.prompt_tokens)
    else:
        _take_over_inputs(found, usage)
    details = found.prompt_tokens_details
    if details is not None and details.cached_tokens is not None:
        usage.cached = _count(details.cached_tokens) or 0
    elif found.cached_tokens is not None:
        usage.cached = _count(found.cached_tokens) or 0


def _take_over_inputs(found: Counts, usage: Usage) -> None:
    """Make one prompt of Anthropic's three kinds of input; each may come alone, and again."""
    fresh, created, read = (
        found.input_tokens,
        found.cache_creation_input_tokens,
        found.cache_read_input_tokens,
    )
    if fresh is created is read is None:
        return
    usage.fresh = usage.fresh if fresh is None else fresh
    usage.created = usage.created if created is None else created
    usage.cached = usage.cached if read is None else read
    usage.prompt = _count(usage.fresh + usage.created + usage.cached)
    usage.cached = _count(usage.cached) or 0


def _count(tokens: int) -> int | None:
    """Return a count that can be true; what cannot is no count, and is guessed."""
    return tokens if 0 <= tokens <= MAX_TOKENS else None
