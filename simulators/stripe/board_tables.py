"""The tables of the developer's page, the newest first."""

from itertools import islice

from simulators.stripe import clocks, control, disputes, shapes
from simulators.stripe.clock import day
from simulators.stripe.lines import money
from simulators.stripe.rendering import Html, badge, hidden, join, moment, table, tag
from simulators.stripe.store import Json
from simulators.stripe.world import World

SHOWN = 20
SHOWN_CODES = 8


def all_of(world: World) -> dict[str, Html]:
    return {
        "clocks": _clocks(world),
        "subscriptions": _subscriptions(world),
        "sessions": _sessions(world),
        "charges": _charges(world),
        "disputes": _disputes(world),
        "codes": _codes(world),
        "customers": _customers(world),
        "events": _events(world),
        "deliveries": _deliveries(world),
    }


def _clocks(world: World) -> Html:
    rows = [
        (one["name"] or "-", moment(one["frozen_time"]), badge(one["status"]), _code(one["id"]))
        for one in _some(world, clocks.KIND)
        if not one.get("deleted")
    ]
    if not rows:
        return Html("")
    heads = ("Name", "Stands at", "State", "Id")
    return tag("section", Html(tag("h2", "Test clocks") + table(heads, rows, "")), class_="panel")


def _customers(world: World) -> Html:
    rows = [
        (one["email"] or "-", one["name"] or "-", _code(one["id"]), moment(one["created"]))
        for one in _some(world, "customer")
        if not one.get("deleted")
    ]
    return table(("Email", "Name", "Id", "Since"), rows, "No customers yet.")


def _subscriptions(world: World) -> Html:
    rows = []
    for one in _some(world, "subscription"):
        item = shapes.items_of(one)[0]
        amount = money(item["price"]["unit_amount"], item["price"]["currency"])
        until = day(item["current_period_end"])
        name = shapes.product_name(world, item)
        who = (world.store.get(one["customer"]) or {}).get("email") or one["customer"]
        rows.append((name, amount, badge(one["status"]), f"until {until}", who, _code(one["id"])))
    heads = ("Plan", "Price", "Status", "Period", "Customer", "Id")
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


def _charges(world: World) -> Html:
    rows = [
        (
            money(one["amount"], one["currency"]),
            badge(_state(one)),
            _who(world, one),
            moment(one["created"]),
            _actions(one) if one["paid"] else one["failure_message"],
        )
        for one in _some(world, "charge")
    ]
    return table(("Amount", "State", "Customer", "Time", ""), rows, "No payments yet.")


def _state(charge: Json) -> str:
    if charge["disputed"]:
        return "disputed"
    if charge["amount_refunded"]:
        return "refunded" if charge["refunded"] else "partly_refunded"
    return charge["status"]


def _actions(charge: Json) -> Html:
    if charge["disputed"]:
        return Html("")
    buttons = {"dispute": "Dispute", "warning": "Fraud warning"}
    if not charge["refunded"]:
        buttons = {"refund": "Refund", **buttons}
    return _buttons(charge["id"], buttons)


def _disputes(world: World) -> Html:
    rows = [
        (
            money(one["amount"], one["currency"]),
            badge(one["status"]),
            one["reason"],
            moment(one["created"]),
            Html("")
            if one["status"] in disputes.CLOSED
            else _buttons(one["id"], {disputes.WON: "We win", disputes.LOST: "We lose"}),
        )
        for one in _some(world, disputes.KIND)
    ]
    if not rows:
        return Html("")
    heads = ("Amount", "State", "Reason", "Time", "")
    return tag("section", Html(tag("h2", "Disputes") + table(heads, rows, "")), class_="panel")


def _codes(world: World) -> Html:
    rows = []
    for one in islice(world.store.every("promotion_code"), SHOWN_CODES):
        coupon = world.store.get(one["promotion"]["coupon"]) or {}
        percent = coupon["percent_off"]
        worth = f"{percent:g} %" if percent else money(coupon["amount_off"], coupon["currency"])
        used = f"redeemed {one['times_redeemed']} times"
        rows.append((tag("b", one["code"]), f"{worth} {coupon['duration']}", used))
    return table(("Code", "Off", ""), rows, "No promotion codes yet.")


def _events(world: World) -> Html:
    rows = [
        (tag("b", one["type"]), _code(one["id"]), moment(one["created"]), _again(one["id"]))
        for one in _some(world, "event")
    ]
    return table(("Type", "Id", "Time", ""), rows, "Nothing has happened yet.")


def _again(event: str) -> Html:
    button = tag("button", "Redeliver", class_="quiet tiny", type="submit")
    content = Html(hidden(event=event) + button)
    return tag("form", content, method="post", action="redeliver", class_="inline")


def _deliveries(world: World) -> Html:
    rows = [
        (one["type"], badge(one["state"]), one["outcome"] or "-", one["attempts"])
        for one in control.deliveries(world, SHOWN)
    ]
    return table(("Event", "State", "Last answer", "Tries"), rows, "Nothing was delivered yet.")


def _buttons(identifier: str, buttons: dict[str, str]) -> Html:
    content = join(
        tag("button", words, class_="quiet tiny", type="submit", name="what", value=what)
        for what, words in buttons.items()
    )
    form = Html(hidden(id=identifier) + content)
    return tag("form", form, method="post", action="act", class_="inline")


def _who(world: World, charge: Json) -> str:
    customer = world.store.get(charge["customer"] or "", "customer") or {}
    return customer.get("email") or charge["customer"]


def _code(identifier: str) -> Html:
    return tag("code", identifier)


def _some(world: World, kind: str) -> list[Json]:
    return list(islice(world.store.every(kind), SHOWN))
