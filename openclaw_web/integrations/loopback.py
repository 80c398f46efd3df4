"""Talk to the simulators on this machine: forward a browser to their pages, use their controls."""

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from openclaw_web.core.errors import VendorError
from openclaw_web.core.settings import LOOPBACK_NAMES

TOKEN_HEADER = "X-Simulator-Token"  # noqa: S105 - the header's name
TIMEOUT_SECONDS = 60.0
CONTROL_TIMEOUT_SECONDS = 120.0
# These servers speak plain HTTP; to read every certificate of the system takes longer than to ask.
_TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass(frozen=True, kw_only=True)
class Forwarded:
    """The answer of a local server: its head, and its body as it arrives."""

    status: int
    headers: list[tuple[str, str]]
    body: AsyncIterator[bytes]


@asynccontextmanager
async def client() -> AsyncGenerator[httpx.AsyncClient]:
    """Open a client that knows no proxy and follows no redirect: it stays on this machine."""
    # A stream of events stays open and silent for long: only connecting has a limit.
    limits = httpx.Timeout(None, connect=TIMEOUT_SECONDS)
    async with httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=limits) as opened:
        yield opened


@asynccontextmanager
async def forward(
    opened: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    headers: list[tuple[str, str]],
    body: bytes,
) -> AsyncGenerator[Forwarded]:
    """Send a request on and yield the answer while it streams.

    Raises:
        VendorError: the server does not answer, or is not on this machine.
    """
    _check(url)
    request = opened.build_request(method, url, headers=headers, content=body)
    try:
        answer = await opened.send(request, stream=True)
    except httpx.HTTPError as error:
        raise VendorError("The simulator does not answer.", can_retry=True) from error
    try:
        yield Forwarded(
            status=answer.status_code,
            headers=answer.headers.multi_items(),
            body=answer.aiter_raw(),
        )
    finally:
        await answer.aclose()


async def control(url: str, token: str, payload: Mapping[str, Any]) -> Any:
    """POST to a simulator's control endpoint and return its JSON answer.

    Raises:
        VendorError: it does not answer, or refuses.
    """
    return await _press("POST", url, token, json=dict(payload))


async def look(url: str, token: str) -> Any:
    """GET what a simulator's control endpoint tells.

    Raises:
        VendorError: it does not answer, or refuses.
    """
    return await _press("GET", url, token)


async def _press(method: str, url: str, token: str, **body: Any) -> Any:
    _check(url)
    headers = {TOKEN_HEADER: token}
    limit = CONTROL_TIMEOUT_SECONDS
    async with httpx.AsyncClient(trust_env=False, timeout=limit, verify=_TRUSTS_NOBODY) as opened:
        try:
            answer = await opened.request(method, url, headers=headers, **body)
        except httpx.HTTPError as error:
            raise VendorError("The simulator does not answer.", can_retry=True) from error
    if answer.is_error:
        raise VendorError(
            f"The simulator refused ({answer.status_code}): {answer.text[:200]}", can_retry=False
        )
    return answer.json() if answer.content else None


def _check(url: str) -> None:
    if urlsplit(url).hostname not in LOOPBACK_NAMES:
        raise VendorError("Only servers on this machine are asked this way.", can_retry=False)
