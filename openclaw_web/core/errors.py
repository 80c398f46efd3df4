"""What we raise on purpose."""


class OpenClawError(Exception):
    """Base of every error that we raise on purpose.

    Its text is a sentence that a person may read.
    """


class SettingsError(OpenClawError):
    """A setting is missing or makes no sense; the text names it and says what to do."""


class ValidationError(OpenClawError):
    """Somebody gave us something that we cannot take; the text says what and how to mend it."""


class NotFoundError(OpenClawError):
    """What was asked for does not exist, or is not the asker's."""


class VendorError(OpenClawError):
    """A vendor refused or failed.

    `can_retry` says whether the same call may succeed later; `code` is the vendor's own word for
    it. `retry_after_seconds` is how long the vendor asked to be left alone, 0 without a word.
    """

    def __init__(
        self, sentence: str, *, can_retry: bool, code: str = "", retry_after_seconds: float = 0.0
    ) -> None:
        super().__init__(sentence)
        self.can_retry = can_retry
        self.code = code
        self.retry_after_seconds = retry_after_seconds
