"""Why a request is refused, in the form of the API that was called.

Never 402: agents take it for a dead key, and stop asking for minutes.
"""

from datetime import datetime
from enum import Enum, StrEnum
from typing import Final

import msgspec

from openclaw_web.core.errors import OpenClawError

TOO_MANY_REQUESTS = 429


class Form(Enum):
    """Which API is spoken."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


OPENAI: Final = Form.OPENAI  # looking an enum's member up costs as much as using it


class RefusalError(OpenClawError):
    """The request is not forwarded. `kind` is the error type that both APIs know."""

    def __init__(
        self, sentence: str, *, status: int, kind: str, code: str, retry_after: int | None = None
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.kind = kind
        self.code = code
        self.retry_after = retry_after
        self.headers: list[tuple[bytes, bytes]] = []


class UnknownTokenError(RefusalError):
    def __init__(self) -> None:
        super().__init__(
            "The token is unknown, revoked or expired.",
            status=401,
            kind="authentication_error",
            code="invalid_token",
        )


class NotFromHereError(RefusalError):
    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, status=403, kind="permission_error", code="not_from_here")


class BadRequestError(RefusalError):
    def __init__(self, sentence: str, *, status: int = 400, code: str = "invalid_request") -> None:
        super().__init__(sentence, status=status, kind="invalid_request_error", code=code)


class TooLargeError(RefusalError):
    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, status=413, kind="request_too_large", code="too_large")


class NotFoundError(RefusalError):
    def __init__(self, sentence: str, *, code: str = "not_found") -> None:
        super().__init__(sentence, status=404, kind="not_found_error", code=code)


class SlowDownError(RefusalError):
    """Too fast, or too much at once: the same request may succeed after `retry_after` seconds."""

    def __init__(self, sentence: str, *, retry_after: int) -> None:
        super().__init__(
            sentence,
            status=TOO_MANY_REQUESTS,
            kind="rate_limit_error",
            code="rate_limit_exceeded",
            retry_after=retry_after,
        )


class UnavailableError(RefusalError):
    """We or the provider cannot answer now."""

    def __init__(
        self, sentence: str, *, status: int = 503, code: str = "unavailable", retry_after: int = 2
    ) -> None:
        super().__init__(
            sentence, status=status, kind="api_error", code=code, retry_after=retry_after
        )


class Pause(StrEnum):
    """Why a customer is not served at all. The value is the error's code."""

    INACTIVE = "subscription_inactive"
    PAUSED = "paused_by_owner"
    HELD = "account_on_hold"  # a dispute, an admin: no payment ends it


PAUSES = {
    Pause.INACTIVE: "The subscription is not active.",
    Pause.PAUSED: "The assistant was paused by its owner.",
    Pause.HELD: "A question about this account is being settled.",
}


class PoliteError(RefusalError):
    """A refusal that the assistant can say itself, in its chat and language: see `polite`."""

    home_url: str


class LimitReachedError(PoliteError):
    """The wording is chosen: agents show it as it is, and do not take it for an unpaid bill."""

    def __init__(self, *, resets_at: datetime, now: datetime, home_url: str) -> None:
        super().__init__(
            f"monthly usage limit reached, resets on {resets_at.day} {resets_at:%B %Y}",
            status=TOO_MANY_REQUESTS,
            kind="rate_limit_error",
            code="usage_limit_reached",
            retry_after=max(1, int((resets_at - now).total_seconds())),
        )
        self.resets_at = resets_at
        self.home_url = home_url


class NotEntitledError(PoliteError):
    def __init__(self, *, home_url: str, pause: Pause = Pause.INACTIVE) -> None:
        super().__init__(PAUSES[pause], status=403, kind="permission_error", code=pause.value)
        self.pause = pause
        self.home_url = home_url


def body_of(refusal: RefusalError, form: Form) -> bytes:
    if form is Form.ANTHROPIC:
        error = {"type": refusal.kind, "message": str(refusal)}
        return msgspec.json.encode({"type": "error", "error": error})
    return msgspec.json.encode(
        {"error": {"message": str(refusal), "type": refusal.kind, "code": refusal.code}}
    )


def event_of(refusal: RefusalError, form: Form) -> bytes:
    """Return the refusal as the last event of a stream that has begun."""
    name = b"event: error\n" if form is Form.ANTHROPIC else b""
    return name + b"data: " + body_of(refusal, form) + b"\n\n"


def request_id_headers(request_id: str) -> list[tuple[bytes, bytes]]:
    """Name the request as OpenAI's clients look for it, and as Anthropic's do."""
    value = request_id.encode()
    return [(b"x-request-id", value), (b"request-id", value)]


def token_warning(*, used: int, limit: int) -> list[tuple[bytes, bytes]]:
    """Return a header for every answer from nine tenths of the month's tokens on, else nothing."""
    if used * 10 < limit * 9 or limit <= 0:
        return []
    return [(b"x-token-warning", b"%d%% of the monthly limit is used" % (100 * used // limit))]
