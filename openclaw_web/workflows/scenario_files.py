"""Reading a file of billing scenarios: what it may say, and where it is wrong."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import yaml

from openclaw_web.billing.models import Tier
from openclaw_web.billing.tiers import plan_of
from openclaw_web.core.errors import OpenClawError
from openclaw_web.integrations.payment_objects import StripeInvoice, StripeSubscription

LINE = "__line__"
FIRST = "sub_1"
STEP = frozenset(
    {
        "at", "subscription", "subscriptions", "invoice", "invoices", "hold", "release",
        "grace_days", "tokens", "customer_deleted", "expect",
    }
)  # fmt: skip
EXPECTED = frozenset(
    {
        "status", "plan", "pending_plan", "entitled", "limit", "box", "delete_after",
        "refunds_cents", "alerts",
    }
)  # fmt: skip
SUBSCRIPTION = frozenset(
    {
        "id", "status", "plan", "price", "period", "created", "trial_end", "cancel_at_period_end",
        "ended_at", "collection_paused",
    }
)  # fmt: skip
INVOICE = frozenset(
    {
        "id", "of", "status", "plan", "period", "created", "due_at", "paid_cents",
        "refunded_cents",
    }
)  # fmt: skip
FINALISED = frozenset({"open", "paid", "uncollectible", "void"})


class ScenarioError(OpenClawError):
    """A scenario file makes no sense somewhere; the text names the file, the line, the scenario."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One date: what changed by then, and what is expected."""

    at: datetime
    line: int
    subscriptions: tuple[StripeSubscription, ...] = ()
    invoices: tuple[StripeInvoice, ...] = ()
    refunded_cents: Mapping[str, int] = field(default_factory=dict)
    holds: frozenset[str] = frozenset()
    releases: frozenset[str] = frozenset()
    grace_days: int | None = None
    tokens: int | None = None
    is_customer_deleted: bool = False
    expected: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    name: str
    line: int
    steps: tuple[Step, ...]


def read(path: Path) -> list[Scenario]:
    """Read a file of scenarios.

    Raises:
        ScenarioError: there is no such file, it is no YAML, or it says something unknown.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path} cannot be read: {error}") from error
    try:
        found = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader that keeps lines
    except yaml.YAMLError as error:
        raise ScenarioError(f"{path}:{_line_of(error)}: {_problem_of(error)}") from error
    if not isinstance(found, list) or not found:
        raise ScenarioError(f"{path}:1: write a list of scenarios, each with a name and steps.")
    return [_Reader(path, one).scenario() for one in found]


def _line_of(error: yaml.YAMLError) -> int:
    """Return the line on which the file stops being YAML; not every error knows it."""
    return getattr(getattr(error, "problem_mark", None), "line", 0) + 1


def _problem_of(error: yaml.YAMLError) -> str:
    problem = error.problem if isinstance(error, yaml.MarkedYAMLError) else None
    return problem or "this is no YAML"


class _Loader(yaml.SafeLoader):
    """A safe loader that notes in each mapping the line on which it stands."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        return super().construct_mapping(node, deep=deep) | {
            LINE: getattr(node.start_mark, "line", 0) + 1
        }


