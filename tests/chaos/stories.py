"""Each job type as a story: how a box comes to need it, and how it is asked for."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from openclaw_web.accounts.models import Customer
from openclaw_web.billing.models import Subscription, SubscriptionStatus, Tier
from openclaw_web.boxes import queries, upgrading
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.memory import backups, carrying, listing, snapshots
from openclaw_web.boxes.models import Box, BoxStatus
from openclaw_web.boxes.service import BoxSettings
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.jobs.models import JobType
from tests.chaos.hands import TOLD, Hands
from tests.chaos.keepers import pieces_of
from tests.factories import make_box, make_subscription

Act = Callable[[Hands, Box], Awaitable[None]]
NEXT_IMAGE = "test/assistant:2"
FORMER = b"what the one before it had learnt"


@dataclass(frozen=True)
class Story:
    """`prepare` is done in peace; `ask` queues the job that is disturbed.

    `also`: other ends, by name, that are as good as the one in peace. `again` makes a box that
    ended exactly as in peace ready for the next cell; without it each cell has a box of its own.
    `more`: what else its end has to show.
    """

    prepare: Act
    ask: Act
    also: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    again: Act | None = None
    more: Callable[[Hands], Awaitable[dict[str, Any]]] | None = None


async def nothing(_hands: Hands, _box: Box) -> None:
    return


async def live(hands: Hands, box: Box) -> None:
    await request(JobType.PROVISION)(hands, box)
    await hands.finish()


async def paused(hands: Hands, box: Box) -> None:
    await live(hands, box)
    await pause(hands, box)
    await hands.finish()


def request(job_type: JobType) -> Act:
    async def ask(_hands: Hands, box: Box) -> None:
        async with session_scope() as session:
            found = await queries.get_any_box(session, box.id, lock=True)
            await boxes.request_converge(session, found, job_type=job_type, requested_by="test")

    return ask


def change(**fields: Any) -> Act:
    async def ask(_hands: Hands, box: Box) -> None:
        async with session_scope() as session:
            settings = BoxSettings(telegram_user_ids=(111222333,), **fields)
            await boxes.change_settings(session, box, settings, requested_by="test")

    return ask


async def change_language(hands: Hands, box: Box) -> None:
    async with session_scope() as session:
        now = (await queries.get_any_box(session, box.id)).language
    await change(language="en" if now == "de" else "de")(hands, box)


async def restart(_hands: Hands, box: Box) -> None:
    async with session_scope() as session:
        found = await queries.get_any_box(session, box.id, lock=True)
        await boxes.request_restart(session, found, requested_by="test")


async def rotate(_hands: Hands, box: Box) -> None:
    async with session_scope() as session:
        found = await queries.get_any_box(session, box.id, lock=True)
        await boxes.request_rotation(session, found, requested_by="test")


async def without_its_old_tokens(hands: Hands) -> dict[str, Any]:
    return {"old tokens that live": len(hands.tokens & await hands.live_tokens())}


async def pause(_hands: Hands, box: Box) -> None:
    async with session_scope() as session:
        found = await queries.get_any_box(session, box.id, lock=True)
        await boxes.pause(session, found, requested_by="customer")


async def resume(_hands: Hands, box: Box) -> None:
    async with session_scope() as session:
        found = await queries.get_any_box(session, box.id, lock=True)
        await boxes.resume(session, found, requested_by="customer")


async def upgrade(hands: Hands, box: Box) -> None:
    async with session_scope() as session:
        subscription = await session.get_one(Subscription, box.subscription_id)
        subscription.tier = Tier.PRO
        session.add(subscription)
    await request(JobType.RESIZE)(hands, box)


async def another_image(_hands: Hands, box: Box) -> None:
    async with session_scope() as session:
        await upgrading.request_upgrade(session, box, NEXT_IMAGE, requested_by="test")


async def backup(_hands: Hands, box: Box) -> None:
    async with session_scope() as session:
        await backups.request_backup(session, box, requested_by="customer")


async def saved(hands: Hands, box: Box) -> None:
    """Bring it to where a backup is older than what it remembers."""
    await live(hands, box)
    await backup(hands, box)
    await hands.finish()
    await learn(hands, box)


async def learn(hands: Hands, box: Box) -> None:
    hands.memory[box.k8s_namespace] = b"what came since"


async def snapshot_taken(hands: Hands, box: Box) -> None:
    """Bring it to where a snapshot is older than what it remembers."""
    await live(hands, box)
    async with session_scope() as session:
        fresh = await queries.get_any_box(session, box.id, lock=True)
        fresh.activated_at = await business_now(session) - timedelta(days=2)
        session.add(fresh)
    while not await _has_backup(box):
        await snapshots.look_after(hands.cluster, box.cluster, _lead)
    hands.memory[box.k8s_namespace] = b"what came since"


async def _has_backup(box: Box) -> bool:
    async with session_scope() as session:
        return await backups.newest_usable(session, box.id) is not None


async def _lead() -> None:
    """Lead for ever."""


async def restore(_hands: Hands, box: Box) -> None:
    async with session_scope() as session:
        newest = await backups.newest_usable(session, box.id)
        assert newest is not None
        await backups.request_restore(session, box, newest.id, requested_by="customer")


async def succeeding(hands: Hands, box: Box) -> None:
    """Bring it to where its customer had another assistant before, whose last backup is kept."""
    await live(hands, box)
    async with session_scope() as session:
        customer = await session.get_one(Customer, box.customer_id)
        over = SubscriptionStatus.CANCELLED
        ended = await make_subscription(session, customer=customer, status=over)
        former = await make_box(session, subscription=ended, status=BoxStatus.DESTROYED)
        ticket = await backups.begin_save(session, former, backups.Reason.FINAL, most=len(FORMER))
    await carrying.take_in(ticket.backup_id, ticket.token, pieces_of(FORMER))


async def clone(_hands: Hands, box: Box) -> None:
    async with session_scope() as session:
        (kept,) = await listing.list_former(session, box.customer_id)
        await backups.request_restore(session, box, kept.id, requested_by="customer")


# In peace the pod takes these settings in, and the proof is its next model call. A worker from
# which the cluster hid that pod makes another one, which proves them by itself.
PROVED_BY_A_NEW_POD = {"generations": ((1, 1),)}
# A backup that does not work keeps nobody from being stopped or from answering: it is told.
BACKUP_IS_TOLD = {"backup": (TOLD,)}
# Of an upgrade it keeps the new image away: the assistant goes on with the one it had.
NOT_UPGRADED = {**BACKUP_IS_TOLD, "generations": ((1, 0),)}

STORIES = {
    "provision": Story(nothing, request(JobType.PROVISION)),
    "update": Story(live, change_language, again=nothing),
    "update that needs no new pod": Story(live, change(thinking_level="high"), PROVED_BY_A_NEW_POD),
    "restart": Story(live, restart, again=nothing),
    "rotate": Story(live, rotate, again=nothing, more=without_its_old_tokens),
    "suspend": Story(live, pause, BACKUP_IS_TOLD),
    "reactivate": Story(paused, resume),
    "resize": Story(live, upgrade),
    "upgrade": Story(live, another_image, NOT_UPGRADED),
    "destroy": Story(live, request(JobType.DESTROY)),
    "health_check": Story(live, request(JobType.HEALTH_CHECK), again=nothing),
    "backup": Story(live, backup, BACKUP_IS_TOLD, again=nothing),
    "restore": Story(saved, restore, again=learn),
    "restore of a snapshot": Story(snapshot_taken, restore),
    "clone": Story(succeeding, clone, again=learn),
}
