"""How a subscription begins: when it is first billed, and what its first invoice says."""

from dataclasses import dataclass, field
from fractions import Fraction

from simulators.stripe import anchors, shapes
from simulators.stripe.cards import Presence
from simulators.stripe.clock import DAY
from simulators.stripe.errors import below, invalid, unsupported
from simulators.stripe.lines import Line, cost, for_period, for_trial, half_up, until_anchor
from simulators.stripe.shapes import items_of
from simulators.stripe.store import Json, new_id
from simulators.stripe.world import Params, World

MOST_TRIAL_DAYS = 730
TIMING_PARAMS = (
    "trial_period_days trial_end billing_cycle_anchor billing_cycle_anchor_config"
    " proration_behavior trial_settings.end_behavior.missing_payment_method"
)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """When the first whole period begins, if not at once."""

    trial_end: int | None = None
    anchor: int | None = None
    config: Json | None = None

    @property
    def first_date(self) -> int | None:
        return self.trial_end or self.anchor


@dataclass(frozen=True, kw_only=True)
class Start:
    """What somebody subscribes to, and how the first invoice is paid.

    `discounts` are coupons, each with the promotion code it came by; `fields` go onto the
    subscription as they are.
    """

    customer: Json
    chosen: list[tuple[Json, int]]
    timing: Timing = field(default_factory=Timing)
    method: Json | None = None
    presence: Presence = Presence.OFF
    behavior: str = "allow_incomplete"
    prorates: bool = True
    discounts: list[tuple[Json, Json | None]] = field(default_factory=list)
    session: str | None = None
    fields: Json = field(default_factory=dict)


def read_timing(world: World, params: Params, price: Json) -> Timing:
    """Return what the parameters of a new subscription say about its dates.

    Raises:
        StripeError: the dates contradict each other, or lie where they cannot.
    """
    now = world.now()
    trial_end = _trial_end(now, params)
    anchor, config = params.get("billing_cycle_anchor"), params.get("billing_cycle_anchor_config")
    if anchor is not None and config:
        raise invalid(
            "You may only specify one of these parameters: billing_cycle_anchor,"
            " billing_cycle_anchor_config."
        )
    if trial_end and (anchor is not None or config):
        raise unsupported("a trial together with a billing cycle anchor", "billing_cycle_anchor")
    recurring = price["recurring"]
    if config:
        anchor = anchors.from_config(now, recurring, config)
        names = ("day_of_month", "month", "hour", "minute", "second")
        return Timing(anchor=anchor, config={name: config.get(name) for name in names})
    if anchor is not None:
        natural = anchors.period_end(now, now, recurring["interval"], recurring["interval_count"])
        if anchor <= now:
            raise invalid("The billing_cycle_anchor must be in the future.", "billing_cycle_anchor")
        if anchor > natural:
            raise invalid(
                "billing_cycle_anchor cannot be later than next natural billing date"
                f" ({natural}) for plan",
                "billing_cycle_anchor",
            )
    return Timing(trial_end=trial_end, anchor=anchor)


def prepare(world: World, wish: Start) -> tuple[Json, list[Line]]:
    """Return a new subscription and the lines of its first invoice; nothing is stored."""
    now = world.now()
    shapes.check_same_rhythm([price for price, _ in wish.chosen])
    identifier = new_id("sub")
    items = [
        shapes.item(identifier, price, quantity, (now, now)) for price, quantity in wish.chosen
    ]
    subscription = shapes.subscription(world, wish.customer, items, **wish.fields)
    timing = wish.timing
    subscription["billing_cycle_anchor"] = timing.first_date or now
    subscription["billing_cycle_anchor_config"] = timing.config
    if wish.method:
        subscription["default_payment_method"] = wish.method["id"]
    if timing.trial_end:
        subscription |= {"trial_start": now, "trial_end": timing.trial_end}
    end = timing.first_date or shapes.next_end(subscription, wish.chosen[0][0], now)
    subscription = shapes.with_period(subscription, now, end)
    if timing.anchor:
        _divide_first_period(subscription, prorates=wish.prorates)
    return subscription, [_line(world, subscription, item) for item in items_of(subscription)]


def period_cost(subscription: Json, item: Json) -> int:
    """Return what an item costs in the subscription's current period, which may be a short one."""
    numerator, denominator = subscription.get("_share") or (1, 1)
    return half_up(cost(item) * Fraction(numerator, denominator))


def _line(world: World, subscription: Json, item: Json) -> Line:
    name = shapes.product_name(world, item)
    if subscription["trial_end"]:
        return for_trial(item, name)
    if "_share" in subscription:
        return until_anchor(item, name, period_cost(subscription, item))
    return for_period(item, name, *shapes.period_of(subscription))


def _divide_first_period(subscription: Json, *, prorates: bool) -> None:
    """Note which part of a whole period the time up to the anchor is; free unless prorated."""
    item = items_of(subscription)[0]
    recurring = item["price"]["recurring"]
    config = subscription["billing_cycle_anchor_config"] or {}
    end = item["current_period_end"]
    whole = anchors.period_start(
        end, recurring["interval"], recurring["interval_count"], config.get("day_of_month")
    )
    part = min(end - item["current_period_start"], end - whole) if prorates else 0
    subscription["_share"] = [part, end - whole]


def _trial_end(now: int, params: Params) -> int | None:
    days, end = params.get("trial_period_days"), params.get("trial_end")
    if days is not None and end is not None:
        raise invalid("You may only specify one of these parameters: trial_end, trial_period_days.")
    if days is not None:
        if days < 1:
            raise below(1, "trial_period_days")
        if days > MOST_TRIAL_DAYS:
            raise invalid(
                f"The maximum number of trial period days is {MOST_TRIAL_DAYS}.",
                "trial_period_days",
            )
        return now + days * DAY
    return check_trial_end(now, end)


def check_trial_end(now: int, end: int | str | None) -> int | None:
    """Return a trial's end as a moment; None when there is to be no trial."""
    if end is None or isinstance(end, str):
        return None
    if end <= now:
        raise invalid(
            "Invalid timestamp: must be an integer Unix timestamp in the future.", "trial_end"
        )
    if end > now + MOST_TRIAL_DAYS * DAY:
        raise invalid(
            "Invalid timestamp: can be no more than two years in the future.", "trial_end"
        )
    return end
