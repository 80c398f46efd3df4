"""Made-up requests: talks of a few turns, mostly in the evening, that repeat what was said."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import accumulate

from openclaw_web.admin.demo_people import Story
from openclaw_web.billing.models import Tier
from openclaw_web.billing.tiers import plan_of
from openclaw_web.metering import periods
from openclaw_web.metering.ledger import Event

ONE_DAY = timedelta(days=1)
MONTH_DAYS = 30
# How much is asked in each hour of the day, UTC, and on each day of the week from Monday.
HOURS = (1, 1, 0, 0, 0, 1, 3, 6, 8, 7, 6, 6, 7, 6, 5, 5, 6, 8, 11, 14, 15, 12, 7, 3)
WEEK = (1.1, 1.15, 1.1, 1.05, 0.95, 0.7, 0.8)
TURNS = (1, 1, 2, 2, 3, 4, 6)
# What an assistant sends before anybody said a word, and what a turn adds, in tokens.
START_TOKENS = {Tier.STARTER: 9_000, Tier.PRO: 15_000, Tier.TEAM: 32_000}
TURN_TOKENS = {Tier.STARTER: 900, Tier.PRO: 2_200, Tier.TEAM: 5_000}
LONGEST_PROMPT = 250_000
ANSWER_TOKENS = (40, 900)
ESTIMATED_SHARE = 0.004
UPSTREAM = "demo"

_HOURS_SUMMED = list(accumulate(HOURS))


@dataclass
class Period:
    """One billing period, and how much of it the made-up requests have used so far."""

    start: datetime
    end: datetime
    limit: int
    used: int = field(default=0, repr=False)


def periods_between(story: Story, since: datetime) -> list[Period]:
    """Return the customer's periods from the one that holds `since` to the last one."""
    limit, found = plan_of(story.tier).tokens_limit, []
    until = story.stopped_at if story.is_cancelled else story.now
    moment = since
    while moment < until:
        start, end = periods.period_at(story.began_at, story.began_at, moment)
        if story.is_cancelled:
            end = min(end, until)
        found.append(Period(start, end, limit))
        moment = end
    return found


def requests(story: Story, found: Sequence[Period], *, since: datetime) -> list[Event]:
    """Return everything the customer asked since then, oldest first; never more than the limit."""
    starts = [period.start for period in found]
    events = []
    for wish in sorted(_wishes(story, since), key=lambda one: one.timestamp):
        period = found[bisect_right(starts, wish.timestamp) - 1]
        if period.used + wish.total_tokens > period.limit:
            continue  # the proxy refuses it
        period.used += wish.total_tokens
        events.append(wish.at(period, story))
    return events


@dataclass(frozen=True)
class _Wish:
    """A request before it is known whether the limit lets it through."""

    timestamp: datetime
    model: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    latency_ms: int
    ttfb_ms: int
    estimated: bool
    mark: str

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def at(self, period: Period, story: Story) -> Event:
        return Event(
            request_id=f"req_demo_{self.mark}",
            customer_id=story.customer_id,
            box_id=story.box_id,
            period_start=period.start,
            timestamp=self.timestamp,
            model=self.model,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            cached_tokens=self.cached_tokens,
            reasoning_tokens=self.reasoning_tokens,
            status_code=200,
            latency_ms=self.latency_ms,
            ttfb_ms=self.ttfb_ms,
            streamed=True,
            estimated=self.estimated,
            outcome="cut" if self.estimated else "complete",
            upstream=UPSTREAM,
        )


def _wishes(story: Story, since: datetime) -> Iterator[_Wish]:
    """Yield what the customer wants to ask, day by day."""
    usual = plan_of(story.tier).tokens_limit * story.appetite / MONTH_DAYS
    midnight = since.replace(hour=0, minute=0, second=0, microsecond=0)
    while midnight < story.stopped_at:
        mood = story.chance.lognormvariate(-0.08, 0.4) * WEEK[midnight.weekday()]
        left = usual * mood
        while left > 0:
            for wish in _talk(story, midnight):
                left -= wish.total_tokens
                if since <= wish.timestamp < story.stopped_at:
                    yield wish
        midnight += ONE_DAY


def _talk(story: Story, midnight: datetime) -> Iterator[_Wish]:
    """Yield the turns of one talk: each sends all that came before, most of it from the cache."""
    chance, tier = story.chance, story.tier
    hour = chance.choices(range(24), cum_weights=_HOURS_SUMMED)[0]
    moment = midnight + timedelta(hours=hour, seconds=chance.uniform(0, 3_600))
    model = _model(story)
    prompt, known = START_TOKENS[tier] + chance.randrange(2_000), 0
    for _ in range(chance.choice(TURNS)):
        prompt = min(prompt + int(chance.expovariate(1 / TURN_TOKENS[tier])), LONGEST_PROMPT)
        answer = chance.randint(*ANSWER_TOKENS)
        first_byte = chance.randint(350, 1_900)
        yield _Wish(
            timestamp=moment,
            model=model,
            prompt_tokens=prompt,
            cached_tokens=known,
            completion_tokens=answer,
            reasoning_tokens=int(answer * chance.uniform(0, 0.6)),
            latency_ms=first_byte + answer * chance.randint(9, 16),
            ttfb_ms=first_byte,
            estimated=chance.random() < ESTIMATED_SHARE,
            mark=f"{story.number}_{chance.getrandbits(64):016x}",
        )
        known = prompt
        prompt += answer
        moment += timedelta(seconds=chance.uniform(8, 150))


def _model(story: Story) -> str:
    """Return what most requests use, or now and then another model of the plan."""
    models = plan_of(story.tier).models
    return models[0] if story.chance.random() < 0.75 else story.chance.choice(models)  # noqa: PLR2004 - a taste
