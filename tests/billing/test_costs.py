"""What a customer's tokens cost us, and when an admin should hear of it."""

from decimal import Decimal

import pytest

from openclaw_web.billing.costs import ModelUsage, cost_cents, is_too_dear, price_of
from openclaw_web.billing.margins import margin
from openclaw_web.billing.models import Tier
from openclaw_web.billing.tiers import plan_of


def test_a_fully_used_month_costs_what_the_margin_says():
    plan = plan_of(Tier.PRO)
    completion = plan.tokens_limit // 100
    prompt = plan.tokens_limit - completion
    usage = ModelUsage(
        model="kimi-k2.7-code", prompt=prompt, cached=prompt // 2, completion=completion
    )
    expected = margin(plan, cache_hits=Decimal("0.5")).tokens_cost_cents
    assert cost_cents([usage]) == expected


@pytest.mark.parametrize(("cents", "verdict"), [(1140, False), (1141, True)])
def test_more_than_sixty_percent_of_the_price_is_too_much(cents, verdict):
    assert is_too_dear(Decimal(cents), Tier.STARTER) is verdict


def test_a_model_without_a_price_counts_as_the_dearest():
    assert price_of("a-new-one") == price_of("k3")


def test_what_came_from_the_cache_costs_its_own_price():
    cached = ModelUsage(model="k2p5", prompt=1_000_000, cached=1_000_000, completion=0)
    fresh = ModelUsage(model="k2p5", prompt=1_000_000, cached=0, completion=0)
    assert (cost_cents([cached]), cost_cents([fresh])) == (19, 95)
