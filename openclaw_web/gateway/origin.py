"""From where somebody calls: which listener, which address, and who guesses tokens there."""

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from openclaw_web.core.settings import settings
from openclaw_web.gateway.callers import Caller
from openclaw_web.gateway.errors import NotFromHereError, SlowDownError
from openclaw_web.metering.models import TokenKind

FAILURES_PER_MINUTE = 20
MOST_ADDRESSES = 10_000  # remembered; the one that was quiet for longest is forgotten first
MINUTE_SECONDS = 60.0
IPV6_PREFIX = 64  # what one customer of a provider gets, and may choose freely from

# What an ingress adds, and what nothing inside does.
FORWARDING_HEADERS = frozenset({b"x-forwarded-for", b"forwarded", b"x-real-ip"})
_FORWARDED_FOR = b"x-forwarded-for"

Scope = Mapping[str, Any]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def check_origin(caller: Caller, *, is_inside: bool) -> None:
    """Let boxes' tokens in from inside only, and programs' keys when their box allows it.

    Raises:
        NotFromHereError: the caller may not call, or not from where it does.
    """
    if caller.kind is TokenKind.BOX:
        if not is_inside:
            raise NotFromHereError("This token works only from inside the box.")
    elif caller.is_asleep:
        raise NotFromHereError("The assistant of this key is paused, and its keys with it.")
    elif not caller.has_api_access:
        raise NotFromHereError("API access is not turned on for this box.")


def is_inside(scope: Scope, *, is_forwarded: bool) -> bool:
    """Say whether a request came in where only boxes are.

    That is the port of PROXY_INTERNAL_PORT: the socket says so, and no client can. On a laptop the
    boxes are processes of this machine, so loopback counts too; in production it does not, since a
    sidecar there hands over what the world sends. What was forwarded is never from inside, also
    when somebody points an ingress at the internal port.
    """
    if is_forwarded:
        return False
    chosen, server = settings(), scope.get("server")
    if (
        server is not None
        and chosen.proxy_internal_port
        and server[1] == chosen.proxy_internal_port
    ):
        return True
    client = scope.get("client")
    return client is not None and not chosen.is_production and _is_loopback(client[0])


def address_of(scope: Scope) -> str:
    """Return who counts as the sender: the peer, or whom a trusted proxy names."""
    client = scope.get("client")
    peer = client[0] if client is not None else ""
    trusted = _networks(settings().trusted_proxies)
    if not trusted or not _is_in(peer, trusted):
        return _counted(peer)
    named = [
        part.strip().decode("latin-1")
        for name, value in scope["headers"]
        if name == _FORWARDED_FOR
        for part in value.split(b",")
    ]
    # From the right: each proxy appends whom it saw, and all further left may be made up.
    return _counted(next((one for one in reversed(named) if not _is_in(one, trusted)), peer))


class Failures:
    """A bucket of failures for each address: twenty a minute, then it has to wait."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Refuse an address that failed too often, whatever it shows now.

        Raises:
            SlowDownError: it has to wait.
        """
        left = self._left(address)
        if left < 1:
            seconds = math.ceil((1 - left) * MINUTE_SECONDS / FAILURES_PER_MINUTE)
            raise SlowDownError(
                "Too many unknown tokens came from this address.", retry_after=seconds
            )

    def note(self, address: str) -> None:
        """Count one failure."""
        self._buckets[address] = (max(0.0, self._left(address) - 1), self._clock())
        self._buckets.move_to_end(address)
        if len(self._buckets) > MOST_ADDRESSES:
            self._buckets.popitem(last=False)

    def _left(self, address: str) -> float:
        left, since = self._buckets.get(address, (float(FAILURES_PER_MINUTE), 0.0))
        refilled = (self._clock() - since) * FAILURES_PER_MINUTE / MINUTE_SECONDS
        return min(float(FAILURES_PER_MINUTE), left + refilled)


def _is_loopback(host: str) -> bool:
    return host.startswith("127.") or host in {"::1", "::ffff:127.0.0.1"}


def _counted(host: str) -> str:
    address = _address(host)
    if not isinstance(address, ipaddress.IPv6Address):
        return str(address or host)
    return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))


def _is_in(host: str, networks: Iterable[Network]) -> bool:
    address = _address(host)
    return address is not None and any(address in network for network in networks)


def _address(host: str) -> Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@cache
def _networks(trusted: str) -> tuple[Network, ...]:
    """Return whom the setting trusts; what is no address is nobody, like a star for everybody."""
    found = []
    for part in filter(None, (part.strip() for part in trusted.split(","))):
        try:
            found.append(ipaddress.ip_network(part, strict=False))
        except ValueError:
            continue
    return tuple(found)
