"""What a job is to reach: what the pod shall be, and whether the one that runs can become it."""

from dataclasses import dataclass

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes import health, manifests, queries, rendering
from openclaw_web.boxes.desired import Desired
from openclaw_web.boxes.lifecycle import move
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.boxes.rendering import Rendered
from openclaw_web.boxes.revisions import TRYING
from openclaw_web.boxes.runs import Run, StopRequestedError
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.integrations.cluster_objects import DeploymentView, ObjectView
from openclaw_web.jobs import leases


@dataclass(frozen=True, kw_only=True)
class Stand:
    """What the cluster's objects say of the pod that runs now; nothing when there is none."""

    deployment: DeploymentView | None
    secret: ObjectView | None

    def says(self, mark: str) -> str:
        return (self.deployment.annotations if self.deployment else {}).get(mark, "")

    def secret_says(self, mark: str) -> str:
        return (self.secret.annotations if self.secret else {}).get(mark, "")


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What the pod shall be, and how the box was before.

    `is_current`: the pod may stay, for it has this template and this token. `is_live`: it stays,
    and takes newer settings while it runs. `started` is the generation that it was made for.
    """

    box: Box
    rendered: Rendered
    stand: Stand
    token_id: str
    was: BoxStatus
    started: int
    is_current: bool
    is_live: bool

    @property
    def namespace(self) -> str:
        return self.box.k8s_namespace

    @property
    def generation(self) -> int:
        return self.rendered.generation

    @property
    def is_first(self) -> bool:
        return self.box.activated_at is None

    @property
    def config_hash(self) -> str:
        return manifests.config_hash(self.rendered.spec)

    @property
    def live_hash(self) -> str:
        return manifests.live_hash(self.rendered.spec)

    @property
    def has_files(self) -> bool:
        """Say whether the pod's Secret has these settings already."""
        return self.stand.secret_says(manifests.LIVE_HASH) == self.live_hash


async def look(run: Run, box: Box) -> Stand:
    """Look at what there is, and refuse to go on when a newer run was here."""
    deployment = await run.cluster.find_deployment(box.k8s_namespace, manifests.NAME)
    secret = await run.cluster.find_object("Secret", box.k8s_namespace, manifests.NAME)
    for found in (deployment, secret):
        if found is not None:
            run.check_fence(found.annotations)
    return Stand(deployment=deployment, secret=secret)


async def decide(run: Run, box: Box, stand: Stand) -> Goal:
    """Decide what the pod shall be, and show that we are at it."""
    async with session_scope() as session:
        box = await queries.get_any_box(session, box.id, lock=True)
        await leases.hold(session, run.fence)
        await require_wanted(session, box)
        rendered = await rendering.render(session, box)
        tokens = await queries.live_token_ids(session, box.id)
        goal = _goal(box, rendered, stand, {str(one) for one in tokens})
        await _show_start(session, box, goal)
    return goal


async def require_wanted(session: AsyncSession, box: Box) -> None:
    """Make sure, under the box's lock, that it shall still run: its money may be on its way back.

    Raises:
        StopRequestedError: it shall not, and another job says what shall be.
    """
    if (await queries.desired_of(session, box))[0] is not Desired.ACTIVE:
        raise StopRequestedError("This assistant is not to run any more.")


def _goal(box: Box, rendered: Rendered, stand: Stand, tokens: set[str]) -> Goal:
    token_id, started = stand.says(manifests.TOKEN_ID), stand.says(manifests.STARTED)
    is_current = (
        stand.says(manifests.CONFIG_HASH) == manifests.config_hash(rendered.spec)
        and token_id in tokens
        and stand.secret_says(manifests.TOKEN_ID) == token_id
        and started.isdecimal()
    )
    is_written = stand.secret_says(manifests.LIVE_HASH) == manifests.live_hash(rendered.spec)
    is_proven = rendered.is_proven or started == str(rendered.generation)
    is_up_to_date = is_written and is_proven
    if not is_up_to_date and box.status is not BoxStatus.ACTIVE:
        is_current = False  # only a pod that answers can show that it took its settings in
    return Goal(
        box=box,
        rendered=rendered,
        stand=stand,
        token_id=token_id,
        was=box.status,
        started=int(started) if is_current else rendered.generation,
        is_current=is_current,
        is_live=is_current and not is_up_to_date,
    )


async def _show_start(session: AsyncSession, box: Box, goal: Goal) -> None:
    now = await business_now(session)
    if box.status is BoxStatus.PENDING:
        move(box, BoxStatus.PROVISIONING, now=now)
    elif box.status is BoxStatus.SUSPENDED or (
        box.status is BoxStatus.ACTIVE and not goal.is_current
    ):
        move(box, BoxStatus.UPDATING, now=now)
    box.health = {**box.health, TRYING: goal.generation}
    session.add(box)
    health.announce(session, box)
