"""The page for whoever develops: who pays, what happened, what was delivered, and the buttons."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from simulators.stripe import board_tables, control, coupons, courier, faults, forms, refunds
from simulators.stripe.errors import StripeError
from simulators.stripe.rendering import Html, join, moment, page, problem, tag, text
from simulators.stripe.store import Json
from simulators.stripe.world import World

SEE_OTHER, REFUSED = 303, 400
SWITCHES = {
    "duplicate": "twice each",
    "drop": "drop all",
    "shuffle": "in disorder",
}
AFTER_LAST_RETRY = {
    "cancel": "cancel the subscription",
    "unpaid": "mark it unpaid",
    "past_due": "leave it past due",
}

Fields = dict[str, Any]


def routes(world: World) -> list[Route]:
    """Return the page and what its buttons do; all addresses are relative to the page."""

    async def show(_request: Request) -> Response:
        return _board(world)

    buttons: dict[str, Callable[[World, Fields], Awaitable[object]]] = {
        "advance": _advance,
        "switches": _switch,
        "settings": _settle,
        "faults": _break,
        "mend": _mend,
        "redeliver": _redeliver,
        "act": _act,
        "promotion": _promote,
    }
    pressed = [
        Route(f"/{name}", _pressed(world, run), methods=["POST"]) for name, run in buttons.items()
    ]
    return [Route("/", show), *pressed]


def _pressed(
    world: World, run: Callable[[World, Fields], Awaitable[object]]
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        fields = forms.decode((await request.body()).decode("utf-8", "replace"))
        try:
            await run(world, fields)
        except control.Refused as refusal:
            return _board(world, str(refusal))
        except StripeError as refusal:
            return _board(world, refusal.message)
        return RedirectResponse("./", SEE_OTHER)

    return answer


async def _advance(world: World, fields: Fields) -> None:
    await control.advance(world, _whole(fields.get("seconds")))


async def _switch(world: World, fields: Fields) -> None:
    chosen: Json = {name: name in fields for name in SWITCHES}
    delay = _number(fields.get("delay_seconds"))
    control.set_switches(world, {**chosen, "delay_seconds": delay})


async def _settle(world: World, fields: Fields) -> None:
    chosen = {"after_last_retry": fields.get("after_last_retry")}
    control.set_settings(world, {**chosen, "card_updater": "card_updater" in fields})


async def _break(world: World, fields: Fields) -> None:
    given = {name: fields[name] for name in ("kind", "path", "method") if fields.get(name)}
    times, seconds = _whole(fields.get("times", "1")), _number(fields.get("seconds", "0"))
    control.arm(world, {**given, "times": times, "seconds": seconds})


async def _mend(world: World, _fields: Fields) -> None:
    faults.disarm(world)


async def _redeliver(world: World, fields: Fields) -> None:
    control.redeliver(world, fields.get("event", ""))


async def _act(world: World, fields: Fields) -> None:
    what, identifier = fields.get("what", ""), fields.get("id", "")
    if what == "refund":
        with world.store.transaction():
            refunds.create(world, {"charge": identifier, "reason": "requested_by_customer"})
        return
    if what not in control.ACTIONS:
        raise control.Refused(f"there is no button {what}")
    control.act(world, what, identifier)


async def _promote(world: World, fields: Fields) -> None:
    """Make a coupon and a code for it, as one would on Stripe's dashboard."""
    percent = _number(fields.get("percent"))
    if not isinstance(percent, float):
        raise control.Refused("the percentage must be a number")
    with world.store.transaction():
        duration = {"duration": fields.get("duration", "once")}
        coupon = coupons.create(world, {"percent_off": percent, **duration})
        promotion = {"type": "coupon", "coupon": coupon["id"]}
        code = fields.get("code", "").strip()
        coupons.create_code(world, {"promotion": promotion, **({"code": code} if code else {})})


def _board(world: World, flaw: str | None = None) -> Response:
    offset = world.clock.offset_seconds
    ahead = f"{timedelta(seconds=offset)} ahead of real time" if offset else "which is real time"
    chosen = courier.switches(world)
    settings = control.settings(world)
    return page(
        "board.html",
        "Stripe",
        REFUSED if flaw else 200,
        problem=problem(flaw),
        now=moment(world.wall()),
        ahead=ahead,
        delay=chosen["delay_seconds"],
        boxes=join(_box(name, words, is_on=chosen[name]) for name, words in SWITCHES.items()),
        retries=_options(AFTER_LAST_RETRY, settings["after_last_retry"]),
        updater=_box("card_updater", "banks send new expiry dates", is_on=settings["card_updater"]),
        kinds=_options({name: f"{name}: {words}" for name, words in faults.KINDS.items()}, ""),
        faults=_armed(world),
        **board_tables.all_of(world),
    )


def _armed(world: World) -> Html:
    rows = [
        tag("li", f"{one.kind}, next {one.times}: {one.method or 'any'} {one.path}")
        for one in faults.armed(world)
    ]
    if not rows:
        return Html("")
    button = tag("button", "Disarm all", class_="quiet tiny", type="submit")
    form = tag("form", button, method="post", action="mend", class_="inline")
    return Html(tag("ul", join(rows)) + form)


def _box(name: str, words: str, *, is_on: bool) -> Html:
    mark = " checked" if is_on else ""
    box = f'<input type="checkbox" name="{name}" value="on"{mark}>'
    return Html(f"<label>{box} {text(words.capitalize())}</label>")


def _options(words: dict[str, str], chosen: str) -> Html:
    return join(
        tag("option", shown, value=value, **({"selected": "selected"} if value == chosen else {}))
        for value, shown in words.items()
    )


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdigit() else value


def _number(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return value
