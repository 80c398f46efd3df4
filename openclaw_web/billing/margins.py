"""What a fully used month of a tier leaves us, from the catalogue's prices alone."""

from dataclasses import dataclass
from decimal import Decimal

from openclaw_web.billing.tiers import MILLION, Plan, model_prices, plans

MODEL = "kimi-k2.7-code"  # what the aliases stand for today, by the vendor's list
OUTPUT_SHARE = Decimal("0.01")  # an agent re-reads far more than it writes
CACHE_HITS = (Decimal("0.9"), Decimal("0.5"), Decimal(0))  # shares of the prompt tokens


@dataclass(frozen=True, kw_only=True)
class Margin:
    """What a fully used month leaves, in cents; `percent` is of the price."""

    price_cents: int
    tokens_cost_cents: Decimal
    pod_cost_cents: int

    @property
    def profit_cents(self) -> Decimal:
        return self.price_cents - self.tokens_cost_cents - self.pod_cost_cents

    @property
    def percent(self) -> Decimal:
        return (self.profit_cents / self.price_cents * 100).quantize(Decimal("0.1"))


def margin(
    plan: Plan,
    *,
    cache_hits: Decimal,
    output_share: Decimal = OUTPUT_SHARE,
    model: str = MODEL,
) -> Margin:
    """Return what is left of a month in which every token of the limit was used.

    `cache_hits` is a share of the prompt tokens, `output_share` of all tokens; both from 0 to 1.
    """
    price = model_prices()[model]
    output = plan.tokens_limit * output_share
    prompt = plan.tokens_limit - output
    cost = (
        output * price.output_cents
        + prompt * cache_hits * price.cached_input_cents
        + prompt * (1 - cache_hits) * price.input_cents
    ) / MILLION
    return Margin(
        price_cents=plan.price_cents, tokens_cost_cents=cost, pod_cost_cents=plan.pod_cost_cents
    )


def margins() -> dict[Plan, tuple[Margin, ...]]:
    """Return every tier's margin at each share of cache hits, in the order of `CACHE_HITS`."""
    return {plan: tuple(margin(plan, cache_hits=hits) for hits in CACHE_HITS) for plan in plans()}
