"""Stripe's calendar: which days a subscription is billed on, all in UTC."""

import calendar
from datetime import UTC, datetime

from simulators.stripe.clock import DAY
from simulators.stripe.errors import invalid, unsupported
from simulators.stripe.store import Json

MONTHS = {"month": 1, "year": 12}
MONTHS_OF_YEAR = 12
RANGES = {
    "day_of_month": (1, 31),
    "month": (1, 12),
    "hour": (0, 23),
    "minute": (0, 59),
    "second": (0, 59),
}


def period_end(
    anchor: int, after: int, interval: str, count: int, day_of_month: int | None = None
) -> int:
    """Return the first billing date later than `after`.

    Months are counted from the anchor, as Stripe does: 31 January, 28 February, 31 March. A
    `day_of_month` from a `billing_cycle_anchor_config` stays wanted when the anchor itself had to
    fall on a shorter month's last day.
    """
    if interval not in MONTHS:
        length = count * (7 * DAY if interval == "week" else DAY)
        return anchor + ((after - anchor) // length + 1) * length
    months = count * MONTHS[interval]
    start, reached = _utc(anchor), _utc(after)
    between = (reached.year - start.year) * MONTHS_OF_YEAR + reached.month - start.month
    turns = between // months - 1
    while _add_months(start, turns * months, day_of_month).timestamp() <= after:
        turns += 1
    return int(_add_months(start, turns * months, day_of_month).timestamp())


def months_later(moment: int, months: int) -> int:
    return int(_add_months(_utc(moment), months).timestamp())


def period_start(anchor: int, interval: str, count: int, day_of_month: int | None = None) -> int:
    """Return where the whole period would have begun that ends at the anchor."""
    if interval not in MONTHS:
        return anchor - count * (7 * DAY if interval == "week" else DAY)
    return int(_add_months(_utc(anchor), -count * MONTHS[interval], day_of_month).timestamp())


def from_config(now: int, recurring: Json, config: Json) -> int:
    """Return the first billing date that a `billing_cycle_anchor_config` means.

    Raises:
        StripeError: the config does not fit the price's interval.
    """
    _check(recurring, config)
    moment = _utc(now)
    clock_time = {
        name: config[name] for name in ("hour", "minute", "second") if config.get(name) is not None
    }
    first = moment.replace(day=1, month=config.get("month") or moment.month, **clock_time)
    step = MONTHS[recurring["interval"]] if config.get("month") else 1
    turns = -1
    while _add_months(first, turns * step, config["day_of_month"]).timestamp() <= now:
        turns += 1
    return int(_add_months(first, turns * step, config["day_of_month"]).timestamp())


def _check(recurring: Json, config: Json) -> None:
    for name, (least, most) in RANGES.items():
        value = config.get(name)
        if value is not None and not least <= value <= most:
            raise invalid(
                f"This value must be between {least} and {most}.",
                f"billing_cycle_anchor_config[{name}]",
            )
    if recurring["interval"] not in MONTHS:
        raise invalid(
            "`billing_cycle_anchor_config` can only be used with prices that are billed by month or"
            " year.",
            "billing_cycle_anchor_config",
        )
    if config.get("month") and recurring["interval"] != "year":
        raise unsupported(
            "a month in billing_cycle_anchor_config for prices billed by month",
            "billing_cycle_anchor_config[month]",
        )


def _utc(moment: int) -> datetime:
    return datetime.fromtimestamp(moment, UTC)


def _add_months(start: datetime, months: int, day_of_month: int | None = None) -> datetime:
    year, month = divmod(start.year * MONTHS_OF_YEAR + start.month - 1 + months, MONTHS_OF_YEAR)
    last_day = calendar.monthrange(year, month + 1)[1]
    wanted = min(day_of_month or start.day, last_day)
    return start.replace(year=year, month=month + 1, day=wanted)
