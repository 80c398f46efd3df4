"""Long lists in pages: each page shows the moment at which the first one was asked for.

Without that, an object made between two pages, with a name from an earlier page, would be in no
page, and a watch from the list's revision would not tell of it either.
"""

import base64
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson

from simulators.kubernetes.errors import ApiError, bad_request
from simulators.kubernetes.objects import Object, name_of, namespace_of

KEPT_LISTS = 64
KEPT_SECONDS = 300.0  # as long as etcd keeps old revisions by default
_INCONSISTENT = -1


@dataclass(frozen=True)
class _Snapshot:
    revision: int
    ordered: list[Object]
    taken_at: float


class Pages:
    """Remembers lists of which a client has not seen the end; objects are shared, not copied."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _Snapshot] = OrderedDict()

    def knows(self, token: str) -> bool:
        """Say whether the list of this token is kept, so that nobody needs to make it again."""
        return bool(token) and _read(token)[0] in self._kept

    def forget(self) -> None:
        self._kept.clear()

    def cut(
        self, ordered: list[Object], revision: int, *, limit: int, token: str
    ) -> tuple[list[Object], dict[str, Any]]:
        """Return one page and the list's metadata.

        Raises:
            ApiError: 400, the token is not one of ours; 410, its list is no longer kept.
        """
        key, position = "", 0
        if token:
            key, after, is_inconsistent = _read(token)
            if not is_inconsistent:
                snapshot = self._snapshot(key, after)
                ordered, revision = snapshot.ordered, snapshot.revision
            position = _index_after(ordered, after)
        page = ordered[position : position + limit] if limit else ordered[position:]
        left = len(ordered) - position - len(page)
        metadata: dict[str, Any] = {"resourceVersion": str(revision)}
        if left:
            if key not in self._kept:
                key = self._keep(ordered, revision)
            metadata["continue"] = _write(key, revision, page[-1])
            metadata["remainingItemCount"] = left
        return page, metadata

    def _keep(self, ordered: list[Object], revision: int) -> str:
        key = secrets.token_hex(6)
        self._kept[key] = _Snapshot(revision, ordered, time.monotonic())
        while len(self._kept) > KEPT_LISTS:
            self._kept.popitem(last=False)
        return key

    def _snapshot(self, key: str, after: tuple[str, str]) -> _Snapshot:
        found = self._kept.get(key)
        if found is None or time.monotonic() - found.taken_at > KEPT_SECONDS:
            self._kept.pop(key, None)
            raise _too_old(after)
        return found


def _too_old(after: tuple[str, str]) -> ApiError:
    """Refuse as the real server does: with a token for the rest, as it is now."""
    message = (
        "The provided continue parameter is too old to display a consistent list result. You can"
        " start a new list without the continue parameter, or use the continue token in this"
        " response to retrieve the remainder of the results. Continuing with the provided token"
        " results in an inconsistent list - objects that were created, modified, or deleted"
        " between the time the first chunk was returned and now may show up in the list."
    )
    metadata = {"continue": _encoded("", _INCONSISTENT, after)}
    return ApiError(HTTPStatus.GONE, "Expired", message, metadata=metadata)


def _write(key: str, revision: int, last: Object) -> str:
    return _encoded(key, revision, (namespace_of(last), name_of(last)))


def _encoded(key: str, revision: int, after: tuple[str, str]) -> str:
    body = {"v": "meta.k8s.io/v1", "rv": revision, "list": key, "after": list(after)}
    return base64.urlsafe_b64encode(orjson.dumps(body)).decode()


def _read(token: str) -> tuple[str, tuple[str, str], bool]:
    try:
        body = orjson.loads(base64.urlsafe_b64decode(token))
        namespace, name = body["after"]
        return str(body["list"]), (str(namespace), str(name)), body["rv"] == _INCONSISTENT
    except (ValueError, TypeError, KeyError) as error:
        raise bad_request(f"continue key is not valid: {error}") from error


def _index_after(ordered: list[Object], after: tuple[str, str]) -> int:
    low, high = 0, len(ordered)
    while low < high:
        middle = (low + high) // 2
        if (namespace_of(ordered[middle]), name_of(ordered[middle])) > after:
            high = middle
        else:
            low = middle + 1
    return low
