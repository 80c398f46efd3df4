"""Every cell of the table: what Stripe says, with every flag, against rows written by hand."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from itertools import cycle, product

import pytest

from openclaw_web.billing.facts import Decision, Desired, Facts, Known
from openclaw_web.billing.mapping import decide
from openclaw_web.billing.models import SubscriptionStatus
from openclaw_web.integrations.payment_objects import StripeInvoice
from tests.billing.stripe_facts import DAY, KNOWN, NOW, PAID, SUB, unpaid

# Columns: what Stripe says | our row | a hold | the trial | whether money ever came | what is owed,
# and for how many days | days of grace from an admin | the end -> our status, served or not.
# `*` is anything, `!x` anything but x; each cell is in exactly one row.
TABLE = """
incomplete         | none      | *    | *    | *    | *                     | * | *        -> -         no
incomplete         | !none     | *    | *    | *    | *                     | * | *        -> suspended no
incomplete_expired | none      | *    | *    | *    | *                     | * | *        -> -         no
incomplete_expired | !none     | *    | *    | *    | *                     | * | *        -> cancelled no
canceled           | none      | *    | *    | *    | *                     | * | *        -> -         no
canceled           | !none     | *    | *    | *    | *                     | * | *        -> cancelled no
unpaid             | none      | *    | *    | *    | *                     | * | *        -> -         no
unpaid             | !none     | *    | *    | *    | *                     | * | *        -> suspended no
paused             | none      | *    | *    | *    | *                     | * | *        -> -         no
paused             | !none     | *    | *    | *    | *                     | * | *        -> suspended no
trialing           | *         | none | runs | *    | *                     | * | !at_end_over -> trialing yes
trialing           | *         | none | runs | *    | *                     | * | at_end_over -> trialing no
trialing           | *         | held | runs | *    | *                     | * | *        -> suspended no
trialing           | none      | *    | !runs| none | *                     | * | *        -> -         no
trialing           | !none     | *    | !runs| none | *                     | * | *        -> suspended no
trialing           | *         | none | !runs| came | *                     | * | !at_end_over -> active yes
trialing           | *         | none | !runs| came | *                     | * | at_end_over -> active no
trialing           | *         | held | !runs| came | *                     | * | *        -> suspended no
active             | *         | held | *    | *    | *                     | * | *        -> suspended no
active             | *         | none | *    | *    | nothing,newest_1      | * | !at_end_over -> active yes
active             | *         | none | *    | *    | nothing,newest_1      | * | at_end_over -> active no
active             | *         | none | *    | *    | newest_3,older_3      | * | !at_end_over -> past_due yes
active             | *         | none | *    | *    | newest_3,older_3      | * | at_end_over -> past_due no
active             | *         | none | *    | *    | newest_9,older_9,both | 0 | *        -> suspended no
active             | *         | none | *    | *    | newest_9,older_9,both | 3 | !at_end_over -> past_due yes
active             | *         | none | *    | *    | newest_9,older_9,both | 3 | at_end_over -> past_due no
past_due           | *         | held | *    | *    | *                     | * | *        -> suspended no
past_due           | *         | none | *    | *    | nothing,newest_1,newest_3,older_3 | * | !at_end_over -> past_due yes
past_due           | *         | none | *    | *    | nothing,newest_1,newest_3,older_3 | * | at_end_over -> past_due no
past_due           | *         | none | *    | *    | newest_9,older_9,both | 0 | *        -> suspended no
past_due           | *         | none | *    | *    | newest_9,older_9,both | 3 | !at_end_over -> past_due yes
past_due           | *         | none | *    | *    | newest_9,older_9,both | 3 | at_end_over -> past_due no
hibernating        | none      | *    | *    | *    | *                     | * | *        -> -         no
hibernating        | active    | none | *    | *    | *                     | * | *        -> active    yes
hibernating        | active    | held | *    | *    | *                     | * | *        -> suspended no
hibernating        | past_due  | none | *    | *    | *                     | * | *        -> past_due  yes
hibernating        | past_due  | held | *    | *    | *                     | * | *        -> suspended no
hibernating        | suspended | *    | *    | *    | *                     | * | *        -> suspended no
hibernating        | cancelled | *    | *    | *    | *                     | * | *        -> cancelled no
"""  # noqa: E501 - a table is read by its columns
ROWS = {
    "none": None,
    "active": KNOWN,
    "past_due": replace(KNOWN, status=SubscriptionStatus.PAST_DUE, past_due_since=NOW - 3 * DAY),
    "suspended": replace(KNOWN, status=SubscriptionStatus.SUSPENDED),
    "cancelled": replace(KNOWN, status=SubscriptionStatus.CANCELLED),
}
TRIALS = {"none": None, "runs": NOW + DAY, "over": NOW}
# The newest invoice is this period's; an older one is left over from the period before.
OWED = {
    "nothing": {},
    "newest_1": {"in_9": 1},
    "newest_3": {"in_9": 3},
    "newest_9": {"in_9": 9},
    "older_3": {"in_1": 3},
    "older_9": {"in_1": 9},
    "both": {"in_1": 9, "in_9": 1},
}
ENDS = ("no", "over", "at_end", "at_end_over")
KINDS = ("admin", "dispute", "abuse", "refunding")
STATUSES = (
    "incomplete", "incomplete_expired", "trialing", "active", "past_due", "unpaid", "paused",
    "canceled", "hibernating",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Cell:
    stripe: str
    known: str
    hold: str
    trial: str
    money: str
    owed: str
    grace: str
    end: str
    kind: str = "admin"
    is_collection_paused: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        return (
            self.stripe, self.known, self.hold, self.trial, self.money, self.owed, self.grace,
            self.end,
        )  # fmt: skip

    def facts(self) -> Facts:
        is_over, ends = self.end.endswith("over"), self.end.startswith("at_end")
        subscription = replace(
            SUB,
            status=self.stripe,
            trial_end=TRIALS[self.trial],
            cancel_at_period_end=ends,
            period_end=NOW if is_over else SUB.period_end,
            is_collection_paused=self.is_collection_paused,
        )
        return Facts(
            subscriptions=(subscription,),
            invoices=self.invoices(),
            holds=(self.kind,) if self.hold == "held" else (),
            extra_grace=int(self.grace) * DAY,
            known=ROWS[self.known],
            now=NOW,
        )

    def invoices(self) -> tuple[StripeInvoice, ...]:
        """Return this period's invoice and one of before; `money`: whether the paid one cost."""
        paid = replace(PAID, paid_cents=4900 if self.money == "came" else 0)
        owed = OWED[self.owed]
        early, late = SUB.period_start - 30 * DAY, SUB.period_start
        found = [replace(paid, id="in_0", created=early, period_start=early, period_end=late)]
        if "in_1" in owed:
            due_at = NOW - owed["in_1"] * DAY
            old = replace(unpaid(since=due_at, id="in_1"), created=early + DAY)
            found.append(replace(old, period_start=early, period_end=late))
        if "in_9" in owed:
            found.append(replace(unpaid(since=NOW - owed["in_9"] * DAY, id="in_9"), created=late))
        else:
            found.append(replace(paid, id="in_9", created=late))
        return tuple(found)


