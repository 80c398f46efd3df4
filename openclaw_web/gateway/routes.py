"""The routes to models: each a provider's address, one of its keys, and the model's name there."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from openclaw_web.gateway.breaker import Breaker, State
from openclaw_web.gateway.errors import Form
from openclaw_web.gateway.upstreams import UpstreamConfig
from openclaw_web.integrations.upstream import Headers, Upstream


@dataclass(frozen=True)
class KeyStatus:
    number: int  # from 1, as they are given
    state: State
    is_resting: bool
    requests: int
    failures: dict[str, int]


@dataclass(frozen=True)
class ProviderStatus:
    """For metrics and screens. Failures are counted by kind: an error's code, or "http_503"."""

    name: str
    priority: int
    state: State
    requests: int
    failures: dict[str, int]
    open_connections: int
    idle_connections: int
    waiting_requests: int
    keys: tuple[KeyStatus, ...]


@dataclass(slots=True, eq=False)
class Key:
    number: int
    breaker: Breaker
    headers: dict[Form, Headers] = field(repr=False)
    requests: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    rests_until: float = 0.0


@dataclass(slots=True, eq=False)
class Provider:
    config: UpstreamConfig
    breaker: Breaker
    pools: dict[str, Upstream]  # by address
    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One way to a model: a provider's address, one of its keys, and the model's name there."""

    upstream: str
    model: str
    prepared: bytes = field(repr=False)
    pool: Upstream = field(repr=False)
    provider: Provider = field(repr=False)
    key: Key = field(repr=False)

    def may_go(self) -> bool:
        key, provider = self.key.breaker, self.provider.breaker
        return key.allows() and provider.begin() and key.begin()

    @property
    def is_trusted(self) -> bool:
        return self.key.breaker.is_closed and self.provider.breaker.is_closed


def open_provider(config: UpstreamConfig, clock: Callable[[], float]) -> Provider:
    def connect(url: str) -> Upstream:
        return Upstream(
            url,
            time_outs=config.time_outs,
            limits=config.limits,
            ca_file=config.ca_file,
            clock=clock,
        )

    addresses = {_address(url) for url in (config.openai_url, config.anthropic_url) if url}
    keys = tuple(
        Key(number, Breaker(clock), _auth(config, key))
        for number, key in enumerate(config.keys or ("",), 1)
    )
    return Provider(config, Breaker(clock), {url: connect(url) for url in addresses}, keys)


def _auth(config: UpstreamConfig, key: str) -> dict[Form, Headers]:
    """Return the headers that show a key; none where the provider wants none."""
    if not key:
        return {Form.OPENAI: (), Form.ANTHROPIC: ()}
    bearer: Headers = ((b"Authorization", b"Bearer " + key.encode()),)
    is_named = config.anthropic_auth == "x-api-key"
    own: Headers = ((b"x-api-key", key.encode()),)
    return {Form.OPENAI: bearer, Form.ANTHROPIC: own if is_named else bearer}


def routes_of(provider: Provider, form: Form, model: str) -> Iterable[Route]:
    config = provider.config
    is_openai = form is Form.OPENAI
    url = config.openai_url if is_openai else config.anthropic_url
    there = config.model_there(model)
    if not url or not there:
        return
    pool = provider.pools[_address(url)]
    path = url.removeprefix(_address(url)) + ("/chat/completions" if is_openai else "/messages")
    for key in provider.keys:
        prepared = pool.prepare(path, key.headers[form])
        yield Route(config.name, there, prepared, pool, provider, key)


def _address(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def key_name(provider: str, number: int) -> str:
    return f"{provider}, key {number}"


def status_of(provider: Provider, now: float) -> ProviderStatus:
    pools, keys = provider.pools.values(), provider.keys
    failures: Counter[str] = Counter()
    for counted in (*(pool.failures for pool in pools), *(key.failures for key in keys)):
        failures.update(counted)
    return ProviderStatus(
        name=provider.config.name,
        priority=provider.config.priority,
        state=provider.breaker.state,
        requests=sum(key.requests for key in keys),
        failures=dict(failures),
        open_connections=sum(pool.open_connections for pool in pools),
        idle_connections=sum(pool.idle_connections for pool in pools),
        waiting_requests=sum(pool.waiting_requests for pool in pools),
        keys=tuple(
            KeyStatus(
                number=key.number,
                state=key.breaker.state,
                is_resting=key.rests_until > now,
                requests=key.requests,
                failures=dict(key.failures),
            )
            for key in keys
        ),
    )
