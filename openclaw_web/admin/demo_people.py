"""Made-up customers: who they are, what they bought, and how it went; the same ones each time."""

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from openclaw_web.billing.keeping import GRACE, KEPT_AFTER_END
from openclaw_web.billing.models import SubscriptionStatus, Tier
from openclaw_web.boxes.models import BoxStatus

SEED = "openclaw demo"
FIRST_NAMES = (
    "ada", "ben", "carla", "dmitri", "elif", "felix", "grace", "hiro", "ines", "jonas", "kemal",
    "lena", "marco", "nadia", "olu", "priya", "quinn", "rosa", "sven", "tara", "uma", "victor",
    "wanda", "xenia", "yusuf", "zoe",
)  # fmt: skip
LAST_NAMES = (
    "adler", "brandt", "castillo", "diaz", "ekberg", "ferrari", "gupta", "hansen", "ito", "jensen",
    "kowalski", "lindgren", "moreau", "novak", "okafor", "petrov", "quist", "rossi", "santos",
    "tanaka", "ueda", "vogel", "weber", "yilmaz", "zhang",
)  # fmt: skip
LANGUAGES = ("en", "en", "en", "de", "es", "fr", "pt")
USE_CASES = (
    "Organise my days",
    "Writing and work",
    "Learning and research",
    "My family or team",
    "Keep track of a house that is being renovated",
    "Read long reports and tell me what matters",
)
STYLES = ("direct", "warm", "thorough")
TIERS = (
    Tier.STARTER,
    Tier.PRO,
    Tier.STARTER,
    Tier.TEAM,
    Tier.STARTER,
    Tier.PRO,
    Tier.STARTER,
)
OLDEST_DAYS = 30  # whoever did not pay or left has been here for at least so long


@dataclass(frozen=True, kw_only=True)
class Fate:
    """How a customer is doing."""

    status: SubscriptionStatus = SubscriptionStatus.ACTIVE
    box_status: BoxStatus = BoxStatus.ACTIVE
    reason: str | None = None
    is_ending: bool = False
    # How much of the limit is wanted in a month, as a share; without one everybody has their own.
    appetite: float | None = None
    # For how many days nothing has been used, from and to.
    idle_days: tuple[float, float] = (0.0, 0.0)


WELL = Fate()
ENDING = Fate(is_ending=True)
THIRSTY = Fate(appetite=2.0)
PAST_DUE = Fate(status=SubscriptionStatus.PAST_DUE)
SUSPENDED = Fate(
    status=SubscriptionStatus.SUSPENDED,
    box_status=BoxStatus.SUSPENDED,
    reason="not_paid",
    idle_days=(1.0, 6.0),
)
UNHEALTHY = Fate(box_status=BoxStatus.UNHEALTHY, reason="CrashLoopBackOff", idle_days=(0.01, 0.1))
PAUSED = Fate(box_status=BoxStatus.SUSPENDED, reason="paused", idle_days=(0.5, 4.0))
LEAVING = Fate(
    status=SubscriptionStatus.CANCELLED,
    box_status=BoxStatus.SUSPENDED,
    reason="not_paid",
    idle_days=(1.0, 5.0),
)
GONE = Fate(
    status=SubscriptionStatus.CANCELLED, box_status=BoxStatus.DESTROYED, idle_days=(9.0, 25.0)
)
# Of twenty customers, these are not simply well.
FATES = {
    3: ENDING,
    5: PAST_DUE,
    8: SUSPENDED,
    10: THIRSTY,
    11: UNHEALTHY,
    13: LEAVING,
    16: PAUSED,
    18: PAST_DUE,
    19: GONE,
}
FATES_TURN = 20


@dataclass(frozen=True, kw_only=True)
class Story:
    """One made-up customer; all times are business time."""

    number: int
    customer_id: UUID
    subscription_id: UUID
    box_id: UUID
    first_name: str
    last_name: str
    email: str
    tier: Tier
    fate: Fate
    began_at: datetime
    stopped_at: datetime
    now: datetime
    language: str
    use_case: str
    style: str
    telegram_user_id: int
    # How much of the limit a usual month takes, as a share.
    appetite: float
    chance: random.Random = field(repr=False)

    @property
    def bot_username(self) -> str:
        return f"{self.first_name}_{self.number}_bot"

    @property
    def is_cancelled(self) -> bool:
        return self.fate.status is SubscriptionStatus.CANCELLED

    @property
    def past_due_since(self) -> datetime | None:
        if self.fate.status is SubscriptionStatus.PAST_DUE:
            return self.now - timedelta(days=1 + self.number % 5)
        if self.fate.status is SubscriptionStatus.SUSPENDED:
            return self.stopped_at - GRACE
        return None

    @property
    def grace_until(self) -> datetime | None:
        return self.past_due_since + GRACE if self.past_due_since else None

    @property
    def delete_after(self) -> datetime | None:
        return self.stopped_at + KEPT_AFTER_END if self.is_cancelled else None


def tell(number: int, *, now: datetime, days: int) -> Story:
    """Return the customer with this number; of the same days, everything but the dates is fixed."""
    chance = random.Random(f"{SEED} {number}")  # noqa: S311 - the same people each time
    first, last = chance.choice(FIRST_NAMES), chance.choice(LAST_NAMES)
    domain = chance.choice(("example.com", "example.org"))
    fate = FATES.get(number % FATES_TURN, WELL)
    age = chance.uniform(0.3, days * 1.3) + (0 if fate is WELL else OLDEST_DAYS)
    idle = chance.uniform(*fate.idle_days)
    return Story(
        number=number,
        customer_id=_uuid(chance),
        subscription_id=_uuid(chance),
        box_id=_uuid(chance),
        first_name=first,
        last_name=last,
        email=f"{first}.{last}.{number}@{domain}",
        tier=TIERS[number % len(TIERS)],
        fate=fate,
        began_at=(now - timedelta(days=age)).replace(microsecond=0),
        stopped_at=now - timedelta(days=idle),
        now=now,
        language=chance.choice(LANGUAGES),
        use_case=chance.choice(USE_CASES),
        style=chance.choice(STYLES),
        telegram_user_id=700_000_000 + number,
        appetite=fate.appetite or chance.lognormvariate(-0.9, 0.55),
        chance=chance,
    )


def _uuid(chance: random.Random) -> UUID:
    return UUID(int=chance.getrandbits(128), version=4)
