"""Which plan a running period has: the one that it was billed with, whatever comes next."""

from openclaw_web.billing import arrears
from openclaw_web.billing.facts import Facts
from openclaw_web.billing.models import Tier
from openclaw_web.billing.tiers import Plan, plan_of, plan_of_price, plans
from openclaw_web.integrations.payment_objects import StripeInvoice, StripeSubscription


def plan_of_period(one: StripeSubscription, facts: Facts) -> Plan | None:
    """Return the plan that applies now; a price that is not ours keeps the one of before.

    Another price in the same period waits for its turn: a smaller one, as the bigger one is paid
    for, and a bigger one, as a part of its price must not buy all of its tokens. Our own upgrade
    starts a new period.
    """
    priced = plan_of_its_price(one)
    mine = facts.known_of(one)
    before = plan_of(mine.tier) if mine else None
    if priced is None:
        return before
    billing = arrears.billing_of_period(one, facts.invoices)
    if billing is not None and billing.price_id == one.price_id:
        return priced
    if mine is not None and mine.period_start == one.period_start:
        return before
    return (_plan_of_amount(billing) if billing else None) or priced


def plan_of_its_price(one: StripeSubscription) -> Plan | None:
    """Return the plan of the price: by its name, or, for a price that was replaced, by its tier."""
    if plan := plan_of_price(one.price_lookup_key):
        return plan
    return plan_of(one.price_tier) if one.price_tier in set(Tier) else None


def _plan_of_amount(billing: StripeInvoice) -> Plan | None:
    return next((plan for plan in plans() if plan.price_cents == billing.price_cents), None)
