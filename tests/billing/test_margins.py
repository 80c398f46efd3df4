"""What a fully used month leaves us, computed from the catalogue."""

from decimal import Decimal

import pytest

from openclaw_web.billing.margins import CACHE_HITS, margin, margins
from openclaw_web.billing.models import Tier
from openclaw_web.billing.tiers import model_prices, plan_of, plan_of_price, plans


@pytest.mark.parametrize(
    ("tier", "cache_hits", "percent"),
    [
        (Tier.STARTER, "0.9", "52.5"),
        (Tier.STARTER, "0.5", "36.6"),
        (Tier.STARTER, "0", "16.8"),
        (Tier.PRO, "0.9", "54.8"),
        (Tier.PRO, "0.5", "30.3"),
        (Tier.PRO, "0", "-0.4"),
        (Tier.TEAM, "0.9", "49.2"),
        (Tier.TEAM, "0.5", "14.2"),
        (Tier.TEAM, "0", "-29.5"),
    ],
)
def test_the_margin_of_a_tier_is_known_at_each_share_of_cache_hits(tier, cache_hits, percent):
    assert margin(plan_of(tier), cache_hits=Decimal(cache_hits)).percent == Decimal(percent)


def test_a_million_tokens_costs_about_thirty_cents_at_ninety_percent_cache_hits():
    starter = plan_of(Tier.STARTER)
    cost = margin(starter, cache_hits=Decimal("0.9")).tokens_cost_cents
    assert round(cost / (starter.tokens_limit // 1_000_000)) == 30


def test_even_the_dearest_model_loses_nothing_at_ninety_percent_cache_hits():
    team = plan_of(Tier.TEAM)
    assert margin(team, cache_hits=Decimal("0.9"), model="k3").profit_cents > 0


def test_the_table_of_margins_holds_every_tier_at_every_share():
    found = margins()
    assert list(found) == list(plans())
    for plan, columns in found.items():
        assert columns == tuple(margin(plan, cache_hits=hits) for hits in CACHE_HITS)


def test_every_model_of_a_tier_has_a_price():
    assert {model for plan in plans() for model in plan.models} == set(model_prices())


def test_a_bigger_tier_gives_more_of_everything():
    for small, big in zip(plans(), plans()[1:], strict=False):
        assert small.price_cents < big.price_cents
        assert small.tokens_limit < big.tokens_limit
        assert small.telegram_users < big.telegram_users
        assert set(small.models) < set(big.models)


def test_a_plan_is_found_by_the_name_of_its_price():
    assert [plan_of_price(plan.lookup_key) for plan in plans()] == list(plans())
    assert plan_of_price("somebody_elses") is None
    assert plan_of_price(None) is None
