"""Hopping through time: every due event is a stop, and the last one is the end of the span."""

from datetime import UTC, datetime, timedelta

from openclaw_web.billing.models import SubscriptionStatus
from openclaw_web.core.database import session_scope
from openclaw_web.local import due
from openclaw_web.local.hops import Due, Hop, hops
from openclaw_web.local.quiet import UnderWay
from tests.factories import make_box, make_onboarding, make_subscription

START = datetime(2028, 1, 31, 12, tzinfo=UTC)
DAY = timedelta(days=1)


class Calendar:
    """A world in which things are due on some days, and take ten seconds each."""

    def __init__(self, *days: float) -> None:
        self.dates = [START + day * DAY for day in days]
        self.at = START
        self.moves: list[float] = []

    async def now(self):
        return self.at

    async def next_due(self, after):
        later = [date for date in self.dates if date > after]
        return Due(moment=min(later), what=("a date",)) if later else None

    async def go_to(self, moment):
        self.at = max(self.at, moment)
        self.moves.append((moment - START) / DAY)

    async def settle(self):
        self.at += timedelta(seconds=10)
        return ["something"], []


async def stops(calendar, span, **more):
    found = [(hop.moment - START) / DAY async for hop in hops(calendar, span, **more)]
    assert found == calendar.moves
    return found


async def test_each_due_event_is_a_stop_and_the_target_is_the_last():
    assert await stops(Calendar(3, 1, 40), 35 * DAY) == [1, 3, 35]


async def test_an_event_at_the_target_is_no_second_stop():
    assert await stops(Calendar(35), 35 * DAY) == [35]


async def test_without_a_span_there_is_one_stop_at_the_next_event():
    assert await stops(Calendar(5, 7), None) == [5]


async def test_without_an_event_the_next_one_is_nowhere():
    assert await stops(Calendar(), None) == []


async def test_what_is_due_within_a_grain_shares_a_stop():
    assert await stops(Calendar(1, 1.1, 1.4), 3 * DAY, grain=DAY / 2) == [1.5, 3]


async def test_events_closer_than_the_work_of_one_are_not_skipped():
    near = 1 + 5 / 86_400
    assert await stops(Calendar(1, near), 2 * DAY) == [1, near, 2]


def test_a_stop_reads_as_a_line_and_says_what_was_left():
    stop = Hop(moment=START, due=("a grace ends",), happened=("here: x",), left=("2 jobs",))
    assert str(stop) == "2028-01-31 12:00:00  here: x (a grace ends)\n    ! 2 jobs"


async def test_our_own_dates_are_found_in_order(session):
    subscription = await make_subscription(
        session,
        status=SubscriptionStatus.PAST_DUE,
        current_period_start=START - 5 * DAY,
        current_period_end=START + 25 * DAY,
        grace_until=START + 3 * DAY,
    )
    await make_box(session, subscription=subscription, delete_after=START + 9 * DAY)
    await make_onboarding(session, expires_at=START + DAY / 2)
    await session.commit()
    assert await dates_after(START) == [
        (0.5, ("a chat expires",)),
        (1, ("a grace ends soon",)),
        (3, ("a grace ends",)),
        (6, ("a box is to be deleted soon",)),
        (8, ("a box is to be deleted soon",)),
        (9, ("a box is to be deleted",)),
        (25, ("a period ends",)),
    ]


async def dates_after(moment):
    found = []
    async with session_scope() as session:
        while (one := await due.next_date(session, moment)) is not None:
            moment = one.moment
            found.append(((moment - START) / DAY, one.what))
    return found


def test_what_is_under_way_is_told_in_words():
    assert UnderWay().is_quiet
    assert UnderWay(resting_jobs=1).is_quiet
    seen = UnderWay(deliveries=2, syncs=1)
    assert not seen.is_quiet
    assert seen.sentences() == [
        "2 webhooks of Stripe are not delivered",
        "1 customers are not compared with Stripe",
    ]
