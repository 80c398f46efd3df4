"""What a customer's tokens cost us upstream, by the list prices, against what they pay."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import cache

from openclaw_web.billing.models import Tier
from openclaw_web.billing.tiers import MILLION, ModelPrice, model_prices, plan_of

WARN_SHARE = Decimal("0.6")  # of the price; what is left pays for pod, cards and people


@dataclass(frozen=True, kw_only=True)
class ModelUsage:
    """Tokens of one model; `cached` is a part of `prompt`."""

    model: str
    prompt: int
    cached: int
    completion: int


def cost_cents(usage: Iterable[ModelUsage]) -> Decimal:
    """Return what the upstream asks for these tokens, in US cents."""
    return sum((_cost(one, price_of(one.model)) for one in usage), Decimal(0))


def share_of_price(cost: Decimal, tier: Tier) -> Decimal:
    return cost / plan_of(tier).price_cents


def is_too_dear(cost: Decimal, tier: Tier) -> bool:
    return share_of_price(cost, tier) > WARN_SHARE


def price_of(model: str) -> ModelPrice:
    """Return a model's price; one that the catalogue lacks counts as the dearest."""
    return model_prices().get(model) or _dearest()


@cache
def _dearest() -> ModelPrice:
    return max(model_prices().values(), key=lambda price: price.output_cents)


def _cost(usage: ModelUsage, price: ModelPrice) -> Decimal:
    fresh = max(usage.prompt - usage.cached, 0)
    cents = (
        fresh * price.input_cents
        + usage.cached * price.cached_input_cents
        + usage.completion * price.output_cents
    )
    return Decimal(cents) / MILLION
