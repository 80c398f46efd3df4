"""The watch: what happens in the cluster, and what follows from it within a second or two.

Events are only remembered as they come; what they touched is looked at together, so that a storm
of thousands costs a few statements and not thousands.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import replace

from openclaw_web.boxes import health, incidents, queries
from openclaw_web.boxes.changes import BoxChange, Conclude, conclude_nothing
from openclaw_web.boxes.health import Sight
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.boxes.queries import Watched
from openclaw_web.boxes.sentences import Reason
from openclaw_web.boxes.sweeping import observe
from openclaw_web.core.database import session_scope
from openclaw_web.integrations.cluster_objects import (
    Broken,
    ClusterEvent,
    Heard,
    NamespaceChanged,
    NamespacesListed,
    NamespaceState,
    NamespaceView,
    PodChanged,
    PodsListed,
    PodView,
)

PAGE = 500
OBSERVED_AT_ONCE = 6  # each needs a connection to the database
ASKED_AT_ONCE = 32
MOST_ASKED = 100  # of whom a check asks what fails in them; a storm has another cause
QUIET_SECONDS = 90.0  # the server's bookmarks come each minute: without one, all we know is old
NOTHING_SAID = "The connection is open, and nothing comes."
Find = Callable[[str], Awaitable[NamespaceView | None]]


class Watcher:
    """What the watch has seen so far, and what follows from it.

    `find` looks at one namespace directly, and puts back the label by which we watch.
    """

    def __init__(
        self, cluster_name: str, conclude: Conclude = conclude_nothing, *, find: Find | None = None
    ) -> None:
        self._cluster_name = cluster_name
        self._conclude = conclude
        self._find = find
        self._namespaces: dict[str, NamespaceView] = {}
        self._pods: dict[str, dict[str, PodView]] = {}
        self._is_complete = {"namespaces": False, "pods": False}
        self._heard_at = {"Namespace": 0.0, "Pod": 0.0}
        self._broken_because = ""
        self._touched: set[str] = set()
        self._is_relisted = False
        self._has_news = asyncio.Event()

    async def take(self, event: ClusterEvent) -> list[BoxChange]:
        """Remember an event and act at once on the boxes that it concerns."""
        self.remember(event)
        return await self.settle()

    def remember(self, event: ClusterEvent) -> None:
        self._note_sign(event)
        match event:
            case Heard() | Broken():
                return
            case NamespacesListed(views=views):
                self._namespaces = {view.name: view for view in views}
                self._is_complete["namespaces"] = self._is_relisted = True
            case PodsListed(views=views):
                self._pods = {}
                for view in views:
                    self._pods.setdefault(view.namespace, {})[view.name] = view
                self._is_complete["pods"] = self._is_relisted = True
            case NamespaceChanged(view=view):
                self._namespaces[view.name] = view
                self._touched.add(view.name)
            case PodChanged(view=view, is_gone=is_gone):
                pods = self._pods.setdefault(view.namespace, {})
                pods.pop(view.name, None)
                if not is_gone:
                    pods[view.name] = view
                self._touched.add(view.namespace)
        self._has_news.set()

    def _note_sign(self, event: ClusterEvent) -> None:
        if isinstance(event, Broken):
            self._broken_because = event.why
        else:
            self._heard_at[_kind_of(event)] = time.monotonic()

    async def follow(self) -> None:
        """Settle whatever comes, for ever; what comes meanwhile is settled together next."""
        while True:
            await self._has_news.wait()
            await self.settle()

    async def settle(self) -> list[BoxChange]:
        """Write down what the touched boxes look like now, and act on what that means."""
        self._has_news.clear()
        if not all(self._is_complete.values()):
            return []
        touched, self._touched = sorted(self._touched), set()
        is_relisted, self._is_relisted = self._is_relisted, False
        if is_relisted:
            return await self._look_at_all()
        return await self._look_at(touched)

    async def evaluate(self, only: Collection[str] | None = None) -> list[BoxChange]:
        """Count a missed check for each box that is not ready, and stamp those that are.

        `only` are the namespaces whose boxes may miss one; without it, all.
        """
        if not all(self._is_complete.values()) or self._is_quiet():
            return []
        ready = {name for name in self._namespaces if self._sight(name).is_ready}
        async with session_scope() as session:
            await health.stamp_seen(session, ready)
            active, ailing = [
                set(await queries.any_customers_namespaces(session, self._cluster_name, status))
                for status in (BoxStatus.ACTIVE, BoxStatus.UNHEALTHY)
            ]
        there = [
            name
            for name in (*sorted(active - ready), *sorted(ailing - ready))
            if (only is None or name in only) and self._sight(name).state is NamespaceState.ACTIVE
        ]
        told = dict(zip(there, await self._ask(there[:MOST_ASKED]), strict=False))
        sights = {name: replace(self._sight(name), failing=told.get(name, ())) for name in there}
        changes = await self._strike(sights)
        return changes + await self._look_at(sorted(ailing & ready))

    @property
    def silent_because(self) -> str:
        """Return why nothing was heard for too long, as far as we know; '' when something was."""
        return (self._broken_because or NOTHING_SAID) if self._is_quiet() else ""

    def _is_quiet(self) -> bool:
        """Say whether the watch heard nothing for so long that what we know may be over."""
        return time.monotonic() - min(self._heard_at.values()) > QUIET_SECONDS

    async def _strike(self, sights: dict[str, Sight]) -> list[BoxChange]:
        """Count a missed check for many boxes at once; only those that fall by it are few."""
        falling: dict[str, Watched] = {}
        for names in _pages(list(sights)):
            async with session_scope() as session:
                known = [
                    one
                    for one in await queries.any_customers_watched(session, names)
                    if one.status in {BoxStatus.ACTIVE, BoxStatus.UNHEALTHY}
                ]
                found = {
                    one.namespace: one
                    for one in known
                    if health.changes_by_strike(one, sights[one.namespace])
                }
                await health.note_pods(session, known, sights)
                counted = {one.namespace for one in known} - set(found)
                await health.count_strikes(session, counted)
            falling |= found
        reasons = {
            name: health.reason_of(sights[name])
            for name, one in falling.items()
            if one.status is BoxStatus.ACTIVE
        }
        marked = set(reasons) if reasons and await self._is_incident(reasons) else set()
        acted = sorted(set(falling) - marked)
        return await self._observe_all([(name, sights[name], True) for name in acted])

    async def _is_incident(self, reasons: dict[str, str]) -> bool:
        """Decide once for all that fall now; in an incident they are only marked."""
        async with session_scope() as session:
            if not await incidents.is_incident(session, self._cluster_name, more=len(reasons)):
                return False
            await health.mark_fallen(session, reasons)
        return True

    def _sight(self, namespace: str) -> Sight:
        pods = self._pods.get(namespace, {}).values()
        return Sight.of(self._namespaces.get(namespace), pods)

    async def _look_at_all(self) -> list[BoxChange]:
        """After a complete list: what is not in it does not exist."""
        async with session_scope() as session:
            known = await queries.any_customers_namespaces(
                session, self._cluster_name, *queries.WATCHED
            )
        return await self._look_at(sorted(known))

    async def _look_at(self, namespaces: list[str]) -> list[BoxChange]:
        """Note how these pods are with one statement, and act where that changes a box's status."""
        concerned: dict[str, Watched] = {}
        sights: dict[str, Sight] = {}
        for names in _pages(namespaces):
            seen = {name: self._sight(name) for name in names}
            async with session_scope() as session:
                known = await queries.any_customers_watched(session, names)
                await health.note_pods(session, known, seen)
            found = {
                one.namespace: one for one in known if health.is_concerned(one, seen[one.namespace])
            }
            concerned |= found
            sights |= {name: seen[name] for name in found}
        gone = [name for name in concerned if sights[name].state is not NamespaceState.ACTIVE]
        lost = await self._surely_gone(gone, sights)
        falls = {BoxStatus.ACTIVE, BoxStatus.UPDATING}
        reasons = {name: Reason.NO_POD for name in lost if concerned[name].status in falls}
        if lost and await self._is_incident(reasons):
            lost = set()  # when it is over, the sweep finds what is gone still
        acted = sorted((set(concerned) - set(gone)) | lost)
        return await self._observe_all([(name, sights[name], False) for name in acted])

    async def _surely_gone(self, names: list[str], sights: dict[str, Sight]) -> set[str]:
        """Look once more before namespaces are called gone: they may have lost their label only.

        Too many to be asked for one by one are left to the sweep, which lists them all.
        """
        unseen = [name for name in names if sights[name].state is NamespaceState.ABSENT]
        if self._find is None:
            return set(names)
        if len(unseen) > MOST_ASKED:
            return set(names) - set(unseen)
        views = await asyncio.gather(*(self._find(name) for name in unseen))
        return set(names) - {
            name
            for name, view in zip(unseen, views, strict=True)
            if view is not None and view.state is NamespaceState.ACTIVE
        }

    async def _ask(self, namespaces: Iterable[str]) -> list[tuple[str, ...]]:
        gate = asyncio.Semaphore(ASKED_AT_ONCE)

        async def ask(name: str) -> tuple[str, ...]:
            async with gate:
                return await health.ask_gateway(self._sight(name).pod)

        return await asyncio.gather(*(ask(name) for name in namespaces))

    async def _observe_all(self, sights: Iterable[tuple[str, Sight, bool]]) -> list[BoxChange]:
        gate = asyncio.Semaphore(OBSERVED_AT_ONCE)

        async def act(name: str, sight: Sight, is_strike: bool) -> list[BoxChange]:
            async with gate:
                return await observe(name, sight, self._conclude, is_strike=is_strike)

        found = await asyncio.gather(*(act(*one) for one in sights))
        return [change for changes in found for change in changes]


def _pages(names: list[str]) -> list[list[str]]:
    return [names[start : start + PAGE] for start in range(0, len(names), PAGE)]


def _kind_of(event: ClusterEvent) -> str:
    match event:
        case Heard(kind=kind):
            return kind
        case NamespacesListed() | NamespaceChanged():
            return "Namespace"
        case _:
            return "Pod"
