"""What the worker does to a box: one function that brings it where it belongs, whatever was asked.

Each step may be done twice, and a crash between any two is mended by running it again. Before each
write to the cluster the lease is checked, and what a newer run wrote is never overwritten.
"""

from contextlib import nullcontext

from openclaw_web.boxes import activating, ending, health, queries
from openclaw_web.boxes.changes import BoxChange, Conclude, conclude_nothing
from openclaw_web.boxes.desired import Desired, Why
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.boxes.runs import Aside, Run
from openclaw_web.core.database import session_scope
from openclaw_web.integrations.cluster import Cluster
from openclaw_web.jobs.leases import ClaimedJob
from openclaw_web.jobs.models import JobType


async def converge(
    cluster: Cluster,
    claimed: ClaimedJob,
    *,
    conclude: Conclude = conclude_nothing,
    aside: Aside = nullcontext,
) -> list[BoxChange]:
    """Bring the job's box where it belongs now, and return what changed.

    `conclude` hears of each change in the transaction that makes it; `aside` is entered while this
    only waits for something long.

    Raises:
        LeaseLostError: the job is not ours any more; write nothing.
        StopRequestedError: it was asked to stop.
        VendorError: the cluster refused or failed; the error says whether trying again helps.
        ValidationError, NotFoundError: the box's settings cannot be applied.
    """
    run = Run(
        cluster=cluster,
        job=claimed.job,
        fence=claimed.fence,
        conclude=conclude,
        aside=aside,
    )
    if claimed.job.box_id is None:
        return []
    async with session_scope() as session:
        box = await queries.get_any_box(session, claimed.job.box_id)
        desired, why = await queries.desired_of(session, box)
    if box.status is BoxStatus.DESTROYED:
        return []
    if claimed.job.job_type is JobType.HEALTH_CHECK:
        return await _look(run, box)
    is_asked = claimed.job.job_type is JobType.DESTROY or box.status is BoxStatus.DESTROYING
    if why is Why.DELETION_DUE and not is_asked:
        # A date alone deletes nothing: first the sweep makes sure that it still holds.
        desired, why = Desired.SUSPENDED, Why.NOT_PAID
    acts = {
        Desired.ACTIVE: activating.activate,
        Desired.SUSPENDED: ending.suspend,
        Desired.DESTROYED: ending.destroy,
    }
    return await acts[desired](run, box, why)


async def _look(run: Run, box: Box) -> list[BoxChange]:
    """Look at a box once, and write down what is seen."""
    view = await run.cluster.find_namespace(box.k8s_namespace)
    pods = await run.cluster.pods(box.k8s_namespace) if view else []
    async with session_scope() as session:
        changes = await health.observe(
            session, box.k8s_namespace, health.Sight.of(view, pods), is_strike=True
        )
        await run.tell(session, changes)
    await run.say("Looked at it.")
    return changes
