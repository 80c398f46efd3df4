"""The billing portal: a page with the customer's card and invoices. Plans are changed elsewhere."""

from urllib.parse import urlsplit

from simulators.stripe import events, lifecycle, payments
from simulators.stripe.cards import Card
from simulators.stripe.clock import HOUR
from simulators.stripe.errors import invalid
from simulators.stripe.paging import LIST_PARAMS, answer
from simulators.stripe.store import Json, new_id
from simulators.stripe.world import Operation, Params, World

VALID_SECONDS = HOUR  # a portal address is good for an hour


def create(world: World, params: Params) -> Json:
    customer = world.refer("customer", params["customer"], "customer")
    if "return_url" in params and not urlsplit(params["return_url"]).netloc:
        raise invalid("Not a valid URL", "return_url", "url_invalid")
    if "configuration" in params:
        world.refer("billing_portal.configuration", params["configuration"], "configuration")
    identifier = new_id("bps")
    session: Json = {
        "id": identifier,
        "object": "billing_portal.session",
        "configuration": configuration(world)["id"],
        "created": world.now(),
        "customer": customer["id"],
        "customer_account": None,
        "flow": None,
        "livemode": False,
        "locale": params.get("locale"),
        "on_behalf_of": None,
        "return_url": params.get("return_url"),
        "url": f"{world.public_url}/p/session/{identifier}",
    }
    return events.created(world, "billing_portal.session.created", session)


def configuration(world: World) -> Json:
    """Return the account's only configuration: card and invoices, nothing else."""
    for known in world.store.every("billing_portal.configuration"):
        return known
    off: Json = {"enabled": False}
    return world.store.put(
        {
            "id": new_id("bpc"),
            "object": "billing_portal.configuration",
            "active": True,
            "application": None,
            "business_profile": dict.fromkeys(
                ("headline", "privacy_policy_url", "terms_of_service_url")
            ),
            "created": world.now(),
            "default_return_url": None,
            "features": {
                "customer_update": {**off, "allowed_updates": []},
                "invoice_history": {"enabled": True},
                "payment_method_update": {
                    "enabled": True,
                    "payment_method_configuration": None,
                },
                "subscription_cancel": {
                    **off,
                    "cancellation_reason": {**off, "options": []},
                    "mode": "at_period_end",
                    "proration_behavior": "none",
                },
                "subscription_pause": {
                    **off,
                    "duration": {"interval_options": [], "type": "indefinite"},
                },
                "subscription_update": {
                    **off,
                    "billing_cycle_anchor": None,
                    "default_allowed_updates": [],
                    "proration_behavior": "none",
                    "schedule_at_period_end": {"conditions": []},
                    "trial_update_behavior": "end_trial",
                },
            },
            "is_default": True,
            "livemode": False,
            "login_page": {**off, "url": None},
            "metadata": {},
            "name": None,
            "updated": world.now(),
        }
    )


def list_configurations(world: World, params: Params) -> Json:
    configuration(world)
    everything = world.store.every("billing_portal.configuration")
    return answer("/v1/billing_portal/configurations", params, everything)


def retrieve_configuration(world: World, _params: Params, identifier: str) -> Json:
    return world.need("billing_portal.configuration", identifier)


def is_over(world: World, session: Json) -> bool:
    return world.now() > session["created"] + VALID_SECONDS


def change_card(world: World, customer: Json, card: Card) -> None:
    """Make a new card the one that everything is paid with.

    Raises:
        StripeError: the card is refused at once; the old one stays.
    """
    method = payments.new_method(world, card, email=customer["email"], name=customer["name"])
    method = payments.attach(world, method, customer["id"])
    settings = {**customer["invoice_settings"], "default_payment_method": method["id"]}
    after = {**customer, "invoice_settings": settings}
    events.changed(world, "customer.updated", customer, after)
    for subscription in list(lifecycle.of_customer(world, customer["id"])):
        moved = {**subscription, "default_payment_method": method["id"]}
        events.changed(world, lifecycle.UPDATED, subscription, moved)


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/billing_portal/sessions",
        run=create,
        supports="customer return_url configuration locale expand",
        required="customer",
    ),
    Operation(
        method="GET",
        path="/v1/billing_portal/configurations",
        run=list_configurations,
        supports=LIST_PARAMS,
    ),
    Operation(
        method="GET",
        path="/v1/billing_portal/configurations/{}",
        run=retrieve_configuration,
        supports="expand",
    ),
)
