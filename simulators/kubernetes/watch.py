"""Watches: a stream of changes that a client can take up again where it left off."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import orjson

from simulators.kubernetes.errors import ApiError
from simulators.kubernetes.objects import Object
from simulators.kubernetes.resources import Resource
from simulators.kubernetes.selectors import Test, in_order
from simulators.kubernetes.store import ADDED, DELETED, MODIFIED, Change, Store

BOOKMARK_SECONDS = 10.0
LONGEST_SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What a client wants to follow, from which revision, and in which form."""

    resource: Resource
    namespace: str
    test: Test
    present: Callable[[Object], Any]
    revision: str = ""
    timeout_seconds: float = LONGEST_SECONDS
    bookmarks: bool = False
    initial_events: bool = False


async def stream(store: Store, watch: Watch) -> AsyncIterator[bytes]:
    """Yield one JSON line per event until the time is over or the store closes."""
    ends_at = time.monotonic() + watch.timeout_seconds
    cursor = store.revision
    if watch.revision in {"", "0"} or watch.initial_events:
        for line in _present_objects(store, watch):
            yield line
    else:
        cursor = int(watch.revision)
    marked_at = time.monotonic()
    cuts = store.cuts
    while not store.is_closing and store.cuts == cuts:
        bell = store.bell(watch.resource)
        try:
            lines = _new_lines(store, watch, cursor)
        except ApiError as error:
            yield _line("ERROR", error.status())
            return
        cursor = store.revision  # taken with the changes: more may come while these are sent
        left = ends_at - time.monotonic()
        if watch.bookmarks and (left <= 0 or time.monotonic() - marked_at >= BOOKMARK_SECONDS):
            marked_at = time.monotonic()
            lines.append(_bookmark(watch, cursor))
        for line in lines:
            yield line
        if left <= 0:
            return
        await _rung(bell, min(left, BOOKMARK_SECONDS))


def _new_lines(store: Store, watch: Watch, cursor: int) -> list[bytes]:
    return [
        _line(kind, watch.present(change.obj))
        for change in store.since(watch.resource, cursor)
        if (kind := _seen_as(watch, change)) is not None
    ]


async def _rung(bell: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await bell.wait()
    except TimeoutError:
        return


def _present_objects(store: Store, watch: Watch) -> list[bytes]:
    lines = [
        _line(ADDED, watch.present(one))
        for one in in_order(store.objects(watch.resource, watch.namespace))
        if watch.test(one)
    ]
    if watch.initial_events and watch.bookmarks:
        note = {"k8s.io/initial-events-end": "true"}
        lines.append(_bookmark(watch, store.revision, note))
    return lines


def _seen_as(watch: Watch, change: Change) -> str | None:
    """Return the event as this watch sees it: to leave the selection is to be deleted."""
    if watch.namespace and change.obj["metadata"].get("namespace") != watch.namespace:
        return None
    was = change.before is not None and watch.test(change.before)
    if change.kind == DELETED:
        return DELETED if was else None
    is_now = watch.test(change.obj)
    if is_now:
        return MODIFIED if was else ADDED
    return DELETED if was else None


def _bookmark(watch: Watch, revision: int, notes: dict[str, str] | None = None) -> bytes:
    metadata: dict[str, Any] = {"resourceVersion": str(revision), "creationTimestamp": None}
    if notes:
        metadata["annotations"] = notes
    kind = {"kind": watch.resource.kind, "apiVersion": watch.resource.api_version}
    return _line("BOOKMARK", {**kind, "metadata": metadata})


def _line(kind: str, one: Any) -> bytes:
    return orjson.dumps({"type": kind, "object": one}) + b"\n"
