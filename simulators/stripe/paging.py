"""Stripe's lists: newest first, at most a hundred at once, and walked with an id as the cursor."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from simulators.stripe.errors import invalid, missing_reference
from simulators.stripe.store import Json, Shelf
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


def answer(
    url: str, params: Params, shelf: Shelf, wanted: Callable[[Json], bool] | None = None
) -> Json:
    """Return the page of stored objects that the parameters ask for."""
    limit = _limit(params)
    after, before = params.get("starting_after"), params.get("ending_before")
    if after and before:
        raise invalid("You cannot use both ending_before and starting_after.", "starting_after")
    walk: Iterator[Json] | None = iter(shelf)
    if after:
        walk = shelf.older_than(after)
    elif before:
        walk = shelf.newer_than(before)
    if walk is None:
        name = "ending_before" if before else "starting_after"
        raise missing_reference("object", params[name], name)
    found = list(islice(filter(wanted, walk), limit + 1))
    page = found[:limit]
    if before:
        page.reverse()
    return listing(url, page, has_more=len(found) > limit)


def answer_short(url: str, params: Params, objects: list[Json]) -> Json:
    """Return a page of a list that belongs to one object, such as an invoice's lines."""
    limit = _limit(params)
    places = {one["id"]: at for at, one in enumerate(objects)}
    start, end = 0, len(objects)
    for name in ("starting_after", "ending_before"):
        cursor = params.get(name)
        if cursor and cursor not in places:
            raise missing_reference("object", cursor, name)
    if "starting_after" in params:
        start = places[params["starting_after"]] + 1
    elif "ending_before" in params:
        end = places[params["ending_before"]]
        start = max(0, end - limit)
        return listing(url, objects[start:end], has_more=start > 0)
    page = objects[start : start + limit]
    return listing(url, page, has_more=start + limit < end)


def _limit(params: Params) -> int:
    limit = params.get("limit", DEFAULT_LIMIT)
    if limit < 1:
        raise invalid("This value must be greater than or equal to 1.", "limit")
    if limit > LARGEST_LIMIT:
        raise invalid(f"This value must be less than or equal to {LARGEST_LIMIT}.", "limit")
    return limit


def listing(url: str, objects: list[Json], *, has_more: bool = False) -> Json:
    return {"object": "list", "data": objects, "has_more": has_more, "url": url}


def within(value: int, bounds: Any) -> bool:
    """Whether a time lies within Stripe's `created` filter: a number, or gt, gte, lt, lte."""
    if bounds is None:
        return True
    if isinstance(bounds, int):
        return value == bounds
    return all(COMPARISONS[name](value, bound) for name, bound in bounds.items())
