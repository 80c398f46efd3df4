"""Failures on request: the next matching calls of the API are refused, slowed down or cut off."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, fields
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from simulators import Receive, Scope, Send
from simulators.kubernetes import errors
from simulators.kubernetes.errors import ApiError
from simulators.kubernetes.knobs import RefusedError
from simulators.kubernetes.requests import Target

ANY = "*"
BEFORE, AFTER = "before", "after"
VERBS = ("create", "get", "list", "watch", "update", "patch", "delete", "deletecollection")
LONGEST_SECONDS = 600
_CODES = (0, 400, 401, 403, 404, 409, 410, 422, 429, 500, 502, 503, 504)
_CHANGING = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_QUOTA = "exceeded quota: quota, requested: pods=1, used: pods=1, limited: pods=1"


@dataclass(kw_only=True)
class Fault:
    """Which calls fail, how often, and how.

    `verb`, `resource` (the plural, `pods/log` for a subresource), `namespace` and `name` say which;
    "*" is any. The first `skip` matching calls pass, the next `times` fail (0: until removed).
    `code` is the answer's status (0: none, only the delay), given `when` "before" the work is done
    or "after" it. `drop` cuts the connection instead of answering. `cause` "quota" makes a 403 the
    one of a full quota.
    """

    verb: str = ANY
    resource: str = ANY
    namespace: str = ANY
    name: str = ANY
    times: int = 1
    skip: int = 0
    code: int = 0
    when: str = BEFORE
    delay_seconds: float = 0.0
    retry_after: int = 1
    message: str = ""
    cause: str = ""
    drop: bool = False
    id: int = 0
    hits: int = 0

    def matches(self, verb: str, target: Target) -> bool:
        resource = target.resource
        part = f"/{target.subresource}" if target.subresource else ""
        names = {ANY, resource.plural + part, resource.qualified + part}
        return (
            self.verb in {ANY, verb}
            and self.resource in names
            and self.namespace in {ANY, target.namespace}
            and self.name in {ANY, target.name}
        )


class Cut(Response):
    """An answer that never comes to its end: the server closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        headers = [(b"content-length", b"1000"), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})