@cache
def rows_of(stripe: str) -> tuple[tuple[tuple[frozenset[str], ...], str, bool], ...]:
    """Return the table's rows for a status: what each column allows, our status, served or not."""
    found = []
    for line in TABLE.strip().splitlines():
        conditions, outcome = line.split("->")
        cells = [text.strip() for text in conditions.split("|")]
        if cells[0] == stripe:
            ours, served = outcome.split()
            found.append((tuple(map(allowed, cells, ALL)), ours, served == "yes"))
    return tuple(found)


ALL = (STATUSES, tuple(ROWS), ("none", "held"), tuple(TRIALS), ("none", "came"), tuple(OWED),
       ("0", "3"), ENDS)  # fmt: skip


def allowed(text: str, everything: tuple[str, ...]) -> frozenset[str]:
    if text == "*":
        return frozenset(everything)
    if text.startswith("!"):
        return frozenset(everything) - {text[1:]}
    found = frozenset(text.split(","))
    assert found <= set(everything), text
    return found


def cells(stripe: str) -> Iterator[Cell]:
    # Cycles of lengths that fit into no column's, so that every value meets every other.
    kinds, paused = cycle((*KINDS, "admin")), cycle((False, True, True))
    for known, hold, trial, money, owed, grace, end in product(*ALL[1:]):
        yield Cell(
            stripe=stripe, known=known, hold=hold, trial=trial, money=money, owed=owed,
            grace=grace, end=end, kind=next(kinds), is_collection_paused=next(paused),
        )  # fmt: skip


