"""What of a box in the cluster is not as it was applied: edited by hand, scaled, or deleted.

Objects come a page at a time and are compared as plain documents: all that we apply must be there
as we applied it, and what others add is theirs. Secrets are neither read nor listed: a pod whose
Secret is gone cannot start, and that is seen on the pod.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from openclaw_web.boxes import manifests, proving, queries, rendering, revisions
from openclaw_web.boxes.desired import Desired
from openclaw_web.boxes.manifests import BoxSpec, Manifest
from openclaw_web.boxes.models import Box, BoxRevision, BoxStatus, RevisionOutcome
from openclaw_web.boxes.quantities import is_same_quantity
from openclaw_web.boxes.queries import Standing
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import OpenClawError
from openclaw_web.integrations.cluster import Cluster
from openclaw_web.integrations.cluster_objects import Document

PAGE = 500
BREATH = 10  # objects compared before others get their turn: heartbeats must not wait
VOLUME = "PersistentVolumeClaim"
COMPARED = ("Deployment", "NetworkPolicy", "ResourceQuota", "LimitRange")
COUNTED = ("ServiceAccount", VOLUME)
MISSING = "missing"
ENDING_VOLUME = f"{VOLUME}: being deleted"
NEWER = "newer settings"
MARKS = "marks"
REPLICAS = "replicas"
KEYS = ("name", "key", "type")  # by which the entries of a list are the same entry


@dataclass(frozen=True, kw_only=True)
class Expected:
    """A box that nobody is working on, and what its objects must be."""

    box_id: UUID
    spec: BoxSpec
    is_running: bool


@dataclass(kw_only=True)
class Drift:
    """What was found, by box: each finding names a kind and what of it."""

    checked: int = 0
    found: dict[UUID, list[str]] = field(default_factory=dict)
    # Only the running pod keeps such a volume: a job that replaces it would lose the memory.
    ending_volumes: set[UUID] = field(default_factory=set)

    def note(self, box_id: UUID, what: str) -> None:
        self.found.setdefault(box_id, []).append(what)


async def find_drift(cluster: Cluster, cluster_name: str) -> Drift:
    """Compare every settled box of this cluster with what the cluster has.

    Boxes with a job are left out, and so are unhealthy ones: the sweep repairs them.

    Raises:
        VendorError: the cluster does not answer; half a list says nothing about what is missing.
    """
    drift = Drift()
    expected = await _expected(cluster_name, drift)
    drift.checked = len(expected)
    for kind in (*COMPARED, *COUNTED):
        await _check_kind(cluster, kind, expected, drift)
    drift.found = {
        box_id: what for box_id, what in drift.found.items() if box_id not in drift.ending_volumes
    }
    return drift


async def _check_kind(
    cluster: Cluster, kind: str, expected: Mapping[str, Expected], drift: Drift
) -> None:
    seen: set[str] = set()
    is_counted = kind in COUNTED
    async for page in cluster.pages(kind, only_metadata=is_counted):
        for number, document in enumerate(page):
            if number % BREATH == 0:
                await asyncio.sleep(0)
            wanted = expected.get(namespace := _owner(document))
            if wanted is None:
                _note_ending_volume(kind, document, expected, drift)
                continue
            seen.add(namespace)
            if not is_counted and (what := difference_of(kind, wanted, document)):
                drift.note(wanted.box_id, f"{kind}: {what}")
    for namespace, wanted in expected.items():
        if namespace not in seen and wanted.is_running:
            drift.note(wanted.box_id, f"{kind}: {MISSING}")


def difference_of(kind: str, wanted: Expected, found: Document) -> str:
    """Return what of an object differs from what was applied, the first of it; '' when nothing.

    Of a box that rests, only that it rests: its settings are applied when it wakes up.
    """
    if not wanted.is_running:
        return REPLICAS if kind == "Deployment" and found["spec"].get("replicas", 1) else ""
    if kind != "Deployment":
        makers = {
            "NetworkPolicy": manifests.network_policy,
            "ResourceQuota": manifests.resource_quota,
            "LimitRange": manifests.limit_range,
        }
        return difference(makers[kind](wanted.spec)["spec"], found.get("spec"), "spec")
    spec, shown = found["spec"], found["metadata"].get("annotations") or {}
    if spec.get("replicas", 1) != 1:
        return REPLICAS
    if not _has_marks(wanted.spec, shown):
        return MARKS
    return difference(_deployment(wanted.spec, shown), spec, "spec")


def difference(wanted: Any, found: Any, path: str) -> str:
    """Return the path of the first thing that is not as wanted; what is added does not count."""
    if isinstance(wanted, Mapping):
        there = found if isinstance(found, Mapping) else {}
        told = (difference(one, there.get(key), f"{path}.{key}") for key, one in wanted.items())
        return next((one for one in told if one), "")
    if isinstance(wanted, list):
        return _difference_of_lists(wanted, found if isinstance(found, list) else [], path)
    # The server leaves empty values out, and writes quantities its own way.
    if wanted == found or (not wanted and found is None) or is_same_quantity(wanted, found):
        return ""
    return path


def _difference_of_lists(wanted: list[Any], found: list[Any], path: str) -> str:
    key = next((one for one in KEYS if wanted and _all_have(wanted, one)), None)
    if key is None or not _all_have(found, key):
        if len(wanted) != len(found):
            return path
        pairs = list(zip(wanted, found, strict=True))
    else:
        known = {one[key]: one for one in found}
        pairs = [(one, known.get(one[key])) for one in wanted]
    told = (
        difference(one, other, f"{path}[{number}]") for number, (one, other) in enumerate(pairs)
    )
    return next((one for one in told if one), "")


def _all_have(entries: list[Any], key: str) -> bool:
    return all(isinstance(one, Mapping) and key in one for one in entries)


def _has_marks(spec: BoxSpec, shown: Mapping[str, str]) -> bool:
    return shown.get(manifests.CONFIG_HASH) == manifests.config_hash(spec) and shown.get(
        manifests.LIVE_HASH
    ) == manifests.live_hash(spec)


def _deployment(spec: BoxSpec, shown: Mapping[str, str]) -> Manifest:
    """Return the wish for a Deployment with the right marks; its token is judged elsewhere."""
    pod = manifests.pod_template(spec, token_id="")["spec"]
    marks = {key: shown[key] for key in (manifests.CONFIG_HASH, manifests.TOKEN_ID) if key in shown}
    template = {"metadata": {"annotations": marks}, "spec": pod}
    return {"strategy": {"type": "Recreate"}, "template": template}


def _owner(document: Document) -> str:
    """Return the namespace of an object of ours that is there to stay, else ''."""
    meta = document["metadata"]
    is_ours = meta.get("name") == manifests.NAME and not meta.get("deletionTimestamp")
    return meta.get("namespace", "") if is_ours else ""


def _note_ending_volume(
    kind: str, document: Document, expected: Mapping[str, Expected], drift: Drift
) -> None:
    meta = document["metadata"]
    wanted = expected.get(meta.get("namespace", ""))
    is_volume = kind == VOLUME and meta.get("name") == manifests.NAME
    if is_volume and wanted is not None and meta.get("deletionTimestamp"):
        drift.ending_volumes.add(wanted.box_id)


async def _expected(cluster_name: str, drift: Drift) -> dict[str, Expected]:
    expected: dict[str, Expected] = {}
    after: UUID | None = None
    while True:
        async with session_scope() as session:
            page = await queries.any_customers_standings(
                session, cluster_name, after=after, limit=PAGE
            )
            settled = [one for one in page if is_settled(one)]
            ids = [one.box.id for one in settled]
            targets = await revisions.any_customers_targets(session, ids) if ids else {}
        if not page:
            return expected
        after = page[-1].box.id
        for number, one in enumerate(settled):
            if number % BREATH == 0:
                await asyncio.sleep(0)
            target = targets.get(one.box.id)
            if one.desired is Desired.ACTIVE and _is_newer(one.box, target):
                drift.note(one.box.id, NEWER)  # asked for, and no job is left that does it
                continue
            try:
                spec = rendering.render_revision(one.box, target, one.tier).spec
            except OpenClawError:
                continue  # settings that cannot be rendered are no drift; their job said so
            expected[one.box.k8s_namespace] = Expected(
                box_id=one.box.id, spec=spec, is_running=one.desired is Desired.ACTIVE
            )


def _is_newer(box: Box, target: BoxRevision | None) -> bool:
    """Say whether settings wait to be written; those that wait for their proof only are there."""
    if target is None or target.outcome != RevisionOutcome.PENDING.value:
        return False
    return proving.written_at(box, target.generation) is None


def is_settled(standing: Standing) -> bool:
    """Say whether a box is where it belongs, as far as the database knows."""
    wanted = {
        Desired.ACTIVE: BoxStatus.ACTIVE,
        Desired.SUSPENDED: BoxStatus.SUSPENDED,
    }.get(standing.desired)
    # One that was suspended before it ever answered may have been started by a late write.
    is_made = standing.box.activated_at is not None or standing.desired is Desired.SUSPENDED
    return is_made and not standing.has_job and standing.box.status is wanted