class Faults:
    """Faults are asked in the order in which they came; a call meets the first that matches."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []
        self._last_id = 0

    def add(self, wanted: Mapping[str, Any]) -> Fault:
        """Set up a fault from a control request.

        Raises:
            RefusedError: it makes no sense.
        """
        known = {one.name: one.type for one in fields(Fault) if one.name not in {"id", "hits"}}
        if unknown := sorted(wanted.keys() - known.keys()):
            raise RefusedError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
        for name, value in wanted.items():
            _check_type(name, value, known[name])
        self._last_id += 1
        fault = Fault(**wanted, id=self._last_id)
        _check(fault)
        self._waiting.append(fault)
        return fault

    def listed(self) -> list[dict[str, Any]]:
        return [asdict(fault) for fault in self._waiting]

    def clear(self) -> None:
        self._waiting.clear()

    def take(self, verb: str, target: Target) -> Fault | None:
        """Return what this call must suffer, if anything."""
        for fault in self._waiting:
            if not fault.matches(verb, target):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            fault.hits += 1
            if fault.times and fault.hits >= fault.times:
                self._waiting.remove(fault)
            return fault
        return None

    async def around(
        self, verb: str, target: Target, work: Callable[[], Awaitable[Response]]
    ) -> Response:
        """Do the work, or what a fault makes of it.

        Raises:
            ApiError: the fault's, or the work's own.
        """
        fault = self.take(verb, target)
        if fault is None:
            return await work()
        async with _delayed(fault):
            if fault.when == AFTER:
                done = await work()
            elif fault.drop or fault.code:
                return _end(fault, verb, target)
            else:
                return await work()
        return _end(fault, verb, target) if fault.drop or fault.code else done


@asynccontextmanager
async def _delayed(fault: Fault) -> AsyncGenerator[None]:
    """Wait before the work, or after it where the fault comes after."""
    if fault.when == BEFORE:
        await asyncio.sleep(fault.delay_seconds)
    yield
    if fault.when == AFTER:
        await asyncio.sleep(fault.delay_seconds)


def _end(fault: Fault, verb: str, target: Target) -> Response:
    if fault.drop:
        return Cut()
    raise refusal(fault, verb, target)


def refusal(fault: Fault, verb: str, target: Target) -> ApiError:
    """Make the refusal that the real server would give with this status code."""
    made = _made(fault, verb, target)
    if fault.message:
        made.message = fault.message
    if fault.code in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        made.details = {**made.details, "retryAfterSeconds": fault.retry_after}
    return made


def _made(fault: Fault, verb: str, target: Target) -> ApiError:
    resource, name = target.resource, target.name
    if fault.code == HTTPStatus.FORBIDDEN:
        why = _QUOTA if fault.cause == "quota" else "a fault was asked for"
        return errors.forbidden(resource, name, why)
    if fault.code == HTTPStatus.NOT_FOUND:
        return errors.not_found(resource, name)
    if fault.code == HTTPStatus.CONFLICT:
        stale = verb != "create"
        return errors.stale(resource, name) if stale else errors.already_exists(resource, name)
    if fault.code == HTTPStatus.UNPROCESSABLE_ENTITY:
        cause = errors.wrong("spec", "", "a fault was asked for")
        return errors.invalid(resource, name, [cause])
    reason, message = _SAYINGS[fault.code]
    return ApiError(HTTPStatus(fault.code), reason, message)


_SAYINGS = {
    400: ("BadRequest", "a fault was asked for"),
    401: ("Unauthorized", "Unauthorized"),
    410: ("Expired", "The resourceVersion for the provided list is too old."),
    429: ("TooManyRequests", "Too many requests, please try again later."),
    500: ("InternalError", "Internal error occurred: a fault was asked for"),
    502: ("InternalError", "Internal error occurred: bad gateway"),
    503: ("ServiceUnavailable", "the server is currently unable to handle the request"),
    504: (
        "Timeout",
        "Timeout: request did not complete within requested timeout - context deadline exceeded",
    ),
}


def _check_type(name: str, value: Any, wanted: Any) -> None:
    kinds: dict[Any, tuple[type, ...]] = {str: (str,), bool: (bool,), int: (int,)}
    allowed = kinds.get(wanted, (int, float))
    if not isinstance(value, allowed) or (isinstance(value, bool) and wanted is not bool):
        raise RefusedError(f"{name} must be of type {getattr(wanted, '__name__', wanted)}")


def _check(fault: Fault) -> None:
    if fault.verb not in {ANY, *VERBS}:
        raise RefusedError(f"verb is one of {', '.join(VERBS)} or {ANY}")
    if fault.code not in _CODES:
        raise RefusedError(f"code is one of {', '.join(map(str, _CODES))}")
    if fault.when not in {BEFORE, AFTER}:
        raise RefusedError(f"when is {BEFORE!r} or {AFTER!r}")
    if not 0 <= fault.delay_seconds <= LONGEST_SECONDS:
        raise RefusedError(f"delay_seconds is between 0 and {LONGEST_SECONDS}")
    if min(fault.times, fault.skip, fault.retry_after) < 0:
        raise RefusedError("times, skip and retry_after are not negative")
    if not (fault.code or fault.drop or fault.delay_seconds):
        raise RefusedError("a fault needs a code, a delay_seconds or drop")


def verb_of(method: str, target: Target, *, is_watch: bool) -> str:
    """Name what a request does, in the words that roles use too."""
    if method in {"GET", "HEAD"}:
        if is_watch:
            return "watch"
        return "get" if target.name else "list"
    verb = _CHANGING.get(method, method.lower())
    return "deletecollection" if verb == "delete" and not target.name else verb
