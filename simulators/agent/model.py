"""Asking the model, streamed, in the OpenAI or the Anthropic form, with OpenClaw's patience."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx

from simulators.agent.config import Model

MOST_TRIES = 3
MOST_TRIES_AFTER_CUT = 2
LONGEST_WAIT_SECONDS = 60
BACKOFF_SECONDS = (1.0, 2.0)
BLOCK_SECONDS = 30  # measured: 30 to 60 s without an upstream call after 401 and 403
BILLING_BLOCK_SECONDS = 600  # measured: 10 minutes, also across a restart
BILLING_SIGNS = ("insufficient_quota", "billing", "out of credits", "payment required")
USAGE_LIMIT_SIGN = "usage limit"
ERROR_TEXT_LIMIT = 400
THINKING_BUDGETS = {"minimal": 1024, "low": 4096, "medium": 8192, "high": 16_384}
LARGEST_BUDGET = 32_768

AUTHENTICATION = (
    "⚠️ Authentication failed (provider returned HTTP 401). Check the provider's API key."
)
FORBIDDEN = "⚠️ request failed (authentication failed, HTTP 403). Re-authenticate and try again."
BILLING = (
    "⚠️ API provider returned a billing error - your API key has run out of credits or has an"
    " insufficient balance. Check your provider's billing dashboard and top up."
)
GENERIC = "Something went wrong while processing your request. Please try again."

Messages = list[dict[str, str]]


class ModelError(Exception):
    """The turn failed; `text` is for the person, then the provider is left alone for a while."""

    def __init__(self, reason: str, text: str, block_seconds: float = 0) -> None:
        super().__init__(reason)
        self.text = text
        self.block_seconds = block_seconds


class StreamCutError(Exception):
    """The answer ended before its end."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An answer that is not a 200, as far as we look at it."""

    status: int
    message: str
    whole_text: str
    retry_after: float | None


async def ask(http: httpx.AsyncClient, model: Model, system: str, messages: Messages) -> str:
    """Return the model's answer; the whole turn is sent again when that can help.

    Raises:
        ModelError: it cannot be had now.
    """
    cuts = 0
    for attempt in range(MOST_TRIES):
        is_last = attempt == MOST_TRIES - 1
        wait = BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)]
        try:
            answer = await _ask_once(http, model, system, messages)
        except (StreamCutError, httpx.RemoteProtocolError, httpx.ReadError) as error:
            cuts += 1
            if is_last or cuts >= MOST_TRIES_AFTER_CUT:
                raise ModelError(f"stream cut ({type(error).__name__})", GENERIC) from error
            continue
        except httpx.HTTPError as error:
            if is_last:
                raise ModelError(f"no connection ({type(error).__name__})", GENERIC) from error
            await asyncio.sleep(wait)
            continue
        if isinstance(answer, str):
            return answer
        wait = _wait_before_retry(answer, otherwise=wait)
        if is_last or wait > LONGEST_WAIT_SECONDS:
            raise ModelError(f"HTTP {answer.status}", GENERIC)
        await asyncio.sleep(wait)
    raise ModelError("no try left", GENERIC)


def _wait_before_retry(refusal: Refusal, *, otherwise: float) -> float:
    """Return the seconds to wait.

    Raises:
        ModelError: waiting does not help.
    """
    reason, text = f"HTTP {refusal.status}", refusal.whole_text.lower()
    if refusal.status == httpx.codes.TOO_MANY_REQUESTS and USAGE_LIMIT_SIGN in text:
        suffix = "" if refusal.retry_after is None else f"\nRetry-After: {refusal.retry_after:.0f}"
        raise ModelError(reason, refusal.message + (f"{suffix} seconds" if suffix else ""))
    if refusal.status == httpx.codes.PAYMENT_REQUIRED or any(
        sign in text for sign in BILLING_SIGNS
    ):
        raise ModelError(reason, BILLING, BILLING_BLOCK_SECONDS)
    if refusal.status == httpx.codes.UNAUTHORIZED:
        raise ModelError(reason, AUTHENTICATION, BLOCK_SECONDS)
    if refusal.status == httpx.codes.FORBIDDEN:
        raise ModelError(reason, FORBIDDEN, BLOCK_SECONDS)
    is_temporary = refusal.status == httpx.codes.TOO_MANY_REQUESTS
    if not is_temporary and refusal.status < httpx.codes.INTERNAL_SERVER_ERROR:
        raise ModelError(reason, f"⚠️ The AI service rejected the request ({reason}).")
    return otherwise if refusal.retry_after is None else refusal.retry_after


