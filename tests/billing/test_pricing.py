"""The public page of prices: for anybody, and with the own plan marked for a customer."""

import pytest

from openclaw_web.accounts import service as accounts
from openclaw_web.billing.models import Tier
from openclaw_web.billing.pricing_page import pricing_page
from openclaw_web.billing.pricing_state import PricingView
from openclaw_web.billing.tiers import plans
from openclaw_web.core.database import session_scope
from openclaw_web.ui import format as fmt
from tests.factories import make_subscription
from tests.ui.tab import Tab, customer_cookie, in_app, running_app

ADA = "ada@example.com"


@pytest.fixture
def client(database, valkey_server):
    with running_app(database, valkey_server.url, {"/pricing": PricingView.load}) as client:
        yield client


def test_a_visitor_has_no_plan_and_sees_all(client):
    with Tab(client, "/pricing", PricingView) as tab:
        assert "/login" not in tab.open()
        assert tab.sees("tier") in {None, ""}


def test_a_customer_sees_which_plan_is_theirs(client):
    async def subscribe():
        async with session_scope() as session:
            customer = await accounts.ensure_customer(session, ADA)
            await make_subscription(session, customer=customer, tier=Tier.PRO)

    ada = customer_cookie(client, ADA)
    in_app(client, subscribe)
    with Tab(client, "/pricing", PricingView, cookie=ada) as tab:
        tab.open()
        assert tab.sees("tier") == "pro"


def test_every_plan_is_compared_by_its_own_figures():
    drawn = str(pricing_page())
    for plan in plans():
        for figure in (
            fmt.money(plan.price_cents),
            fmt.tokens(plan.tokens_limit),
            fmt.tokens(plan.tokens_per_minute),
            f"Start with {plan.name}",
            f"/start?tier={plan.tier}",
            *plan.models,
        ):
            assert figure in drawn
