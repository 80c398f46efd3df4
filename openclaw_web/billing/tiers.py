"""The one catalogue: what each tier costs, gives and may use."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from openclaw_web.billing.models import Tier

CATALOGUE = Path(__file__).with_name("tiers.toml")
MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True)
class ModelPrice:
    """What the upstream asks, in US cents for a million tokens."""

    input_cents: int
    cached_input_cents: int
    output_cents: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One tier: money in cents a month, limits in tokens, sizes as Kubernetes quantities."""

    tier: Tier
    name: str
    price_cents: int
    currency: str
    tokens_limit: int
    telegram_users: int
    cpu_request: str
    cpu_limit: str
    memory_request: str
    memory_limit: str
    storage: str
    models: tuple[str, ...]
    requests_per_second: int
    parallel_requests: int
    tokens_per_minute: int
    pod_cost_cents: int
    lookup_key: str


@cache
def plans() -> tuple[Plan, ...]:
    """Return every tier on sale, the smallest first."""
    catalogue = _catalogue()
    return tuple(
        _plan(tier, catalogue["tiers"][tier.value], catalogue["currency"]) for tier in Tier
    )


@cache
def model_prices() -> dict[str, ModelPrice]:
    return {
        model: ModelPrice(
            input_cents=price["input"],
            cached_input_cents=price["cached_input"],
            output_cents=price["output"],
        )
        for model, price in _catalogue()["models"].items()
    }


@cache
def context_tokens() -> dict[str, int]:
    """Return what each model can read and write at most in one request."""
    return {model: entry["context_tokens"] for model, entry in _catalogue()["models"].items()}


def plan_of(tier: Tier | str) -> Plan:
    """Return the plan of a tier.

    Raises:
        ValueError: there is no such tier.
    """
    wanted = Tier(tier)
    return next(plan for plan in plans() if plan.tier is wanted)


def plan_of_price(lookup_key: str | None) -> Plan | None:
    """Return the plan that a Stripe price stands for, or nothing for a price that is not ours."""
    return next((plan for plan in plans() if plan.lookup_key == lookup_key), None)


@cache
def _catalogue() -> dict[str, Any]:
    return tomllib.loads(CATALOGUE.read_text(encoding="utf-8"))


def _plan(tier: Tier, found: dict[str, Any], currency: str) -> Plan:
    fields: dict[str, Any] = {**found, "models": tuple(found["models"])}
    return Plan(tier=tier, currency=currency, **fields)
