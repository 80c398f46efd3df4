"""Refusals in each wire form's own shape; the sentences are those of Kimi Code's error reference.

https://www.kimi.com/code/docs/en/kimi-code/error-reference.html and
https://platform.kimi.ai/docs/api/errors
"""

from typing import Any

OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "invalid_authentication_error",
    402: "invalid_request_error",
    403: "access_terminated_error",
    404: "resource_not_found_error",
    429: "rate_limit_reached_error",
}
ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
MESSAGES = {
    400: "Invalid request",
    401: "The API Key appears to be invalid or may have expired. Please verify your credentials"
    " and try again.",
    402: "We're unable to verify your membership benefits at this time. Please ensure your"
    " membership is active.",
    403: "Kimi For Coding is currently only available for Coding Agents such as Kimi CLI, Claude"
    " Code, Roo Code, Kilo Code, etc.",
    404: "The requested resource was not found.",
    413: "Request exceeds the maximum size",
    429: "We're receiving too many requests at the moment. Please wait a moment and try again.",
    529: "Overloaded",
}
OTHER_MESSAGE = "The server had an error while processing the request."
# The engine's own refusal has another type than a customer's limit, at the same status.
OVERLOADED = "The engine is currently overloaded, please try again later"
OVERLOADED_TYPE = "engine_overloaded_error"


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
        fields = self._fields(OPENAI_TYPES, "server_error")
        if fields["message"] == OVERLOADED:
            fields["type"] = OVERLOADED_TYPE
        return {"error": fields}

    def anthropic_body(self) -> dict[str, Any]:
        if isinstance(self.detail, dict) and "error" in self.detail:
            return {"type": "error"} | self.detail
        return {"type": "error", "error": self._fields(ANTHROPIC_TYPES, "api_error")}

    def _fields(self, types: dict[int, str], otherwise: str) -> dict[str, Any]:
        message = MESSAGES.get(self.status, OTHER_MESSAGE)
        standard = {"message": message, "type": types.get(self.status, otherwise)}
        if isinstance(self.detail, dict):
            return standard | self.detail
        return standard | ({"message": self.detail} if self.detail else {})


def no_such_path(method: str, path: str, user_agent: str) -> dict[str, Any]:
    """Return what both forms say of an address that does not exist; the words are theirs."""
    return {
        "code": 5,
        "error": "url.not_found",
        "message": "没找到对象",
        "method": method,
        "scode": "0x5",
        "status": False,
        "ua": user_agent,
        "url": path,
    }
