"""The page for whoever develops: who pays, what happened, what was delivered, and the buttons."""

from datetime import timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from simulators.stripe import control, courier, forms, lifecycle
from simulators.stripe.clock import day
from simulators.stripe.lines import money
from simulators.stripe.rendering import Html, badge, join, moment, page, table, tag
from simulators.stripe.store import Json
from simulators.stripe.world import World

SHOWN = 20
SEE_OTHER = 303
SWITCHES = ("duplicate", "drop", "shuffle")


def routes(world: World) -> list[Route]:
    """Return the page and what its buttons do; all addresses are relative to the page."""

    async def board(_request: Request) -> Response:
        return _board(world)

    async def advance(request: Request) -> Response:
        fields = await _fields(request)
        await control.advance(world, _whole(fields.get("seconds")))
        return RedirectResponse("./", SEE_OTHER)

    async def switches(request: Request) -> Response:
        fields = await _fields(request)
        chosen: dict[str, Any] = {name: name in fields for name in SWITCHES}
        control.set_switches(
            world, {**chosen, "delay_seconds": _seconds(fields.get("delay_seconds"))}
        )
        return RedirectResponse("./", SEE_OTHER)

    async def redeliver(request: Request) -> Response:
        control.redeliver(world, (await _fields(request)).get("event", ""))
        return RedirectResponse("./", SEE_OTHER)

    return [
        Route("/", board),
        Route("/advance", advance, methods=["POST"]),
        Route("/switches", switches, methods=["POST"]),
        Route("/redeliver", redeliver, methods=["POST"]),
    ]


def _board(world: World) -> Response:
    offset = world.clock.offset_seconds
    ahead = f"{timedelta(seconds=offset)} ahead of real time" if offset else "which is real time"
    chosen = courier.switches(world)
    return page(
        "board.html",
        "Stripe",
        now=moment(world.now()),
        ahead=ahead,
        delay=chosen["delay_seconds"],
        boxes=join(_box(name, is_on=chosen[name]) for name in SWITCHES),
        customers=_customers(world),
        subscriptions=_subscriptions(world),
        sessions=_sessions(world),
        events=_events(world),
        deliveries=_deliveries(world),
    )


def _box(name: str, *, is_on: bool) -> Html:
    mark = " checked" if is_on else ""
    return Html(
        f'<label><input type="checkbox" name="{name}" value="on"{mark}> {name.capitalize()}</label>'
    )


def _customers(world: World) -> Html:
    rows = [
        (one["email"] or "-", one["name"] or "-", tag("code", one["id"]), moment(one["created"]))
        for one in _some(world, "customer")
        if not one.get("deleted")
    ]
    return table(("Email", "Name", "Id", "Since"), rows, "No customers yet.")


def _subscriptions(world: World) -> Html:
    rows = []
    for one in _some(world, "subscription"):
        item = lifecycle.items_of(one)[0]
        amount = money(item["price"]["unit_amount"], item["price"]["currency"])
        until = day(item["current_period_end"])
        name = lifecycle.product_name(world, item)
        rows.append((name, amount, badge(one["status"]), f"until {until}", tag("code", one["id"])))
    heads = ("Plan", "Price", "Status", "Period", "Id")
    return table(heads, rows, "No subscriptions yet.")


def _sessions(world: World) -> Html:
    rows = [
        (
            tag("a", one["_line_items"][0]["description"], href=f"c/pay/{one['id']}"),
            money(one["amount_total"], one["currency"]),
            one["customer_details"]["email"] or "-",
            f"until {moment(one['expires_at'])}",
        )
        for one in _some(world, "checkout.session")
        if one["status"] == "open"
    ]
    return table(("Plan", "Amount", "Email", "Open"), rows, "Nobody is at the checkout.")


def _events(world: World) -> Html:
    rows = [
        (tag("b", one["type"]), tag("code", one["id"]), moment(one["created"]), _again(one["id"]))
        for one in _some(world, "event")
    ]
    return table(("Type", "Id", "Time", ""), rows, "Nothing has happened yet.")


def _again(event: str) -> Html:
    hidden = Html(f'<input type="hidden" name="event" value="{event}">')
    button = tag("button", "Redeliver", class_="quiet tiny", type="submit")
    return tag("form", Html(hidden + button), method="post", action="redeliver", class_="inline")


def _deliveries(world: World) -> Html:
    rows = [
        (one["type"], badge(one["state"]), one["outcome"] or "-", one["attempts"])
        for one in control.deliveries(world, SHOWN)
    ]
    return table(("Event", "State", "Last answer", "Tries"), rows, "Nothing was delivered yet.")


def _some(world: World, kind: str) -> list[Json]:
    """Return the newest objects of a kind."""
    found = world.store.every(kind)
    return [one for one, _ in zip(found, range(SHOWN), strict=False)]


async def _fields(request: Request) -> dict[str, Any]:
    return forms.decode((await request.body()).decode("utf-8", "replace"))


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdigit() else value


def _seconds(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return value
