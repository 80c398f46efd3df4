"""Startup, readiness and liveness probes by HTTP and TCP."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

HEALTHY = range(200, 400)
EAGER_SECONDS = 0.15  # how often a starting container is asked, so that readiness is seen at once
EAGER_FOR_SECONDS = 60.0
_STATUS_LINE_PARTS = 2


@dataclass(frozen=True)
class Place:
    """Where a container listens, and which real port stands for each of its ports."""

    address: str
    ports: Mapping[int, int]
    names: Mapping[str, int]

    def port(self, wanted: int | str) -> int:
        number = self.names.get(wanted, 0) if isinstance(wanted, str) else wanted
        return self.ports.get(number, number)


@dataclass
class Outcome:
    """What a probe has found so far, with Kubernetes' thresholds applied."""

    spec: Mapping[str, Any]
    passed: bool = False
    successes: int = 0
    failures: int = 0
    counted_at: float = field(default_factory=time.monotonic)  # the first period is free

    def succeeded(self) -> bool:
        """Note a success; say whether this turns the probe to passing."""
        self.successes, self.failures = self.successes + 1, 0
        turned = not self.passed and self.successes >= self.spec["successThreshold"]
        self.passed = self.passed or turned
        return turned

    def failed(self) -> bool:
        """Note a failure, at most one per period; say whether the threshold is reached."""
        moment = time.monotonic()
        self.successes = 0
        if moment - self.counted_at < self.spec["periodSeconds"] * 0.95:
            return False
        self.counted_at = moment
        self.failures += 1
        if self.failures < self.spec["failureThreshold"]:
            return False
        self.passed = False
        return True


@dataclass(frozen=True, kw_only=True)
class Reactions:
    """What to do when a probe turns: `failing` gets each counted failure's message."""

    passed: Callable[[], None]
    failing: Callable[[str], None]
    failed: Callable[[str], None]


async def watch(
    spec: Mapping[str, Any], place: Place, then: Reactions, *, until_passed: bool
) -> None:
    """Probe until cancelled (or, for startup, until passed or failed)."""
    began_at = time.monotonic()
    await asyncio.sleep(spec.get("initialDelaySeconds", 0))
    outcome = Outcome(spec)
    while True:
        asked_at = time.monotonic()
        problem = await check(spec, place)
        if problem is None:
            if outcome.succeeded():
                then.passed()
            if until_passed and outcome.passed:
                return
        else:
            before = outcome.failures
            over = outcome.failed()
            if outcome.failures != before:
                then.failing(problem)
            if over:
                then.failed(problem)
            if over and until_passed:
                return
        is_starting = not outcome.passed and asked_at - began_at < EAGER_FOR_SECONDS
        pause = EAGER_SECONDS if is_starting else spec["periodSeconds"]
        await asyncio.sleep(max(0.0, pause - (time.monotonic() - asked_at)))


async def check(spec: Mapping[str, Any], place: Place) -> str | None:
    """Ask once; return what is wrong, or None."""
    try:
        async with asyncio.timeout(spec["timeoutSeconds"]):
            if "httpGet" in spec:
                return await _http(spec["httpGet"], place)
            if "tcpSocket" in spec:
                return await _tcp(spec["tcpSocket"], place)
    except TimeoutError:
        return "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    return "this development cluster probes by httpGet and tcpSocket only"


async def _tcp(spec: Mapping[str, Any], place: Place) -> str | None:
    host, port = spec.get("host") or place.address, place.port(spec["port"])
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        return f"dial tcp {host}:{port}: {_reason(error)}"
    await _close(writer)
    return None


async def _http(spec: Mapping[str, Any], place: Place) -> str | None:
    host, port = spec.get("host") or place.address, place.port(spec["port"])
    url = f"http://{host}:{port}{spec['path']}"
    if spec.get("scheme") == "HTTPS":
        return f'Get "{url}": this development cluster probes by plain HTTP only'
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        return f'Get "{url}": dial tcp {host}:{port}: {_reason(error)}'
    try:
        writer.write(_request(spec, host, port))
        line = (await reader.readline()).decode("latin-1")
    except (OSError, ValueError) as error:
        return f'Get "{url}": {error}'
    finally:
        await _close(writer)
    words = line.split()
    if len(words) < _STATUS_LINE_PARTS or not words[1].isdigit():
        return f'Get "{url}": EOF'
    code = int(words[1])
    return None if code in HEALTHY else f"HTTP probe failed with statuscode: {code}"


def _request(spec: Mapping[str, Any], host: str, port: int) -> bytes:
    headers = {"Host": f"{host}:{port}", "User-Agent": "kube-probe/1.33", "Accept": "*/*"}
    for one in spec.get("httpHeaders") or ():
        headers[one["name"].title()] = one.get("value", "")
    lines = [f"GET {spec['path']} HTTP/1.1", *(f"{key}: {value}" for key, value in headers.items())]
    safe = [line.replace("\r", "").replace("\n", "") for line in lines]
    return "\r\n".join([*safe, "Connection: close", "", ""]).encode("latin-1", "replace")


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _reason(error: OSError) -> str:
    return (
        "connect: connection refused" if isinstance(error, ConnectionRefusedError) else str(error)
    )
