"""Fifty customers with plans of their own: who pays, who forgets, who changes their mind."""

import heapq
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import UUID, uuid4

import httpx

from openclaw_web.accounts.models import Customer
from openclaw_web.billing import changes, queries
from openclaw_web.billing import service as billing
from openclaw_web.billing.models import SubscriptionStatus, Tier
from openclaw_web.boxes import queries as boxes
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.gateway import looking
from openclaw_web.metering import service as metering
from openclaw_web.metering.ledger import Event
from openclaw_web.workflows import refunding
from tests.billing.buying import finish_the_chat, start_checkout
from tests.flows.year_world import KEY, People

GOOD, FAILS_LATER = "4242424242424242", "4000000000000341"
USES = timedelta(days=10)  # how often people talk to their assistants, all on the same days
EVENTS_AT_ONCE = 3


@dataclass
class Person:
    """One customer: a story, and what of it lies ahead."""

    story: str
    starts: datetime
    tier: Tier
    card: str = GOOD
    id: UUID | None = None
    stripe_id: str = ""
    checkout: str = ""
    left: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Story:
    """What somebody does, by days after the first payment."""

    deeds: tuple[tuple[float, str], ...] = ()
    tier: Tier = Tier.PRO
    card: str = GOOD
    ends: SubscriptionStatus = SubscriptionStatus.ACTIVE


STORIES: dict[str, Story] = {
    "loyal": Story(),
    "small": Story(tier=Tier.STARTER),
    "big": Story(tier=Tier.TEAM),
    "recovers in the grace": Story(card=FAILS_LATER, deeds=((33, "pay what is open"),)),
    "recovers when suspended": Story(card=FAILS_LATER, deeds=((40.5, "pay what is open"),)),
    "never recovers": Story(card=FAILS_LATER, ends=SubscriptionStatus.CANCELLED),
    "comes back while the box is kept": Story(card=FAILS_LATER, deeds=((50, "start again"),)),
    "upgrades": Story(tier=Tier.STARTER, deeds=((45, "change to pro"), (200, "change to team"))),
    "downgrades": Story(tier=Tier.TEAM, deeds=((50, "change to starter"),)),
    "downgrades and thinks better": Story(
        tier=Tier.TEAM, deeds=((50, "change to pro"), (53, "undo the change"))
    ),
    "up and down": Story(
        tier=Tier.STARTER,
        deeds=((20, "change to team"), (70, "change to starter"), (130, "change to pro")),
    ),
    "leaves": Story(deeds=((95, "cancel"),), ends=SubscriptionStatus.CANCELLED),
    "leaves and thinks better": Story(deeds=((95, "cancel"), (97, "undo the cancellation"))),
    "leaves and comes back": Story(deeds=((65, "cancel"), (95, "start again"))),
    "is refunded": Story(deeds=((80, "be refunded"),)),
    "is refunded and ended": Story(
        deeds=((80, "be refunded and ended"),), ends=SubscriptionStatus.CANCELLED
    ),
    "disputes, and the bank is with us": Story(deeds=((100, "dispute"), (104, "win the case"))),
    "disputes, and the bank is not with us": Story(
        deeds=((100, "dispute"), (104, "lose the case")), ends=SubscriptionStatus.CANCELLED
    ),
    "is deleted at Stripe": Story(
        deeds=((150, "be deleted at Stripe"),), ends=SubscriptionStatus.CANCELLED
    ),
}


