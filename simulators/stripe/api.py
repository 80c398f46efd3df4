"""The edge of the REST API: who asks, what for, was it asked before, and the answer's form."""

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from typing import Any

from simulators.stripe import (
    API_VERSION,
    catalogue,
    checkout,
    customers,
    events,
    forms,
    invoices,
    parameters,
    payments,
    portal,
    subscriptions,
    webhooks,
)
from simulators.stripe.clock import DAY
from simulators.stripe.errors import StripeError, required, unknown_url, unsupported
from simulators.stripe.expanding import expand
from simulators.stripe.store import Json, new_id, public
from simulators.stripe.world import Operation, World

OPERATIONS: tuple[Operation, ...] = tuple(
    operation
    for resource in (
        customers,
        catalogue,
        checkout,
        subscriptions,
        invoices,
        payments,
        portal,
        events,
        webhooks,
    )
    for operation in resource.OPERATIONS
)
SHOWN_OF_KEY = 4
LONGEST_HIDDEN_KEY = 16  # of so short a key nothing is shown
KEY_LIFE_SECONDS = DAY  # Stripe forgets idempotency keys after at least a day


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request as it came in; header names are lower case."""

    method: str
    path: str
    fields: str
    headers: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)


class Api:
    """Answers calls, each in one transaction."""

    def __init__(self, world: World, key: str) -> None:
        self._world = world
        self._key = key

    def handle(self, call: Call) -> Answer:
        request_id = new_id("req", 14)
        headers = {"Request-Id": request_id, "Stripe-Version": API_VERSION}
        if "idempotency-key" in call.headers:
            headers["Idempotency-Key"] = call.headers["idempotency-key"]
        try:
            self._check_credentials(call.headers)
            answer = self._answer(call, request_id)
        except StripeError as error:
            answer = Answer(status=error.status, body=_json(error.body()))
        return Answer(status=answer.status, body=answer.body, headers={**headers, **answer.headers})

    def _check_credentials(self, headers: dict[str, str]) -> None:
        given = _credential(headers.get("authorization", ""))
        if not given:
            raise StripeError(
                "You did not provide an API key. You need to provide your API key in the"
                " Authorization header, using Bearer auth (e.g. 'Authorization: Bearer"
                " YOUR_SECRET_KEY'). See https://stripe.com/docs/api#authentication for details,"
                " or we can help at https://support.stripe.com/.",
                status=401,
            )
        if not hmac.compare_digest(given.encode(), self._key.encode()):
            raise StripeError(f"Invalid API Key provided: {_masked(given)}", status=401)
        version = headers.get("stripe-version", API_VERSION)
        if version != API_VERSION:
            raise unsupported(f"the API version {version}, only {API_VERSION}")
        if "stripe-account" in headers:
            raise unsupported("connected accounts")

    def _answer(self, call: Call, request_id: str) -> Answer:
        operation, ids = _find(call.method, call.path)
        raw = forms.decode(call.fields)
        params = parameters.read(operation.key, raw)
        for name in operation.required.split():
            if name not in params:
                raise required(name)
        key = call.headers.get("idempotency-key") if call.method == "POST" else None
        digest = hashlib.sha256(_json(raw).encode()).hexdigest()
        earlier = self._earlier(key, call.path, digest) if key else None
        if earlier:
            return earlier
        with self._world.store.transaction():
            self._world.request_id, self._world.idempotency_key = request_id, key
            try:
                answer = self._run(operation, params, ids)
            finally:
                self._world.request_id = self._world.idempotency_key = None
            if key:
                self._world.store.sql.execute(
                    "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        key,
                        call.path,
                        digest,
                        answer.status,
                        answer.body,
                        request_id,
                        self._world.now(),
                    ),
                )
        return answer

    def _run(self, operation: Operation, params: dict[str, Any], ids: list[str]) -> Answer:
        try:
            made = operation.run(self._world, params, *ids)
            made = expand(self._world, made, params.get("expand") or [])
        except StripeError as error:
            if not error.keeps_changes:
                raise
            return Answer(status=error.status, body=_json(error.body()))
        return Answer(status=200, body=_json(public(made)))

    def _earlier(self, key: str, path: str, digest: str) -> Answer | None:
        """Return the answer that this idempotency key already got."""
        self._world.store.sql.execute(
            "DELETE FROM answers WHERE created < ?", (self._world.now() - KEY_LIFE_SECONDS,)
        )
        row = self._world.store.sql.execute(
            "SELECT * FROM answers WHERE key = ?", (key,)
        ).fetchone()
        if row is None:
            return None
        if row["path"] != path:
            raise StripeError(
                "Keys for idempotent requests can only be used for the same endpoint they were"
                f" first used for ('{path}' vs '{row['path']}'). Try using a key other than"
                f" '{key}' if you meant to execute a different request.",
                kind="idempotency_error",
            )
        if row["digest"] != digest:
            raise StripeError(
                "Keys for idempotent requests can only be used with the same parameters they were"
                f" first used with. Try using a key other than '{key}' if you meant to execute a"
                " different request.",
                kind="idempotency_error",
            )
        replayed = {"Idempotent-Replayed": "true", "Original-Request": row["request_id"]}
        return Answer(status=row["status"], body=row["body"], headers=replayed)


def _find(method: str, path: str) -> tuple[Operation, list[str]]:
    """Return the operation that a path means, and the ids in it.

    Exact words win over ids, so that `/v1/invoices/create_preview` is not an invoice.
    """
    segments = path.split("/")
    best: tuple[Operation, list[str]] | None = None
    for operation in OPERATIONS:
        expected = operation.path.split("/")
        if operation.method != method or len(expected) != len(segments):
            continue
        pairs = list(zip(expected, segments, strict=True))
        if all(one == two or (one == "{}" and two) for one, two in pairs):
            ids = [two for one, two in pairs if one == "{}"]
            if best is None or len(ids) < len(best[1]):
                best = (operation, ids)
    if best:
        return best
    if parameters.is_known_route(method, segments):
        raise unsupported(f"{method} {path}")
    raise unknown_url(method, path)


def _credential(header: str) -> str:
    kind, _, value = header.partition(" ")
    if kind.lower() != "basic":
        return value.strip()
    try:
        return base64.b64decode(value).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _masked(key: str) -> str:
    return f"{key[:8]}****{key[-SHOWN_OF_KEY:]}" if len(key) > LONGEST_HIDDEN_KEY else "****"


def _json(body: Json) -> str:
    return json.dumps(body, indent=2)
