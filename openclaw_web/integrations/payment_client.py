"""The process's one client of Stripe's own library, and Stripe's errors in our words.

It costs a process about 32 MB (measured).
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Generator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import stripe

from openclaw_web.core.errors import VendorError
from openclaw_web.core.settings import LOOPBACK_NAMES, settings

logger = logging.getLogger(__name__)

API_VERSION = "2026-10-28.endive"  # what stripe 16.1.0 was made from; move both together
TIMEOUT = httpx.Timeout(10.0, connect=5.0)
NETWORK_RETRIES = 2
PAGE = 100
MOST_OBJECTS = 1_000  # of one customer; more is not a customer of ours
SERVER_FAULT = 500
CONFLICT = 409


class _Http(stripe.HTTPClient):
    """How Stripe's library reaches the network: one pool of connections of this process.

    Its own httpx client sends bodies in a way that httpx deprecates, and follows a proxy of the
    environment even to a server on this machine.
    """

    name = "httpx"

    def __init__(self, *, trust_env: bool) -> None:
        super().__init__()
        self._pool = httpx.AsyncClient(timeout=TIMEOUT, trust_env=trust_env)

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        try:
            answer = await self._pool.request(
                method, url, headers=dict(headers), content=post_data or b""
            )
        except httpx.HTTPError as error:
            raise stripe.APIConnectionError(
                f"Stripe did not answer: {type(error).__name__}", should_retry=True
            ) from error
        return answer.content, answer.status_code, answer.headers

    def sleep_async(self, secs: float) -> Awaitable[None]:
        return asyncio.sleep(secs)

    async def close_async(self) -> None:
        await self._pool.aclose()


class _Process:
    client: stripe.StripeClient | None = None
    http: _Http | None = None


def open_payments(api_key: str, api_url: str) -> stripe.StripeClient:
    """Open the process's client; the second call with another address replaces it (tests do)."""
    _Process.http = _Http(trust_env=urlsplit(api_url).hostname not in LOOPBACK_NAMES)
    _Process.client = stripe.StripeClient(
        api_key,
        base_addresses={"api": api_url},
        stripe_version=API_VERSION,
        max_network_retries=NETWORK_RETRIES,
        http_client=_Process.http,
    )
    return _Process.client


async def close_payments() -> None:
    if _Process.http is not None:
        await _Process.http.close_async()
    _Process.client = _Process.http = None


def client() -> stripe.StripeClient:
    """Return the process's client, opened from the settings at its first use.

    Raises:
        VendorError: there is no key (`code` is `no_key`).
    """
    if _Process.client is None:
        if not settings().stripe_secret_key:
            raise VendorError(
                "STRIPE_SECRET_KEY is not set, so payments are off.", can_retry=False, code="no_key"
            )
        return open_payments(settings().stripe_secret_key, settings().stripe_api_url)
    return _Process.client


async def each(page: stripe.ListObject[Any]) -> AsyncGenerator[Any]:
    """Yield the objects of all pages as plain dictionaries."""
    count = 0
    async for one in page.auto_paging_iter():
        yield one.to_dict()
        count += 1
        if count >= MOST_OBJECTS:
            logger.warning("Stripe lists more than %d objects; the rest is not read.", MOST_OBJECTS)
            return


async def list_all(kind: str, **fields: Any) -> list[dict[str, Any]]:
    """Return the objects of all pages of a list as Stripe sent them, the newest first.

    The library's own objects cost several times what the question costs (measured).
    """
    found: list[dict[str, Any]] = []
    wanted = {**fields, "limit": PAGE}
    while len(found) < MOST_OBJECTS:
        answer = await client().raw_request_async("get", f"/v1/{kind}", **wanted)
        page = json.loads(answer.body)
        found += page["data"]
        if not page["has_more"]:
            return found
        wanted["starting_after"] = page["data"][-1]["id"]
    logger.warning("Stripe lists more than %d objects; the rest is not read.", MOST_OBJECTS)
    return found


@contextmanager
def in_our_words() -> Generator[None]:
    """Turn Stripe's errors into ours, with whether trying again can help."""
    try:
        yield
    except (KeyError, IndexError) as error:
        raise VendorError(
            f"Stripe's answer lacks {error}.", can_retry=False, code="shape"
        ) from error
    except stripe.APIConnectionError as error:
        raise VendorError(
            "Stripe cannot be reached.", can_retry=True, code="unreachable"
        ) from error
    except stripe.StripeError as error:
        status = error.http_status or SERVER_FAULT
        can_retry = (
            isinstance(error, stripe.RateLimitError) or status >= SERVER_FAULT or status == CONFLICT
        )
        raise VendorError(
            f"Stripe answered {status}: {error.user_message or 'no reason given'}",
            can_retry=can_retry,
            code=error.code or type(error).__name__,
        ) from error