class Crowd(People):
    """Everybody; what they plan is done at its moment, in order."""

    def __init__(
        self,
        stripe: httpx.AsyncClient,
        *,
        customers: int,
        starts: datetime,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        number, worlds = share
        everybody = [_person(at, starts) for at in range(customers)]
        days = sorted({one.starts for one in everybody})
        self.people = [one for one in everybody if days.index(one.starts) % worlds == number]
        self.done: Counter[str] = Counter()
        self.tokens = 0
        self._stripe, self._starts = stripe, starts
        self._number = count()
        self._plans: list[tuple[datetime, int, Person, str]] = []
        self._chance = random.Random(7)  # noqa: S311 - the same year each time is what we want
        for one in self.people:
            self._plan(one.starts, one, "sign up")

    def next_plan(self, after: datetime) -> datetime | None:
        return max(self._plans[0][0], after) if self._plans else None

    async def act(self, now: datetime) -> int:
        done = 0
        users = []
        while self._plans and self._plans[0][0] <= now:
            _, _, person, deed = heapq.heappop(self._plans)
            if deed == "use":
                users.append(person)
                self._plan(self._next_use(now), person, deed)
                continue
            await self._do(person, deed)
            self.done[deed] += 1
            done += 1
        if users:
            await self._use(users)
        return done

    def _plan(self, moment: datetime, person: Person, deed: str) -> None:
        heapq.heappush(self._plans, (moment, next(self._number), person, deed))

    async def _do(self, person: Person, deed: str) -> None:
        if deed.startswith("change to "):
            await self._change(person, Tier(deed.removeprefix("change to ")))
            return
        deeds: dict[str, Callable[[Person], Awaitable[None]]] = {
            "sign up": self._sign_up,
            "pay what is open": self._pay_what_is_open,
            "start again": self._start_again,
            "undo the change": _undo_change,
            "cancel": _cancel,
            "undo the cancellation": _undo_cancel,
            "be refunded": _be_refunded,
            "be refunded and ended": _be_refunded_and_ended,
            "dispute": self._dispute,
            "win the case": self._win,
            "lose the case": self._lose,
            "be deleted at Stripe": self._be_deleted,
        }
        await deeds[deed](person)

    async def _sign_up(self, person: Person) -> None:
        customer, chat = await finish_the_chat()
        person.id = customer.id
        checkout = await start_checkout(customer, chat, person.tier)
        await self._pay(checkout.stripe_session_id or "", person.card)
        async with session_scope() as session:
            found = await session.get_one(Customer, person.id)
            person.stripe_id = found.stripe_customer_id or ""
        for days, deed in STORIES[person.story].deeds:
            self._plan(person.starts + timedelta(days=days), person, deed)
        self._plan(self._next_use(person.starts + timedelta(hours=1)), person, "use")

    def _next_use(self, after: datetime) -> datetime:
        return self._starts + ((after - self._starts) // USES + 1) * USES

    async def _pay(self, page: str, card: str) -> None:
        form = {"email": "payer@example.com", "name": "Pay Er", "card": card}
        answer = await self._stripe.post(f"/c/pay/{page}", data=form)
        assert answer.is_redirect, answer.text

    async def _pay_what_is_open(self, person: Person) -> None:
        for invoice in await self._list("invoices", customer=person.stripe_id, status="open"):
            answer = await self._stripe.post(f"/i/{invoice['id']}", data={"card": GOOD})
            assert answer.is_redirect, answer.text
        # The hosted page pays this invoice only; a new card for the next ones is put on file.
        await self._use_good_card(person)

    async def _use_good_card(self, person: Person) -> None:
        card = await self._api(
            "POST", "payment_methods/pm_card_visa/attach", customer=person.stripe_id
        )
        for one in await self._list("subscriptions", customer=person.stripe_id):
            await self._api("POST", f"subscriptions/{one['id']}", default_payment_method=card["id"])

    async def _start_again(self, person: Person) -> None:
        await changes.start_again(_id(person), person.tier)
        async with session_scope() as session:
            page = await queries.find_open_checkout(session, _id(person))
        assert page is not None
        await self._pay(page.stripe_session_id or "", GOOD)

    async def _change(self, person: Person, tier: Tier) -> None:
        seen = await changes.preview_change(_id(person), tier)
        await changes.change_plan(_id(person), tier, proration_date=seen.proration_date)

    async def _dispute(self, person: Person) -> None:
        charges = await self._list("charges", customer=person.stripe_id)
        newest = next(one for one in charges if one["paid"])
        await self._control(f"dispute/{newest['id']}")

    async def _win(self, person: Person) -> None:
        await self._control(f"won/{await self._dispute_of(person)}")

    async def _lose(self, person: Person) -> None:
        await self._control(f"lost/{await self._dispute_of(person)}")

    async def _dispute_of(self, person: Person) -> str:
        charges = await self._list("charges", customer=person.stripe_id)
        charge = next(one for one in charges if one["disputed"])
        return (await self._list("disputes", charge=charge["id"]))[0]["id"]

    async def _be_deleted(self, person: Person) -> None:
        await self._api("DELETE", f"customers/{person.stripe_id}")

    async def _use(self, people: list[Person]) -> None:
        """Ask the proxy who is served, and meter what they used, as it does."""
        ids = {person.id: looking.NEVER_SEEN for person in people if person.id}
        look = await looking.at_tokens({}, ids)
        async with session_scope() as session:
            events = []
            for seen in look.accounts:
                account = seen.account
                box = await boxes.find_box_of_customer(session, account.customer_id)
                if not account.is_entitled or account.has_hold or box is None:
                    continue
                assert account.period_start is not None, "served, but nothing counts"
                events += [self._event(account, box.id, look.now) for _ in range(EVENTS_AT_ONCE)]
            settled = await metering.settle(session, events)
        assert not settled.rejected, settled.reasons
        self.tokens += sum(one.total_tokens for one in events)

    def _event(self, account: looking.Account, box_id: UUID, now: datetime) -> Event:
        return Event(
            request_id=f"req_{uuid4()}",
            customer_id=account.customer_id,
            box_id=box_id,
            period_start=account.period_start or now,
            timestamp=now,
            model="kimi-for-coding",
            prompt_tokens=self._chance.randrange(1_000, 200_000),
            completion_tokens=self._chance.randrange(10, 4_000),
        )

    async def _list(self, what: str, **fields: str) -> list[dict]:
        return (await self._api("GET", what, **fields))["data"]

    async def _api(self, method: str, path: str, **fields: str) -> dict:
        is_question = method == "GET"
        answer = await self._stripe.request(
            method,
            f"/v1/{path}",
            headers={"authorization": f"Bearer {KEY}"},
            params=fields if is_question else None,
            data=None if is_question else fields,
        )
        assert answer.is_success, answer.text
        return answer.json()

    async def _control(self, path: str) -> None:
        answer = await self._stripe.post(f"/_control/{path}")
        assert answer.is_success, answer.text


def _person(at: int, starts: datetime) -> Person:
    """Return somebody whose story and first day follow from their number.

    Twelve cohorts; the first three begin on days that not every month has. A stop may be as much
    as the grain late, and must still be on that day.
    """
    name = list(STORIES)[at % len(STORIES)]
    story = STORIES[name]
    year = starts.year
    days = [datetime(year, 1, 31, 10, tzinfo=UTC), datetime(year, 2, 29, 23, 20, tzinfo=UTC)]
    days += [datetime(year, 1, 30, 0, 30, tzinfo=UTC)]
    days += [starts + timedelta(days=2 + 7 * week, hours=week) for week in range(9)]
    return Person(
        story=name,
        starts=days[(at + at // len(days)) % len(days)],
        tier=story.tier,
        card=story.card,
    )


async def _undo_change(person: Person) -> None:
    await changes.undo_change(_id(person))


async def _cancel(person: Person) -> None:
    await changes.cancel(_id(person), reason="unused")


async def _undo_cancel(person: Person) -> None:
    await changes.undo_cancel(_id(person))


async def _be_refunded(person: Person, *, ends_now: bool = False) -> None:
    async with session_scope() as session:
        await refunding.request_refund(
            session, _id(person), by="admin:year", reason="They asked for it.", ends_now=ends_now
        )


async def _be_refunded_and_ended(person: Person) -> None:
    await _be_refunded(person, ends_now=True)


def _id(person: Person) -> UUID:
    assert person.id is not None, f"{person.story} has not come yet"
    return person.id


async def statuses(people: list[Person]) -> dict[str, list[str]]:
    """Return how each story ended, by what its subscription says now."""
    ended: dict[str, list[str]] = {}
    async with session_scope() as session:
        await business_now(session)
        for person in people:
            row = await queries.find_subscription(session, _id(person))
            ended.setdefault(person.story, []).append(row.status.value if row else "none")
    return ended


async def request_syncs(people: list[Person]) -> None:
    """Ask for everybody's sync, as the daily comparison does."""
    async with session_scope() as session:
        for person in people:
            await billing.request_sync(session, _id(person))