class _Reader:
    """Reads one scenario; what was said of a subscription or an invoice before is kept."""

    def __init__(self, path: Path, found: object) -> None:
        self.path = path
        self.name = "?"
        self.line = 1
        self.found = self._mapping(found, "a scenario", frozenset({"name", "steps"}))
        self.name = str(self.found.get("name") or "?")
        self.subscriptions: dict[str, StripeSubscription] = {}
        self.invoices: dict[str, StripeInvoice] = {}

    def scenario(self) -> Scenario:
        line, steps = self.line, self.found.get("steps")
        if self.name == "?" or not isinstance(steps, list) or not steps:
            raise self._wrong("a scenario needs a name and steps")
        read_steps = tuple(self._step(one) for one in steps)
        if not any(step.expected for step in read_steps):
            raise self._wrong("no step says what to expect")
        times = [step.at for step in read_steps]
        if times != sorted(times):
            raise self._wrong("its dates are not in order")
        return Scenario(name=self.name, line=line, steps=read_steps)

    def _step(self, found: object) -> Step:
        said = self._mapping(found, "a step", STEP)
        line = self.line
        at = self._needed(said, "at", _moment)
        subscriptions = [self._subscription(one, at) for one in _both(said, "subscription")]
        refunded: dict[str, int] = {}
        invoices = [self._invoice(one, at, refunded) for one in _both(said, "invoice")]
        self.line = line
        expected = said.get("expect")
        return Step(
            at=at,
            line=line,
            subscriptions=tuple(subscriptions),
            invoices=tuple(invoices),
            refunded_cents=refunded,
            holds=frozenset({said["hold"]} if "hold" in said else ()),
            releases=frozenset({said["release"]} if "release" in said else ()),
            grace_days=self._value(said, "grace_days", None, int),
            tokens=self._value(said, "tokens", None, int),
            is_customer_deleted=bool(said.get("customer_deleted")),
            expected=self._expected(expected) if expected is not None else {},
        )

    def _expected(self, found: object) -> dict[str, object]:
        said = self._mapping(found, "expect", EXPECTED)
        expected: dict[str, object] = dict(said)
        if said.get("delete_after") is not None:
            expected["delete_after"] = self._needed(said, "delete_after", _moment)
        if "alerts" in said:
            expected["alerts"] = sorted(said["alerts"] or [])
        return expected

    def _subscription(self, found: object, at: datetime) -> StripeSubscription:
        """Read a subscription: whatever is not said stays as it was."""
        said = self._mapping(found, "a subscription", SUBSCRIPTION)
        name = str(said.get("id", FIRST))
        known = self.subscriptions.get(name) or _new_subscription(name, at)
        start, end = self._period(said, known.period_start, known.period_end)
        made = replace(
            known,
            status=str(said.get("status", known.status)),
            period_start=start,
            period_end=end,
            created=self._value(said, "created", known.created, _moment),
            trial_end=self._value(said, "trial_end", known.trial_end, _moment),
            ended_at=self._value(said, "ended_at", known.ended_at, _moment),
            cancel_at_period_end=bool(said.get("cancel_at_period_end", known.cancel_at_period_end)),
            is_collection_paused=bool(said.get("collection_paused", known.is_collection_paused)),
        )
        if made.status == "canceled" and made.ended_at is None:
            made = replace(made, ended_at=at)
        if "plan" in said:
            made = _at_price(made, self._needed(said, "plan", Tier))
        if "price" in said:
            price = str(said["price"])
            made = replace(made, price_id=price, price_lookup_key=price, price_tier=None)
        self.subscriptions[name] = made
        return made

    def _invoice(self, found: object, at: datetime, refunded: dict[str, int]) -> StripeInvoice:
        said = self._mapping(found, "an invoice", INVOICE)
        name = str(said.get("id") or "")
        owner = self.subscriptions.get(str(said.get("of", FIRST)))
        if not name or owner is None:
            raise self._wrong("an invoice needs an id and a subscription that was named before")
        known = self.invoices.get(name) or _new_invoice(name, owner, at)
        if "plan" in said:
            tier = self._needed(said, "plan", Tier)
            cents = plan_of(tier).price_cents
            known = replace(known, price_id=f"price_{tier}", price_cents=cents, due_cents=cents)
        status = str(said.get("status", known.status))
        start, end = self._period(said, owner.period_start, owner.period_end, before=known)
        finalized_at = (known.finalized_at or at) if status in FINALISED else None
        due_at = self._value(said, "due_at", known.due_at or finalized_at, _moment)
        paid_cents = known.due_cents if status == "paid" else 0
        made = replace(
            known,
            status=status,
            created=self._value(said, "created", known.created, _moment),
            period_start=start,
            period_end=end,
            finalized_at=finalized_at,
            due_at=due_at,
            paid_cents=self._value(said, "paid_cents", paid_cents, int),
            remaining_cents=0 if status in {"paid", "void"} else known.due_cents,
        )
        if "refunded_cents" in said:
            refunded[name] = self._needed(said, "refunded_cents", int)
        self.invoices[name] = made
        return made

    def _period(
        self,
        said: Mapping[str, Any],
        start: datetime,
        end: datetime,
        *,
        before: StripeInvoice | None = None,
    ) -> tuple[datetime, datetime]:
        if "period" not in said:
            if before is not None and before.period_start and before.period_end:
                return before.period_start, before.period_end
            return start, end
        both = said["period"]
        if not isinstance(both, list) or len(both) != 2:  # noqa: PLR2004 - from and until
            raise self._wrong("a period is two dates: [from, until]")
        try:
            start, end = _moment(both[0]), _moment(both[1])
        except ValueError as error:
            raise self._wrong(f"period: {error}") from error
        if end <= start:
            raise self._wrong("a period ends after it starts")
        return start, end

    def _mapping(self, found: object, what: str, names: frozenset[str]) -> dict[str, Any]:
        if not isinstance(found, dict):
            raise self._wrong(f"{what} is written as a mapping of names to values")
        self.line = found[LINE]
        said = {name: value for name, value in found.items() if name != LINE}
        if unknown := sorted(str(name) for name in set(said) - names):
            known = ", ".join(sorted(names))
            raise self._wrong(f"{what} has no {', '.join(unknown)}; it may have: {known}")
        return said

    def _needed(self, said: Mapping[str, Any], name: str, parse: Callable[[Any], Any]) -> Any:
        if name not in said:
            raise self._wrong(f"{name} is missing")
        try:
            return parse(said[name])
        except (ValueError, TypeError) as error:
            raise self._wrong(f"{name}: {error}") from error

    def _value(
        self, said: Mapping[str, Any], name: str, otherwise: Any, parse: Callable[[Any], Any]
    ) -> Any:
        return self._needed(said, name, parse) if said.get(name) is not None else otherwise

    def _wrong(self, why: str) -> ScenarioError:
        return ScenarioError(f"{self.path}:{self.line}: {self.name}: {why}")


