"""Stripe's error answers, word for word where Stripe's words are known."""

from typing import Any

PASSING = frozenset({409, 429, 500})
DOCS = "https://stripe.com/docs/error-codes/"


class StripeError(Exception):
    """An answer in Stripe's error form.

    `keeps_changes`: what was written before stays written; a declined card is a fact, a bad
    parameter is not.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        keeps_changes: bool = False,
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.keeps_changes = keeps_changes
        self.details = {name: value for name, value in details.items() if value is not None}

    @property
    def is_passing(self) -> bool:
        """Whether the same request may well succeed a little later."""
        return self.status in PASSING

    def body(self) -> dict[str, Any]:
        error: dict[str, Any] = {"message": self.message, "type": self.kind, **self.details}
        if "code" in self.details:
            error["doc_url"] = DOCS + self.details["code"].replace("_", "-")
        return {"error": error}


def missing(noun: str, identifier: str, *, param: str = "id", status: int = 404) -> StripeError:
    """Return the answer for an id that names nothing; 404 in the path, 400 in a parameter."""
    return StripeError(
        f"No such {noun}: '{identifier}'", status=status, code="resource_missing", param=param
    )


def missing_reference(noun: str, identifier: str, param: str) -> StripeError:
    return missing(noun, identifier, param=param, status=400)


def required(param: str) -> StripeError:
    return StripeError(f"Missing required param: {param}.", code="parameter_missing", param=param)


def invalid(message: str, param: str | None = None, code: str | None = None) -> StripeError:
    return StripeError(message, param=param, code=code)


def unsupported(what: str, param: str | None = None) -> StripeError:
    """Return the answer for what Stripe takes and this simulator does not do."""
    return StripeError(f"This simulator of Stripe does not support {what}.", param=param)


def below(least: int, param: str) -> StripeError:
    return invalid(f"This value must be greater than or equal to {least}.", param)


def unknown_url(method: str, path: str) -> StripeError:
    return StripeError(
        f"Unrecognized request URL ({method}: {path}). If you are trying to list objects, remove"
        " the trailing slash. If you are trying to retrieve an object, make sure you passed a valid"
        " (non-empty) identifier in your code. Please see https://stripe.com/docs or we can help at"
        " https://support.stripe.com/.",
        status=404,
    )


def card_declined(message: str, code: str, decline_code: str | None, **details: Any) -> StripeError:
    return StripeError(
        message,
        status=402,
        kind="card_error",
        keeps_changes=True,
        code=code,
        decline_code=decline_code,
        **details,
    )
