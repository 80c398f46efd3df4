"""`admin invariants`: is the meter true, is the money right, and would we notice if not."""

from dataclasses import dataclass
from typing import Any

from openclaw_web.billing import sabotage as money_sabotage
from openclaw_web.core.errors import NotFoundError
from openclaw_web.core.settings import Settings
from openclaw_web.local import billing_check, meter_check
from openclaw_web.metering import sabotage as meter_sabotage

NAMES = (*meter_sabotage.NAMES, *money_sabotage.NAMES)
NOTICED_BY: dict[str, str] = {
    **{name: one.value for name, one in meter_sabotage.NOTICED_BY.items()},
    **{name: one.value for name, one in money_sabotage.NOTICED_BY.items()},
}


@dataclass
class Audit:
    """What both checks came to."""

    meter: meter_check.Verdict
    money: billing_check.Verdict
    is_sabotaged: bool = False

    @property
    def is_green(self) -> bool:
        return self.meter.is_green and self.money.is_green

    @property
    def noticed(self) -> set[str]:
        """Return the names of the invariants that do not hold."""
        findings = [*self.meter.findings, *self.money.findings]
        return {one.invariant.value for one in findings}

    def as_dict(self) -> dict[str, Any]:
        meter = self.meter.as_dict()
        return {
            **meter,
            "verdict": "green" if self.is_green else "red",
            "findings": [*meter["findings"], *(one.as_dict() for one in self.money.findings)],
            "not_compared": self.money.not_compared,
        }

    def lines(self) -> list[str]:
        """Return everything as a person reads it."""
        repairs = [
            f"set right: {one.table} {one.row}: {one.before} -> {one.after}"
            for one in self.meter.repairs
        ]
        wrong = [
            f"✗ {one.invariant} ({one.customer_id or 'no customer'}, {one.subject}): {one.sentence}"
            for one in (*self.meter.findings, *self.money.findings)
        ]
        right = []
        if self.is_sabotaged:
            return wrong
        if self.meter.is_green:
            right.append(
                f"✓ {self.meter.customers} customers: events, days, months and counters agree."
            )
        if self.money.is_green:
            right.append("✓ Nobody is served unpaid, nobody who paid is dark, and the books agree.")
        note = [f"! {self.money.not_compared}"] if self.money.not_compared else []
        return [*repairs, *wrong, *right, *note]


async def run(chosen: Settings, *, email: str = "", repair: bool = False) -> Audit:
    """Check one customer, or everybody.

    Raises:
        NotFoundError: nobody has this address.
    """
    return Audit(
        meter=await meter_check.check(chosen, email=email, repair=repair),
        money=await billing_check.check(chosen, email=email),
    )


async def run_sabotaged(chosen: Settings, name: str) -> Audit:
    """Break one invariant of somebody made up, check, and roll everything back.

    Raises:
        NotFoundError: nobody knows this sabotage.
        OpenClawError: the check was red before anything was broken.
    """
    if name in meter_sabotage.NAMES:
        meter = await meter_check.check_sabotaged(chosen, name)
        return Audit(meter=meter, money=billing_check.Verdict(), is_sabotaged=True)
    if name in money_sabotage.NAMES:
        money = await billing_check.check_sabotaged(chosen, name)
        return Audit(meter=meter_check.Verdict(), money=money, is_sabotaged=True)
    raise NotFoundError(f"There is no sabotage {name!r}; there are: {', '.join(NAMES)}.")
