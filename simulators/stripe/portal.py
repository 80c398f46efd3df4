"""The billing portal: a page with the customer's card and invoices. Plans are changed elsewhere."""

from urllib.parse import urlsplit

from simulators.stripe import events, lifecycle, methods
from simulators.stripe.cards import Card
from simulators.stripe.clock import HOUR
from simulators.stripe.errors import invalid, unsupported
from simulators.stripe.paging import LIST_PARAMS, answer
from simulators.stripe.store import Json, new_id
from simulators.stripe.world import Operation, Params, World, merge_metadata

KIND = "billing_portal.configuration"
VALID_SECONDS = HOUR  # a portal address is good for an hour
OURS = frozenset({"invoice_history", "payment_method_update"})
BUSINESS = ("headline", "privacy_policy_url", "terms_of_service_url")
OFF: Json = {
    "customer_update": {"allowed_updates": [], "enabled": False},
    "invoice_history": {"enabled": False},
    "payment_method_update": {"enabled": False, "payment_method_configuration": None},
    "subscription_cancel": {
        "cancellation_reason": {"enabled": False, "options": []},
        "enabled": False,
        "mode": "at_period_end",
        "proration_behavior": "none",
    },
    "subscription_pause": {
        "duration": {"interval_options": [], "type": "indefinite"},
        "enabled": False,
    },
    "subscription_update": {
        "billing_cycle_anchor": None,
        "default_allowed_updates": [],
        "enabled": False,
        "proration_behavior": "none",
        "schedule_at_period_end": {"conditions": []},
        "trial_update_behavior": "end_trial",
    },
}
FEATURE_PARAMS = " ".join(f"features.{name}.enabled" for name in OFF)
CHANGES = f"{FEATURE_PARAMS} business_profile default_return_url metadata name expand"
FLOW = (
    "flow_data.type flow_data.after_completion.type flow_data.after_completion.redirect.return_url"
)


def create(world: World, params: Params) -> Json:
    customer = world.refer("customer", params["customer"], "customer")
    _check_url(params.get("return_url"), "return_url")
    chosen = _configuration(world, params)
    identifier = new_id("bps")
    session: Json = {
        "id": identifier,
        "object": "billing_portal.session",
        "configuration": chosen["id"],
        "created": world.wall(),
        "customer": customer["id"],
        "customer_account": None,
        "flow": _flow(params),
        "livemode": False,
        "locale": params.get("locale"),
        "on_behalf_of": None,
        "return_url": params.get("return_url") or chosen["default_return_url"],
        "url": f"{world.public_url}/p/session/{identifier}",
    }
    return events.created(world, "billing_portal.session.created", session)


def default_configuration(world: World) -> Json:
    """Return the account's own configuration: card and invoices, nothing else."""
    for known in world.store.every(KIND):
        if known["is_default"]:
            return known
    features = _features(OFF, {name: {"enabled": True} for name in OURS})
    return world.store.put({**_new(world, {}, features), "is_default": True})


def create_configuration(world: World, params: Params) -> Json:
    default_configuration(world)
    features = _features(OFF, params["features"])
    made = _new(world, params, features)
    return events.created(world, "billing_portal.configuration.created", made)


def update_configuration(world: World, params: Params, identifier: str) -> Json:
    before = world.need(KIND, identifier)
    after = {**before, "metadata": merge_metadata(before["metadata"], params)}
    for name in ("active", "default_return_url", "name"):
        after[name] = params.get(name, before[name])
    after["business_profile"] = {
        **before["business_profile"],
        **(params.get("business_profile") or {}),
    }
    after["features"] = _features(before["features"], params.get("features") or {})
    if before["is_default"] and not after["active"]:
        raise invalid("You can't deactivate the default configuration.", "active")
    after["updated"] = world.wall()
    return events.changed(world, "billing_portal.configuration.updated", before, after)


def list_configurations(world: World, params: Params) -> Json:
    default_configuration(world)
    exact = {name: params[name] for name in ("active", "is_default") if name in params}
    return answer(
        "/v1/billing_portal/configurations",
        params,
        world.store.every(KIND),
        lambda one: all(one[name] == value for name, value in exact.items()),
    )


