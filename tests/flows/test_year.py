"""A simulated year with every invariant at every stop; a short one each time, long ones at night.

`python -m bench.year --customers 50` does the same with figures.
"""

from datetime import timedelta

import pytest

from tests.billing.stripe_world import stripe_world
from tests.flows.year import live


async def months_of(tmp_path, *, customers, span):
    with stripe_world(tmp_path) as stripe:
        return await live(stripe.url, customers=customers, span=span)


@pytest.mark.usefixtures("database", "redis")
async def test_three_customers_live_through_three_months(tmp_path):
    lived = await months_of(tmp_path, customers=3, span=timedelta(days=92))
    assert lived.wrong == []
    assert lived.deeds["sign up"] == 3
    assert lived.tokens > 0


@pytest.mark.slow
@pytest.mark.usefixtures("database", "redis")
async def test_two_hundred_customers_live_through_a_leap_year(tmp_path):
    lived = await months_of(tmp_path, customers=200, span=timedelta(days=370))
    assert lived.wrong == []
    assert lived.deeds["sign up"] == 200
