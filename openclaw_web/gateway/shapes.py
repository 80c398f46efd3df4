"""What of the two APIs' JSON is decoded: the few fields that concern us, all others are skipped."""

import msgspec


class Details(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class Counts(msgspec.Struct):
    """The union of both APIs' fields; absent is not zero."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    prompt_tokens_details: Details | None = None
    completion_tokens_details: Details | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class Choice(msgspec.Struct):
    usage: Counts | None = None


class Message(msgspec.Struct):
    id: str | None = None
    usage: Counts | None = None


class Part(msgspec.Struct):
    """A body, a chunk or an event: only what metering needs is decoded."""

    id: str | None = None
    usage: Counts | None = None
    choices: list[Choice] | None = None
    message: Message | None = None


class Options(msgspec.Struct):
    include_usage: bool | None = None


class Asked(msgspec.Struct):
    """The fields of a request that concern us; all others are skipped over, not decoded."""

    model: str | None = None
    stream: bool | None = None
    stream_options: Options | msgspec.UnsetType | None = msgspec.UNSET
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


PART = msgspec.json.Decoder(Part)
ASKED = msgspec.json.Decoder(Asked)