def retrieve_configuration(world: World, _params: Params, identifier: str) -> Json:
    return world.need(KIND, identifier)


def is_over(world: World, session: Json) -> bool:
    return world.wall() > session["created"] + VALID_SECONDS


def allows(world: World, session: Json, feature: str) -> bool:
    """Whether the page that a session opens has this part."""
    found = world.store.get(session["configuration"], KIND) or default_configuration(world)
    return found["features"][feature]["enabled"]


def change_card(world: World, customer: Json, card: Card, expires: tuple[int, int]) -> Json:
    """Make a new card the one that everything is paid with.

    Raises:
        StripeError: the card is refused at once; the old one stays.
    """
    billing = {"email": customer["email"], "name": customer["name"]}
    method = methods.new(world, card, expires, **billing)
    method = methods.attach(world, method, customer["id"])
    settings = {**customer["invoice_settings"], "default_payment_method": method["id"]}
    after = {**customer, "invoice_settings": settings}
    events.changed(world, "customer.updated", customer, after)
    for subscription in list(lifecycle.of_customer(world, customer["id"])):
        moved = {**subscription, "default_payment_method": method["id"]}
        events.changed(world, lifecycle.UPDATED, subscription, moved)
    return method


def _new(world: World, params: Params, features: Json) -> Json:
    _check_url(params.get("default_return_url"), "default_return_url")
    business = params.get("business_profile") or {}
    return {
        "id": new_id("bpc"),
        "object": KIND,
        "active": True,
        "application": None,
        "business_profile": {name: business.get(name) for name in BUSINESS},
        "created": world.wall(),
        "default_return_url": params.get("default_return_url"),
        "features": features,
        "is_default": False,
        "livemode": False,
        "login_page": {"enabled": False, "url": None},
        "metadata": merge_metadata({}, params),
        "name": params.get("name"),
        "updated": world.wall(),
    }


def _features(before: Json, wishes: Json) -> Json:
    for name, wish in wishes.items():
        if wish.get("enabled") and name not in OURS:
            raise unsupported(f"the portal's {name}", f"features[{name}][enabled]")
    return {name: {**old, **wishes.get(name, {})} for name, old in before.items()}


def _configuration(world: World, params: Params) -> Json:
    if "configuration" not in params:
        return default_configuration(world)
    return world.refer(KIND, params["configuration"], "configuration")


def _flow(params: Params) -> Json | None:
    """Return the one thing that a session's page is for."""
    wish = params.get("flow_data")
    if wish is None:
        return None
    if wish["type"] != "payment_method_update":
        raise unsupported(f"flow_data[type]={wish['type']}", "flow_data[type]")
    after = wish.get("after_completion") or {"type": "portal_homepage"}
    return {
        "type": wish["type"],
        "after_completion": {
            "type": after["type"],
            "hosted_confirmation": None,
            "redirect": after.get("redirect"),
        },
        "subscription_cancel": None,
        "subscription_update": None,
        "subscription_update_confirm": None,
    }


def _check_url(url: str | None, param: str) -> None:
    if url is not None and not urlsplit(url).netloc:
        raise invalid("Not a valid URL", param, "url_invalid")


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/billing_portal/sessions",
        run=create,
        supports=f"customer return_url configuration locale {FLOW} expand",
        required="customer",
    ),
    Operation(
        method="POST",
        path="/v1/billing_portal/configurations",
        run=create_configuration,
        supports=CHANGES,
    ),
    Operation(
        method="GET",
        path="/v1/billing_portal/configurations",
        run=list_configurations,
        supports=f"{LIST_PARAMS} active is_default",
    ),
    Operation(
        method="GET",
        path="/v1/billing_portal/configurations/{}",
        run=retrieve_configuration,
        supports="expand",
    ),
    Operation(
        method="POST",
        path="/v1/billing_portal/configurations/{}",
        run=update_configuration,
        supports=f"{CHANGES} active",
    ),
)
