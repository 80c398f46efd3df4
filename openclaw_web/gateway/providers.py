"""Who is asked: the routes to a model in their order, and what becomes of a request on its way.

A request goes on to the next route only if it cannot be billed twice: docs/upstreams.md has the
table, and tests/gateway/test_failing_over.py a test for each row.
"""

import itertools
import logging
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from openclaw_web.core.errors import OpenClawError
from openclaw_web.core.settings import Settings
from openclaw_web.gateway import upstreams, wire
from openclaw_web.gateway.breaker import Breaker
from openclaw_web.gateway.errors import OPENAI, Form
from openclaw_web.gateway.routes import (
    Provider,
    ProviderStatus,
    Route,
    key_name,
    open_provider,
    routes_of,
    status_of,
)
from openclaw_web.gateway.statuses import (
    ABOUT_THE_REQUEST,
    FIRST_FAILURE,
    NOTHING_RAN,
    OF_THE_KEY,
    OF_THE_PROVIDER,
    SLOW_DOWN,
)
from openclaw_web.gateway.upstreams import UpstreamConfig
from openclaw_web.gateway.wire import PROVIDER_PREFIX, Request
from openclaw_web.integrations.upstream import Answer, Headers, UpstreamError

logger = logging.getLogger(__name__)

BETA = b"beta=true"  # Anthropic's clients ask so for what is new

DEFAULT_REST_SECONDS = 1.0  # of a key that has asked too much and was not told for how long
LONGEST_REST_SECONDS = 60.0
MAX_KNOWN_ROUTES = 256


class NoRouteError(OpenClawError):
    """No provider of this deployment speaks this API, or has this model."""


@dataclass(frozen=True)
class Change:
    """A provider, or one of its keys, is left alone from now on; or is asked again."""

    subject: str
    is_open: bool
    reason: str


class Trail(Protocol):
    """What is told on the way: who has the request now, and who has refused it before."""

    route: Route | None
    refused: tuple[tuple[Route, Answer], ...]
    has_left: bool  # nobody waits for the answer

    @property
    def query(self) -> bytes:
        """What stood behind the question mark."""


class Sent:
    """A request that is on its way already, and the answer to come."""

    __slots__ = ("answer", "route")

    def __init__(self, route: Route, answer: Answer) -> None:
        self.route = route
        self.answer = answer