def check(cell: Cell, decision: Decision | None, known: Known | None) -> None:
    matching = [
        (ours, served)
        for conditions, ours, served in rows_of(cell.stripe)
        if all(value in values for value, values in zip(cell.columns, conditions, strict=True))
    ]
    assert len(matching) == 1, f"{cell} is in {len(matching)} rows of the table"
    ours, is_served = matching[0]
    if decision is None:
        assert ours == "-", cell
        return
    assert (decision.status.value, decision.is_entitled) == (ours, is_served), cell
    runs = ours in {"trialing", "active", "past_due"}
    assert (decision.desired is Desired.ACTIVE) == runs, cell
    check_invariants(cell, decision, known)


def check_invariants(cell: Cell, decision: Decision, known: Known | None) -> None:
    if cell.hold == "held":
        assert decision.status in {"suspended", "cancelled"}, cell
        assert decision.delete_after is None, cell
    assert (decision.delete_after is not None) <= (decision.status == "cancelled"), cell
    if cell.stripe == "hibernating" and known is not None:
        was = (known.status, known.tier, known.period_start, known.period_end)
        assert not decision.is_entitled or known.status in {"active", "past_due", "trialing"}, cell
        assert (decision.status, decision.tier, decision.period_start, decision.period_end) in {
            was, (SubscriptionStatus.SUSPENDED, *was[1:]),
        }, cell  # fmt: skip
    if decision.is_entitled and cell.stripe in {"active", "past_due"}:
        is_over = any(days > 7 + int(cell.grace) for days in OWED[cell.owed].values())
        assert not is_over, cell
    if decision.is_entitled and cell.stripe == "trialing":
        assert cell.trial == "runs" or cell.money == "came", cell
    is_billed = cell.owed in {"nothing", "older_3", "older_9"} and cell.stripe != "hibernating"
    assert decision.is_period_paid == is_billed, cell
    assert decision.period_limit == (40_000_000 if is_billed else 10_000_000), cell


@pytest.mark.parametrize("stripe", STATUSES)
def test_every_cell_is_what_the_table_says(stripe):
    for cell in cells(stripe):
        given = cell.facts()
        check(cell, decide(given).current, given.known)


def test_each_kind_of_hold_suspends_whatever_is_paid():
    for kind, known in product(KINDS, ROWS):
        cell = Cell(stripe="active", known=known, hold="held", trial="none", money="came",
                    owed="nothing", grace="0", end="no", kind=kind)  # fmt: skip
        decision = decide(cell.facts()).current
        assert decision is not None
        assert (decision.status, decision.is_entitled) == ("suspended", False)


def test_the_grace_ends_on_the_second():
    moment = timedelta(seconds=1)
    given = Cell(stripe="past_due", known="active", hold="none", trial="none", money="came",
                 owed="newest_9", grace="0", end="no").facts()  # fmt: skip
    ends_at = NOW - 9 * DAY + 7 * DAY
    before = decide(replace(given, now=ends_at - moment)).current
    after = decide(replace(given, now=ends_at)).current
    assert before is not None
    assert after is not None
    assert (before.is_entitled, after.is_entitled) == (True, False)
    assert before.grace_until == after.grace_until == ends_at
