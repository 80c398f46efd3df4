"""Webhook endpoints: who is told about which events. `courier` does the telling."""

from urllib.parse import urlsplit

from simulators.stripe import API_VERSION
from simulators.stripe.errors import invalid, unsupported
from simulators.stripe.paging import LIST_PARAMS, answer
from simulators.stripe.store import Json, new_id
from simulators.stripe.world import Operation, Params, World, merge_metadata

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost"})
CHANGES = "url enabled_events description metadata expand"


def create(world: World, params: Params) -> Json:
    """Make an endpoint; only this answer carries its secret."""
    if params.get("api_version", API_VERSION) != API_VERSION:
        raise unsupported(f"api_version={params['api_version']}", "api_version")
    secret = new_id("whsec", 32)
    endpoint: Json = {
        "id": new_id("we"),
        "object": "webhook_endpoint",
        "api_version": params.get("api_version"),
        "application": None,
        "created": world.wall(),
        "description": params.get("description"),
        "enabled_events": _events(params["enabled_events"]),
        "livemode": False,
        "metadata": merge_metadata({}, params),
        "status": "enabled",
        "url": _checked_url(params["url"]),
        "_secret": secret,
    }
    world.store.put(endpoint)
    return {**endpoint, "secret": secret}


def retrieve(world: World, _params: Params, identifier: str) -> Json:
    return world.need("webhook_endpoint", identifier)


def update(world: World, params: Params, identifier: str) -> Json:
    endpoint = world.need("webhook_endpoint", identifier)
    endpoint["metadata"] = merge_metadata(endpoint["metadata"], params)
    if "url" in params:
        endpoint["url"] = _checked_url(params["url"])
    if "enabled_events" in params:
        endpoint["enabled_events"] = _events(params["enabled_events"])
    if "description" in params:
        endpoint["description"] = params["description"]
    if "disabled" in params:
        endpoint["status"] = "disabled" if params["disabled"] else "enabled"
    return world.store.put(endpoint)


def delete(world: World, _params: Params, identifier: str) -> Json:
    world.need("webhook_endpoint", identifier)
    world.store.remove(identifier)
    return {"id": identifier, "object": "webhook_endpoint", "deleted": True}


def list_endpoints(world: World, params: Params) -> Json:
    return answer("/v1/webhook_endpoints", params, world.store.every("webhook_endpoint"))


def _events(wanted: list[str]) -> list[str]:
    if not wanted:
        raise invalid("You must subscribe to at least one event.", "enabled_events")
    return wanted


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    try:
        is_url = parts.scheme in {"http", "https"} and bool(parts.netloc) and parts.port != 0
    except ValueError:  # the port is no number, or too large
        is_url = False
    if not is_url:
        raise invalid(
            "Invalid URL: An explicit scheme (such as https) must be provided.",
            "url",
            "url_invalid",
        )
    if parts.hostname not in LOOPBACK_HOSTS:
        raise unsupported("webhook URLs outside 127.0.0.1 and localhost", "url")
    return url


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/webhook_endpoints",
        run=create,
        supports=f"{CHANGES} api_version",
        required="url enabled_events",
    ),
    Operation(method="GET", path="/v1/webhook_endpoints", run=list_endpoints, supports=LIST_PARAMS),
    Operation(method="GET", path="/v1/webhook_endpoints/{}", run=retrieve, supports="expand"),
    Operation(
        method="POST",
        path="/v1/webhook_endpoints/{}",
        run=update,
        supports=f"{CHANGES} disabled",
    ),
    Operation(method="DELETE", path="/v1/webhook_endpoints/{}", run=delete),
)
