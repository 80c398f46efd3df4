"""What can go wrong with a provider, and whether it may have started to work for us by then."""

from openclaw_web.core.errors import OpenClawError, VendorError


class UpstreamError(VendorError):
    """The provider could not be asked, or did not answer as HTTP wants it.

    `was_sent` says whether the provider may have taken the request: if so, asking again could be
    billed twice.
    """

    def __init__(self, sentence: str, *, code: str, was_sent: bool = True) -> None:
        super().__init__(sentence, can_retry=True, code=code)
        self.was_sent = was_sent


class UnsafeHeaderError(OpenClawError):
    """A header holds what would end its line: the provider might read a second request in it."""


def unreachable() -> UpstreamError:
    return UpstreamError(
        "The model provider cannot be reached.", code="unreachable", was_sent=False
    )


def busy() -> UpstreamError:
    return UpstreamError("Too many requests are under way.", code="busy", was_sent=False)


def closed(*, was_sent: bool = True) -> UpstreamError:
    return UpstreamError(
        "The model provider closed the connection.", code="closed", was_sent=was_sent
    )


def malformed(cause: Exception | None = None) -> UpstreamError:
    error = UpstreamError("The model provider's answer is malformed.", code="malformed")
    error.__cause__ = cause
    return error


def silent() -> UpstreamError:
    return UpstreamError("The model provider did not answer in time.", code="timeout")


def stuck() -> UpstreamError:
    return UpstreamError(
        "The model provider does not take the request.", code="stuck", was_sent=False
    )


def idle() -> UpstreamError:
    return UpstreamError("The model provider stopped answering.", code="idle")


def too_large() -> UpstreamError:
    return UpstreamError("The model provider's answer does not end.", code="too_large")


def unread() -> UpstreamError:
    return UpstreamError("Nobody read the answer any more.", code="unread")
