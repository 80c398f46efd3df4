"""A simulated year with every invariant at every stop; a short one each time, long ones at night.

`python -m bench.year --customers 50` does the same with figures.
"""

from datetime import timedelta

import pytest

from bench import worlds
from tests.billing.stripe_world import stripe_world
from tests.flows.year import SABOTAGE, live


async def months_of(tmp_path, *, customers, span):
    with stripe_world(tmp_path) as stripe:
        return await live(stripe.url, customers=customers, span=span)


@pytest.mark.usefixtures("database", "redis")
async def test_three_customers_live_through_three_months(tmp_path):
    lived = await months_of(tmp_path, customers=3, span=timedelta(days=92))
    assert lived.wrong == []
    assert lived.noticed == list(SABOTAGE)
    assert lived.deeds["sign up"] == 3
    assert lived.tokens > 0
    assert lived.happened["anchors on the 31st"] == 1


@pytest.mark.slow
def test_two_hundred_customers_live_through_a_leap_year():
    lived = worlds.live(worlds.Wanted(customers=200))
    assert lived.wrong == []
    assert lived.noticed == list(SABOTAGE)
    assert lived.deeds["sign up"] == 200
    assert all(lived.happened.values()), lived.happened
