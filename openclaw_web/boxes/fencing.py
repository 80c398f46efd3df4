"""Writes that come too late change nothing: each is made for the version of an object we have seen.

A worker may sleep between its last look at its lease and the write itself, for minutes. The
cluster then refuses it, since whoever took over has made another version meanwhile.
"""

from collections.abc import Awaitable, Callable

from openclaw_web.boxes import manifests
from openclaw_web.boxes.manifests import Manifest
from openclaw_web.boxes.runs import Run
from openclaw_web.core.errors import VendorError
from openclaw_web.integrations.cluster_objects import ObjectView

TRIES = 5
CONFLICT = "conflict"
GONE = "not_found"
Write = Callable[[ObjectView | None], Awaitable[None]]


async def over_newest(
    run: Run, kind: str, namespace: str, name: str, write: Write, *, saying: str = ""
) -> None:
    """Write over the version that is there now; look again when it was another one after all.

    What is said of it is said once, with the first check.

    Raises:
        LeaseLostError: a newer run has written it, or the job is somebody else's.
    """
    for tries_left in reversed(range(TRIES)):
        known = await run.cluster.find_object(kind, namespace, name)
        if known is not None:
            run.check_fence(known.annotations)
        await run.check(saying)
        saying = ""
        try:
            await write(known)
        except VendorError as error:
            if error.code != CONFLICT or not tries_left:
                raise
        else:
            return


async def apply_over(run: Run, manifest: Manifest, known: ObjectView | None) -> None:
    """Apply an object over exactly the version that we know, or make it where there was none.

    Whoever calls this has just checked the lease.

    Server-side apply would overwrite what came to be meanwhile, so a new object is created first,
    bare: of two who do that, one is refused.

    Raises:
        VendorError: `conflict` when it is another version by now.
    """
    if known is None:
        version = await run.cluster.create(_bare(run, manifest))
        await run.check()  # who was here meanwhile may have found nothing that could be fenced
    else:
        version = known.resource_version
    meta = {**manifest["metadata"], "resourceVersion": version}
    await run.cluster.apply({**manifest, "metadata": meta})


async def write_namespace(run: Run, manifest: Manifest, saying: str = "") -> None:
    """Make a box's place, or note on it who writes; what comes too late makes no place again."""
    wanted = manifest["metadata"]

    async def write(known: ObjectView | None) -> None:
        if known is None:
            await run.cluster.create(manifest)
            return
        meta = {key: wanted[key] for key in ("labels", "annotations")}
        change = {"metadata": {**meta, "resourceVersion": known.resource_version}}
        await run.cluster.merge("Namespace", "", wanted["name"], change)

    await over_newest(run, "Namespace", "", wanted["name"], write, saying=saying)


async def scale_to_nothing(run: Run, namespace: str) -> None:
    """End the pods of a box, unless a newer run was here.

    Its fence makes another version of what stood at nothing already: a sleeper's write is refused.

    Raises:
        LeaseLostError: the job is somebody else's now.
    """

    async def write(known: ObjectView | None) -> None:
        if known is None:
            return
        meta = {
            "annotations": {manifests.FENCE: str(run.fence.number)},
            "resourceVersion": known.resource_version,
        }
        change = {"metadata": meta, "spec": {"replicas": 0}}
        try:
            await run.cluster.merge("Deployment", namespace, manifests.NAME, change)
        except VendorError as error:
            if error.code != GONE:
                raise

    await over_newest(run, "Deployment", namespace, manifests.NAME, write)


def _bare(run: Run, manifest: Manifest) -> Manifest:
    """Return what holds an object's name: only what every later version of it has as well."""
    wanted = manifest["metadata"]
    marks = {manifests.FENCE: str(run.fence.number)}
    meta = {key: wanted[key] for key in ("name", "namespace", "labels") if key in wanted}
    bare = {
        "apiVersion": manifest["apiVersion"],
        "kind": manifest["kind"],
        "metadata": {**meta, "annotations": marks},
    }
    if manifest["kind"] != "Deployment":
        return bare
    spec, template = manifest["spec"], manifest["spec"]["template"]
    containers = [
        {"name": one["name"], "image": one["image"]} for one in template["spec"]["containers"]
    ]
    pod = {
        "metadata": {"labels": template["metadata"]["labels"]},
        "spec": {"containers": containers},
    }
    kept = {"strategy": spec["strategy"], "selector": spec["selector"]}
    return {**bare, "spec": {"replicas": 0, **kept, "template": pod}}