class Providers:
    """All providers of this process, with their connections."""

    def __init__(
        self,
        configs: Sequence[UpstreamConfig],
        *,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[Change], None] | None = None,
    ) -> None:
        self._clock = clock
        self._on_change = on_change
        ordered = sorted(configs, key=lambda config: config.priority)
        self._providers = [open_provider(config, clock) for config in ordered]
        self._known_openai: dict[str, tuple[tuple[Route, ...], ...]] = {}
        self._known_anthropic: dict[str, tuple[tuple[Route, ...], ...]] = {}
        self._known_models: dict[str, str] = {}

    @classmethod
    def of_settings(
        cls, chosen: Settings, *, on_change: Callable[[Change], None] | None = None
    ) -> "Providers":
        """Return this deployment's providers.

        Raises:
            SettingsError: they are not described as they should be.
        """
        return cls(upstreams.load(chosen), on_change=on_change)

    def model_for(self, asked: str) -> str:
        """Return what a name for a model means at the provider that is asked first."""
        known = self._known_models.get(asked)
        if known is None:
            known = self._find_model(asked.removeprefix(PROVIDER_PREFIX))
            if len(self._known_models) < MAX_KNOWN_ROUTES:
                self._known_models[asked] = known
        return known

    def choose(self, form: Form, model: str, customer: Hashable = None) -> Sequence[Route]:
        """Return the routes to a model, the best first.

        The same customer gets the same key while it is good: providers keep what an account has
        sent them, and take a fraction for it the next time.
        """
        known = self._known_openai if form is OPENAI else self._known_anthropic
        groups = known.get(model)
        if groups is None:
            groups = self._find_routes(form, model)
            if len(known) < MAX_KNOWN_ROUTES:
                known[model] = groups
        if len(groups) == 1 and len(groups[0]) == 1:
            return groups[0]
        turned: list[Route] = []
        for group in groups:
            start = hash(customer) % len(group)
            turned += group[start:] + group[:start]
        now = self._clock()
        turned.sort(key=lambda route: route.key.rests_until > now)
        return turned

    def ask_now(
        self, request: Request, headers: Headers, customer: Hashable, trail: Trail
    ) -> Sent | None:
        """Send a request to who is asked first, if nothing is to be waited for or found out.

        Give what came back to `ask`, or, if the answer turns out well, to `welcome`.

        Raises:
            NoRouteError: there is nobody to ask.
            UnsafeHeaderError: a header holds a line break.
        """
        route = self.choose(request.form, request.asked_model, customer)[0]
        if not route.is_trusted:
            return None
        answer = route.pool.post_now(route.prepared, _body_for(route, request), headers)
        if answer is None:
            return None
        trail.route = route
        route.key.requests += 1
        return Sent(route, answer)

    def welcome(self, sent: Sent) -> None:
        """Note that an answer has begun well."""
        self._note_success(sent.route)

    async def ask(
        self,
        request: Request,
        headers: Headers,
        customer: Hashable,
        trail: Trail,
        sent: Sent | None = None,
    ) -> Answer:
        """Send a request to the first provider that takes it, and return the answer's beginning.

        When all refuse, the refusal that is returned is the one that says to wait, if any. One that
        was `sent` already counts as the first try.

        Raises:
            UpstreamError: nobody could be asked, or whoever was asked may have worked and failed.
            NoRouteError: there is nobody to ask.
            UnsafeHeaderError: a header holds a line break.
        """
        try:
            return await self._ask_in_turn(request, headers, customer, trail, sent)
        finally:
            for _, answer in trail.refused:
                answer.discard()

    async def _ask_in_turn(
        self,
        request: Request,
        headers: Headers,
        customer: Hashable,
        trail: Trail,
        sent: Sent | None,
    ) -> Answer:
        failure: UpstreamError | None = None
        unreachable: Provider | None = None
        for route in self._in_order(request, customer, sent, trail):
            under_way = sent.answer if sent is not None and sent.route is route else None
            if under_way is None:
                if route.provider is unreachable or not route.may_go():
                    continue
                trail.route = route
                route.key.requests += 1
            body = _body_for(route, request)
            try:
                prepared = _prepared(route, trail.query)
                answer = await route.pool.post(prepared, body, headers, sent=under_way)
            except UpstreamError as error:
                self._note_error(route, error)
                if error.was_sent:
                    raise
                failure, unreachable = error, route.provider
                continue
            if not self._is_refused(route, answer):
                return answer
            trail.refused += ((route, answer),)
        if not trail.refused:
            raise failure or _resting()
        return _take_refusal(trail)

    def _in_order(
        self, request: Request, customer: Hashable, sent: Sent | None, trail: Trail
    ) -> Iterable[Route]:
        """Yield who is asked next, while somebody waits for it."""
        if sent is not None:
            yield sent.route
        for route in self.choose(request.form, request.asked_model, customer):
            if trail.has_left and trail.refused:
                return
            if sent is None or route is not sent.route:
                yield route

    def subjects(self) -> list[str]:
        """Return what a change may be about: each provider and each of its keys."""
        return [
            subject
            for provider in self._providers
            for subject in (
                provider.config.name,
                *(key_name(provider.config.name, key.number) for key in provider.keys),
            )
        ]

    def snapshot(self) -> tuple[ProviderStatus, ...]:
        """Return how the providers are, in the order in which they are asked."""
        now = self._clock()
        return tuple(status_of(provider, now) for provider in self._providers)

    async def close(self) -> None:
        for provider in self._providers:
            for pool in provider.pools.values():
                await pool.close()

    def _find_model(self, asked: str) -> str:
        for provider in self._providers:
            if there := provider.config.model_there(asked):
                return there
        return asked

    def _find_routes(self, form: Form, model: str) -> tuple[tuple[Route, ...], ...]:
        routes = [
            (provider.config.priority, route)
            for provider in self._providers
            for route in routes_of(provider, form, model)
        ]
        if not routes:
            raise NoRouteError(f"No model provider has {model} in this API.")
        return tuple(
            tuple(route for _, route in group)
            for _, group in itertools.groupby(routes, key=lambda found: found[0])
        )

    def _is_refused(self, route: Route, answer: Answer) -> bool:
        """Note an answer's status, and say whether somebody else may be asked instead."""
        status = answer.status
        provider, key = route.provider, route.key
        if status < FIRST_FAILURE or status in ABOUT_THE_REQUEST:
            self._note_success(route)
            return False
        kind = f"http_{status}"
        key.failures[kind] += 1
        if status in OF_THE_PROVIDER:
            self._note_failure(provider.breaker, route.upstream, kind)
        elif status in OF_THE_KEY:
            self._note_failure(key.breaker, key_name(route.upstream, route.key.number), kind)
        else:
            self._note_success(route)
        if status == SLOW_DOWN:
            key.rests_until = self._clock() + _rest_seconds(answer)
        return status in NOTHING_RAN

    def _note_success(self, route: Route) -> None:
        if route.provider.breaker.succeeded():
            self._tell(Change(route.upstream, is_open=False, reason=""))
        if route.key.breaker.succeeded():
            self._tell(Change(key_name(route.upstream, route.key.number), is_open=False, reason=""))

    def _note_error(self, route: Route, error: UpstreamError) -> None:
        if error.code != "busy":  # that we ask too much tells nothing about the provider
            self._note_failure(route.provider.breaker, route.upstream, error.code)

    def _note_failure(self, breaker: Breaker, subject: str, reason: str) -> None:
        if breaker.failed():
            self._tell(Change(subject, is_open=True, reason=reason))

    def _tell(self, change: Change) -> None:
        if change.is_open:
            logger.warning("%s is left alone for a while: %s.", change.subject, change.reason)
        else:
            logger.info("%s answers again.", change.subject)
        if self._on_change is not None:
            self._on_change(change)


def _resting() -> UpstreamError:
    return UpstreamError("The model provider is not answering.", code="resting", was_sent=False)


def _prepared(route: Route, query: bytes) -> bytes:
    """Return a request's beginning, with the one query that means something in these APIs."""
    if query != BETA:
        return route.prepared
    return route.prepared.replace(b" HTTP/1.1", b"?%b HTTP/1.1" % BETA, 1)


def _body_for(route: Route, request: Request) -> bytes:
    if route.model == request.model:
        return request.body
    return wire.with_model(request.body, route.model)


def _rest_seconds(answer: Answer) -> float:
    given = answer.header(b"retry-after") or b""
    seconds = float(given) if given.isdigit() else DEFAULT_REST_SECONDS
    return min(seconds, LONGEST_REST_SECONDS)


def _take_refusal(trail: Trail) -> Answer:
    """Return the refusal to tell the client: the first that says to wait, else the first."""
    refused = list(trail.refused)
    statuses = [answer.status for _, answer in refused]
    told = statuses.index(SLOW_DOWN) if SLOW_DOWN in statuses else 0
    trail.route, answer = refused.pop(told)
    trail.refused = tuple(refused)
    return answer