async def _ask_once(
    http: httpx.AsyncClient, model: Model, system: str, messages: Messages
) -> str | Refusal:
    is_anthropic = model.api == "anthropic-messages"
    build = _anthropic_request if is_anthropic else _openai_request
    url, headers, body = build(model, system, messages)
    timeout = httpx.Timeout(model.timeout_seconds, connect=10)
    async with http.stream(
        "POST", url, headers=headers | dict(model.headers), json=body, timeout=timeout
    ) as response:
        if response.status_code != httpx.codes.OK:
            return await _refusal(response)
        events = _events(response)
        return await (_read_anthropic(events) if is_anthropic else _read_openai(events))


def _openai_request(
    model: Model, system: str, messages: Messages
) -> tuple[str, dict[str, str], dict[str, Any]]:
    body: dict[str, Any] = {
        "model": model.id,
        "messages": [{"role": "system", "content": system}, *messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens": model.max_tokens,
    }
    if model.reasoning_effort:
        body["reasoning_effort"] = model.reasoning_effort
    headers = {"authorization": f"Bearer {model.api_key}", "accept": "application/json"}
    return f"{model.base_url}/chat/completions", headers, body


def _anthropic_request(
    model: Model, system: str, messages: Messages
) -> tuple[str, dict[str, str], dict[str, Any]]:
    body: dict[str, Any] = {
        "model": model.id,
        "system": [{"type": "text", "text": system}],
        "messages": messages,
        "max_tokens": model.max_tokens,
        "stream": True,
    }
    if model.thinking != "off":
        budget = THINKING_BUDGETS.get(model.thinking, LARGEST_BUDGET)
        body["thinking"] = {"type": "enabled", "budget_tokens": min(budget, model.max_tokens - 1)}
    headers = {"x-api-key": model.api_key, "anthropic-version": "2023-06-01"}
    return f"{model.base_url.removesuffix('/v1')}/v1/messages", headers, body


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """Yield the stream's JSON events; OpenAI's last word is not JSON and becomes an empty one."""
    async for line in response.aiter_lines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            yield {}
            return
        try:
            event = json.loads(data)
        except ValueError as error:
            raise StreamCutError from error
        if event.get("error"):
            raise StreamCutError
        yield event


async def _read_openai(events: AsyncIterator[dict[str, Any]]) -> str:
    text = ""
    is_whole = False
    async for event in events:
        is_whole = is_whole or not event
        for choice in event.get("choices") or []:
            text += (choice.get("delta") or {}).get("content") or ""
            is_whole = is_whole or bool(choice.get("finish_reason"))
    if not is_whole:
        raise StreamCutError
    return text


async def _read_anthropic(events: AsyncIterator[dict[str, Any]]) -> str:
    text = ""
    is_whole = False
    async for event in events:
        text += (event.get("delta") or {}).get("text") or ""
        is_whole = is_whole or event.get("type") == "message_stop"
    if not is_whole:
        raise StreamCutError
    return text


async def _refusal(response: httpx.Response) -> Refusal:
    whole_text = (await response.aread()).decode(errors="replace")
    try:
        error = json.loads(whole_text).get("error")
    except (ValueError, AttributeError):
        error = None
    message = error.get("message") if isinstance(error, dict) else error
    after = response.headers.get("retry-after", "")
    return Refusal(
        status=response.status_code,
        message=str(message or whole_text)[:ERROR_TEXT_LIMIT],
        whole_text=whole_text,
        retry_after=float(after) if after.isdigit() else None,
    )
