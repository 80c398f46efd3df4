"""The API's refusals, as the Status objects that Kubernetes' clients understand."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from simulators.kubernetes.resources import Resource


@dataclass
class ApiError(Exception):
    """A refusal with Kubernetes' own reason word, on which clients decide."""

    code: HTTPStatus
    reason: str
    message: str
    details: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        """Return what goes beside the Status: when to try again."""
        seconds = self.details.get("retryAfterSeconds")
        return {} if seconds is None else {"retry-after": str(seconds)}

    def __str__(self) -> str:
        return self.message

    def status(self) -> dict[str, Any]:
        made = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.metadata,
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": int(self.code),
        }
        return made | ({"details": self.details} if self.details else {})


@dataclass(frozen=True)
class Cause:
    """One thing wrong with one field of an object."""

    path: str
    reason: str
    message: str

    def as_detail(self) -> dict[str, str]:
        return {"reason": self.reason, "message": self.message, "field": self.path}


def required(path: str, hint: str = "") -> Cause:
    return Cause(path, "FieldValueRequired", f"Required value{f': {hint}' if hint else ''}")


def wrong(path: str, value: object, hint: str) -> Cause:
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    return Cause(path, "FieldValueInvalid", f"Invalid value: {shown}: {hint}")


def unsupported(path: str, value: object, allowed: Sequence[str]) -> Cause:
    choices = ", ".join(f'"{one}"' for one in allowed)
    hint = f'Unsupported value: "{value}": supported values: {choices}'
    return Cause(path, "FieldValueNotSupported", hint)


def duplicate(path: str, value: object) -> Cause:
    return Cause(path, "FieldValueDuplicate", f'Duplicate value: "{value}"')


def forbidden_field(path: str, hint: str) -> Cause:
    return Cause(path, "FieldValueForbidden", f"Forbidden: {hint}")


def about(resource: Resource, name: str) -> dict[str, Any]:
    found = {"name": name, "kind": resource.plural}
    return found | ({"group": resource.group} if resource.group else {})


def unknown_resource() -> ApiError:
    message = "the server could not find the requested resource"
    return ApiError(HTTPStatus.NOT_FOUND, "NotFound", message)


def not_found(resource: Resource, name: str) -> ApiError:
    message = f'{resource.qualified} "{name}" not found'
    return ApiError(HTTPStatus.NOT_FOUND, "NotFound", message, about(resource, name))


def already_exists(resource: Resource, name: str) -> ApiError:
    message = f'{resource.qualified} "{name}" already exists'
    return ApiError(HTTPStatus.CONFLICT, "AlreadyExists", message, about(resource, name))


def conflict(resource: Resource, name: str, why: str) -> ApiError:
    message = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'
    return ApiError(HTTPStatus.CONFLICT, "Conflict", message, about(resource, name))


def stale(resource: Resource, name: str) -> ApiError:
    why = "please apply your changes to the latest version and try again"
    return conflict(resource, name, f"the object has been modified; {why}")


def invalid(resource: Resource, name: str, causes: Sequence[Cause]) -> ApiError:
    lines = [f"{cause.path}: {cause.message}" for cause in causes]
    listed = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    details = {
        **about(resource, name),
        "kind": resource.kind,
        "causes": [cause.as_detail() for cause in causes],
    }
    message = f'{resource.qualified_kind} "{name}" is invalid: {listed}'
    return ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid", message, details)


def forbidden(resource: Resource, name: str, why: str) -> ApiError:
    message = f'{resource.qualified} "{name}" is forbidden: {why}'
    return ApiError(HTTPStatus.FORBIDDEN, "Forbidden", message, about(resource, name))


def bad_request(message: str) -> ApiError:
    return ApiError(HTTPStatus.BAD_REQUEST, "BadRequest", message)


def not_allowed(message: str) -> ApiError:
    return ApiError(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed", message)


def expired(message: str) -> ApiError:
    return ApiError(HTTPStatus.GONE, "Expired", message)


def too_large_revision(asked: int, current: int) -> ApiError:
    message = f"Timeout: Too large resource version: {asked}, current: {current}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    details = {"causes": [cause], "retryAfterSeconds": 1}
    return ApiError(HTTPStatus.GATEWAY_TIMEOUT, "Timeout", message, details)


def unauthorized() -> ApiError:
    return ApiError(HTTPStatus.UNAUTHORIZED, "Unauthorized", "Unauthorized")


def unsupported_media_type(message: str) -> ApiError:
    return ApiError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)


def not_acceptable(message: str) -> ApiError:
    return ApiError(HTTPStatus.NOT_ACCEPTABLE, "NotAcceptable", message)
