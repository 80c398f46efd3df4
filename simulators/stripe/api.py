"""The edge of the REST API: who asks, what for, was it asked before, and the answer's form."""

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass, field, replace
from typing import Any

from simulators.stripe import (
    API_VERSION,
    balances,
    catalogue,
    charges,
    checkout,
    clocks,
    coupons,
    customers,
    disputes,
    events,
    faults,
    forms,
    invoices,
    methods,
    parameters,
    payments,
    portal,
    refunds,
    subscriptions,
    webhooks,
)
from simulators.stripe.clock import DAY
from simulators.stripe.errors import StripeError, invalid, required, unknown_url, unsupported
from simulators.stripe.expanding import expand
from simulators.stripe.faults import Fault
from simulators.stripe.store import Json, new_id, public
from simulators.stripe.world import Operation, World

RESOURCES = (
    customers,
    balances,
    catalogue,
    coupons,
    checkout,
    subscriptions,
    invoices,
    payments,
    methods,
    charges,
    refunds,
    disputes,
    portal,
    events,
    webhooks,
    clocks,
)
OPERATIONS: tuple[Operation, ...] = tuple(
    operation for resource in RESOURCES for operation in resource.OPERATIONS
)
SHOWN_OF_KEY = 4
LONGEST_HIDDEN_KEY = 16  # of so short a key nothing is shown
LONGEST_IDEMPOTENCY_KEY = 255
KEY_LIFE_SECONDS = DAY  # Stripe forgets idempotency keys after at least a day
LOG = "https://dashboard.stripe.com/test/logs/"


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request as it came in; header names are lower case."""

    method: str
    path: str
    fields: str
    headers: dict[str, str]

    @property
    def key(self) -> str | None:
        """Return the idempotency key, which only means something where something is made."""
        return self.headers.get("idempotency-key") if self.method == "POST" else None


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

    def handle(self, call: Call, fault: Fault | None = None) -> Answer:
        """Answer a call; a fault makes it fail, either at once or after all was done."""
        request_id = new_id("req", 14)
        headers = {"Request-Id": request_id, "Stripe-Version": API_VERSION}
        if "idempotency-key" in call.headers:
            headers["Idempotency-Key"] = call.headers["idempotency-key"]
        try:
            self._check_credentials(call.headers)
            if fault and not fault.happens_after and fault.kind != "slow":
                raise faults.as_error(fault)
            answer = self._answer(call, request_id, fault)
        except StripeError as error:
            answer = _refusal(error, request_id)
        return replace(answer, headers={**headers, **answer.headers})

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

    def _answer(self, call: Call, request_id: str, fault: Fault | None) -> Answer:
        operation, ids = _find(call.method, call.path)
        if len(call.key or "") > LONGEST_IDEMPOTENCY_KEY:
            raise invalid("Idempotency keys can be at most 255 characters long.")
        raw = forms.decode(call.fields)
        params = parameters.read(operation.key, raw)
        for name in operation.required.split():
            if name not in params:
                raise required(name)
        digest = hashlib.sha256(_json(raw).encode()).hexdigest()
        earlier = self._earlier(call.key, call.path, digest) if call.key else None
        if earlier:
            return earlier
        self._world.request_id, self._world.idempotency_key = request_id, call.key
        try:
            answer = self._run(operation, params, ids)
        finally:
            self._world.request_id = self._world.idempotency_key = None
        if fault and fault.kind == "server_error_after":
            answer = _refusal(faults.as_error(fault), request_id)
        if call.key:
            self._remember(call, digest, answer, request_id)
        return answer

    def _run(self, operation: Operation, params: dict[str, Any], ids: list[str]) -> Answer:
        """Do it, all or nothing; an error that comes of doing it is an answer like any other."""
        world = self._world
        request_id = world.request_id or ""
        clock = clocks.of_request(world, params, ids)
        try:
            with world.store.transaction(), clocks.time_of(world, clock):
                if operation.method != "GET":
                    clocks.refuse_while_advancing(clock)
                try:
                    made = operation.run(world, params, *ids)
                except StripeError as error:
                    if not error.keeps_changes:
                        raise
                    return _refusal(error, request_id)
                made = expand(world, made, params.get("expand") or [])
        except StripeError as error:
            return _refusal(error, request_id)
        return Answer(status=200, body=_json(public(made)))

    def _remember(self, call: Call, digest: str, answer: Answer, request_id: str) -> None:
        """Keep the answer for whoever asks with the same key again, also when it is an error."""
        self._world.store.sql.execute(
            "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                call.key,
                call.path,
                digest,
                answer.status,
                answer.body,
                request_id,
                self._world.wall(),
            ),
        )

    def _earlier(self, key: str, path: str, digest: str) -> Answer | None:
        """Return the answer that this idempotency key already got."""
        self._world.store.sql.execute(
            "DELETE FROM answers WHERE created < ?", (self._world.wall() - KEY_LIFE_SECONDS,)
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


def _refusal(error: StripeError, request_id: str) -> Answer:
    body = error.body()
    body["error"]["request_log_url"] = f"{LOG}{request_id}"
    headers = {"Stripe-Should-Retry": "true"} if error.is_passing else {}
    return Answer(status=error.status, body=_json(body), headers=headers)


def _json(body: Json) -> str:
    return json.dumps(body)  # Stripe indents it; that would cost most of the time of an answer
