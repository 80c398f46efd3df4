"""Whatever happens at Stripe, and in whatever order we hear of it: in the end it is as in order.

Events come shuffled, twice, late or not at all, while two workers sync the same customer, stopped
and let on at every await, their leases running out under them.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as some
from sqlmodel import select

from openclaw_web.billing import entitlement, leases, queries
from openclaw_web.billing.keeping import GRACE
from openclaw_web.billing.models import BillingSync
from openclaw_web.billing.standing import FAILED_ALERT, standing_of
from openclaw_web.core.database import session_scope
from openclaw_web.jobs.models import Alert
from openclaw_web.workflows import looking
from openclaw_web.workflows import subscription as workflow
from tests.billing.interleaving import ON_PURPOSE, Stage, Sync, World, outcome
from tests.billing.stripe_model import DAY, HAPPENINGS, StripeModel

pytestmark = pytest.mark.usefixtures("database", "redis")

# What comes next, as often as it stands here; the number says whose turn it is.
MOVES = [
    *["go on"] * 12,
    *["happen"] * 5,
    *["deliver"] * 4,
    *["worker one"] * 2,
    *["worker two"] * 2,
    "deliver and keep",
    "lose",
    "expire the lease",
]
STEPS = some.lists(
    some.tuples(some.sampled_from(MOVES), some.integers(0, 5)), min_size=10, max_size=60
)
# Few of them end it for good, so that most stories go on for a while.
STORIES = some.lists(
    some.sampled_from([*HAPPENINGS * 2, *ON_PURPOSE, "end", "delete_customer"]),
    min_size=2,
    max_size=8,
)
EXTRA_GRACE = 3 * DAY


async def play_in_order(stage: Stage, story: Sequence[str]) -> dict[str, object]:
    """Let a worker look after each happening; somebody who paid is never dark on the way."""
    world = await stage.enter(sync=workflow.sync)
    for happening in story:
        await world.do(happening)
        world.undelivered.clear()
        await world.ask()
        await world.settle()
        await check_rights(world)
    return await outcome(world)


async def play(
    stage: Stage, story: Sequence[str], steps: Sequence[tuple[str, int]], sync: Sync
) -> dict[str, object]:
    """Play the same story with everything that can go wrong on the way to us."""
    world = await stage.enter(sync=sync)
    left = list(story)
    moves = {
        "deliver": world.deliver,
        "deliver and keep": world.deliver_and_keep,
        "lose": world.lose,
        "worker one": world.start_one,
        "worker two": world.start_two,
        "expire the lease": world.expire_lease,
        "go on": world.go_on,
    }
    for move, at in steps:
        if move != "happen":
            await moves[move](at)
        elif left:
            await world.do(left.pop(0))
    for happening in left:
        await world.do(happening)
    await world.settle()
    await check_rights(world)
    assert sync is not workflow.sync or not await has_broken(world)
    return await outcome(world)


async def has_broken(world: World) -> bool:
    """Say whether a sync met an error that nobody foresaw: an admin is told of it."""
    subject = str(world.customer_id)
    async with session_scope() as session:
        found = await session.exec(
            select(Alert).where(Alert.code == FAILED_ALERT, Alert.subject == subject)
        )
        return bool(world.broken) or found.first() is not None


async def check_rights(world: World) -> None:
    """Nobody is served without a payment beyond the grace, and nobody is dark with it."""
    stripe = world.stripe
    async with session_scope() as session:
        row = await queries.find_live_subscription(session, world.customer_id)
        standing = await standing_of(session, world.customer_id, stripe.now)
    is_served = entitlement.entitled(row, stripe.now)
    live = stripe.live
    if live is None or standing.holds:
        assert not is_served
        return
    owed_since = unpaid_since(stripe)
    assert is_served == (
        owed_since is None or stripe.now < owed_since + GRACE + standing.extra_grace
    )


def unpaid_since(stripe: StripeModel) -> datetime | None:
    live = stripe.live
    return min(
        (
            invoice.due_at
            for invoice in stripe.invoices
            if live and invoice.stripe_subscription_id == live.id
            if invoice.status == "open" and invoice.due_at
        ),
        default=None,
    )


async def try_many(
    stage: Stage, *, examples: int, chance: int = 0, sync: Sync = workflow.sync
) -> None:
    """Play many stories; each hundred of them has its own `chance`."""
    loop = asyncio.get_running_loop()

    async def compare(story: Sequence[str], steps: Sequence[tuple[str, int]]) -> None:
        expected = await play_in_order(stage, story)
        assert await play(stage, story, steps, sync) == expected

    @seed(chance)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate,),  # a story is short enough to be read as it comes
    )
    @given(story=STORIES, steps=STEPS)
    def each(story, steps):
        coroutine = compare(["buy", *story], steps)
        asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    await asyncio.to_thread(each)


@pytest.mark.parametrize(
    ("examples", "chance"),
    [(4, 0), *(pytest.param(100, chance, marks=pytest.mark.slow) for chance in (1, 2, 3))],
)
async def test_no_order_of_events_and_workers_changes_the_end(monkeypatch, examples, chance):
    await try_many(Stage(monkeypatch), examples=examples, chance=chance)


async def list_before_the_lease(customer_id: UUID) -> None:
    """Sync as one should not: what is written may be older than what another has written."""
    async with session_scope() as session:
        what = await queries.stripe_ids(session, customer_id)
    found = await looking.look(*what)
    owner = uuid4().hex
    async with session_scope() as session:
        served = await leases.take(session, customer_id, owner=owner)
    if served is None:
        return
    with contextlib.suppress(leases.LeaseLostError):
        await write_and_finish(customer_id, found, owner=owner, served=served)


async def write_and_finish(
    customer_id: UUID, found: looking.Found, *, owner: str, served: int
) -> None:
    async with session_scope() as session:
        await leases.check(session, customer_id, owner=owner)
        now = await workflow.business_now(session)
        await workflow._write(session, customer_id, found, now)  # noqa: SLF001 - as sync does
        await leases.finish(session, customer_id, owner=owner, served=served, now=now)


async def ignore_the_lease(customer_id: UUID) -> None:
    """Sync whoever holds the lease."""
    async with session_scope() as session:
        row = await queries.find_sync(session, customer_id)
        what = await queries.stripe_ids(session, customer_id)
    if row is None or row.requested_seq <= row.synced_seq:
        return
    served = row.requested_seq
    found = await looking.look(*what)
    async with session_scope() as session:
        now = await workflow.business_now(session)
        await workflow._write(session, customer_id, found, now)  # noqa: SLF001
        row = await session.get_one(BillingSync, customer_id, with_for_update=True)
        row.synced_seq, row.synced_at = max(served, row.synced_seq), now


# The first worker has read Stripe, then the subscription ends, and only then it goes on.
READ_TOO_EARLY = [
    ("happen", 0), *[("deliver", 0)] * 3,
    ("worker one", 0), *[("go on", 0)] * 4, ("happen", 0), ("deliver", 0), *[("go on", 0)] * 9,
]  # fmt: skip
# The second one has read what is new and written it before the first one writes what was.
OVERTAKEN = [
    ("happen", 0), *[("deliver", 0)] * 3,
    ("worker one", 0), *[("go on", 0)] * 3, ("happen", 0), ("deliver", 0),
    ("worker two", 0), *[("go on", 1)] * 4, *[("go on", 0)] * 9,
]  # fmt: skip


@pytest.mark.parametrize("steps", [READ_TOO_EARLY, OVERTAKEN], ids=["early", "overtaken"])
async def test_what_was_read_before_an_end_is_never_the_last_word(monkeypatch, steps):
    assert await play(Stage(monkeypatch), ["buy", "end"], steps, workflow.sync) == {
        "status": "none"
    }


@pytest.mark.parametrize(
    ("sync", "steps"),
    [(list_before_the_lease, READ_TOO_EARLY), (ignore_the_lease, OVERTAKEN)],
    ids=["listed before the lease", "lease ignored"],
)
async def test_a_sync_that_is_not_careful_serves_somebody_who_has_left(monkeypatch, sync, steps):
    """The same steps show both mistakes: a test that could not fail would prove nothing."""
    with pytest.raises(AssertionError, match="not True"):
        await play(Stage(monkeypatch), ["buy", "end"], steps, sync)
