"""Stripe's lists: newest first, at most a hundred at once, and walked with an id as the cursor."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from simulators.stripe.errors import invalid, missing_reference
from simulators.stripe.store import Json
from simulators.stripe.world import Params

LIST_PARAMS = "limit starting_after ending_before expand"
DEFAULT_LIMIT = 10
LARGEST_LIMIT = 100
COMPARISONS = {
    "gt": lambda value, bound: value > bound,
    "gte": lambda value, bound: value >= bound,
    "lt": lambda value, bound: value < bound,
    "lte": lambda value, bound: value <= bound,
}


def answer(url: str, params: Params, objects: Iterable[Json]) -> Json:
    """Return the page of a list that the parameters ask for; `objects` come newest first."""
    limit = params.get("limit", DEFAULT_LIMIT)
    if not 1 <= limit <= LARGEST_LIMIT:
        bound = (
            "greater than or equal to 1" if limit < 1 else f"less than or equal to {LARGEST_LIMIT}"
        )
        raise invalid(f"This value must be {bound}.", "limit")
    after, before = params.get("starting_after"), params.get("ending_before")
    if after and before:
        raise invalid("You cannot use both ending_before and starting_after.", "starting_after")
    if before:
        newer = _until(objects, before)
        return listing(url, newer[-limit:], has_more=len(newer) > limit)
    rest = _beyond(objects, after) if after else iter(objects)
    found = list(islice(rest, limit + 1))
    return listing(url, found[:limit], has_more=len(found) > limit)


def listing(url: str, objects: list[Json], *, has_more: bool = False) -> Json:
    return {"object": "list", "data": objects, "has_more": has_more, "url": url}


def within(value: int, bounds: Any) -> bool:
    """Whether a time lies within Stripe's `created` filter: a number, or gt, gte, lt, lte."""
    if bounds is None:
        return True
    if isinstance(bounds, int):
        return value == bounds
    return all(COMPARISONS[name](value, bound) for name, bound in bounds.items())


def _beyond(objects: Iterable[Json], cursor: str) -> Iterable[Json]:
    rest = iter(objects)
    for one in rest:
        if one["id"] == cursor:
            return rest
    raise missing_reference("object", cursor, "starting_after")


def _until(objects: Iterable[Json], cursor: str) -> list[Json]:
    newer: list[Json] = []
    for one in objects:
        if one["id"] == cursor:
            return newer
        newer.append(one)
    raise missing_reference("object", cursor, "ending_before")