def _both(said: Mapping[str, Any], name: str) -> list[object]:
    """Return what stands under a name and under its plural."""
    one = [said[name]] if name in said else []
    return [*one, *(said.get(f"{name}s") or [])]


def _moment(found: object) -> datetime:
    """Read a date, or a date with a time; without a zone it is UTC."""
    if isinstance(found, datetime):
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    if isinstance(found, date):
        return datetime.combine(found, time(), tzinfo=UTC)
    raise ValueError(f"{found!r} is no date; write 2026-01-31 or 2026-01-31 12:00:00")


def _new_subscription(name: str, at: datetime) -> StripeSubscription:
    made = StripeSubscription(
        id=name,
        stripe_customer_id="cus_1",
        status="active",
        price_id=None,
        price_lookup_key=None,
        price_tier=None,
        period_start=at,
        period_end=at + timedelta(days=30),
        cancel_at_period_end=False,
        trial_end=None,
        created=at,
    )
    return _at_price(made, Tier.PRO)


def _at_price(one: StripeSubscription, tier: Tier) -> StripeSubscription:
    key = plan_of(tier).lookup_key
    return replace(one, price_id=f"price_{tier}", price_lookup_key=key, price_tier=tier.value)


def _new_invoice(name: str, owner: StripeSubscription, at: datetime) -> StripeInvoice:
    cents = plan_of(Tier(owner.price_tier or Tier.PRO)).price_cents
    return StripeInvoice(
        id=name,
        status="draft",
        currency="usd",
        due_cents=cents,
        paid_cents=0,
        remaining_cents=cents,
        created=at,
        stripe_subscription_id=owner.id,
        price_id=owner.price_id,
        price_cents=cents,
    )
