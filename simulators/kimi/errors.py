"""Refusals in each wire form's own shape."""

from typing import Any

OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "invalid_authentication_error",
    403: "permission_denied_error",
    404: "resource_not_found_error",
    429: "rate_limit_reached_error",
    503: "engine_overloaded_error",
}
ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
MESSAGES = {
    400: "Invalid request",
    401: "The API Key appears to be invalid or may have expired. Please verify your credentials"
    " and try again.",
    403: "You do not have permission to use this resource.",
    404: "The requested resource was not found.",
    429: "Your account reached its request rate limit, please try again later.",
    503: "The engine is currently overloaded, please try again later.",
    529: "Overloaded",
}


class VendorError(Exception):
    """What the API answers instead of a completion; `detail` is its message or its fields."""

    def __init__(self, status: int, detail: Any = None, retry_after: int | None = None) -> None:
        super().__init__(str(status))
        self.status = status
        self.detail = detail
        self.retry_after = retry_after

    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"retry-after": str(self.retry_after)}

    def openai_body(self) -> dict[str, Any]:
        """Return the error as Kimi's OpenAI form shows it; a whole body is passed as it is."""
        if isinstance(self.detail, dict) and "error" in self.detail:
            return self.detail
        return {"error": self._fields(OPENAI_TYPES, "server_error")}

    def anthropic_body(self) -> dict[str, Any]:
        if isinstance(self.detail, dict) and "error" in self.detail:
            return {"type": "error"} | self.detail
        return {"type": "error", "error": self._fields(ANTHROPIC_TYPES, "api_error")}

    def _fields(self, types: dict[int, str], otherwise: str) -> dict[str, Any]:
        message = MESSAGES.get(self.status, "The server had an error while processing the request.")
        standard = {"message": message, "type": types.get(self.status, otherwise)}
        if isinstance(self.detail, dict):
            return standard | self.detail
        return standard | ({"message": self.detail} if self.detail else {})
