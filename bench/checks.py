"""What a run proves: checks that can fail, their figures, and where both are written."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench import machine

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Check:
    """One claim, what was found, and whether it holds."""

    claim: str
    holds: bool
    found: str

    def __str__(self) -> str:
        return f"{'PASS' if self.holds else 'FAIL'}  {self.claim}: {self.found}"


@dataclass
class Outcome:
    """All checks of one run, and the figures behind them."""

    name: str
    is_sabotaged: bool = False
    checks: list[Check] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return bool(self.checks) and all(check.holds for check in self.checks)

    def check(self, claim: str, *, holds: bool, found: object) -> None:
        made = Check(claim, holds, str(found))
        self.checks.append(made)
        print(f"  {made}", flush=True)

    def write(self) -> Path:
        """Write what was found as JSON, with the machine's facts; a sabotaged run stands apart."""
        RESULTS.mkdir(exist_ok=True)
        suffix = "-sabotaged" if self.is_sabotaged else ""
        path = RESULTS / f"{self.name}{suffix}.json"
        content = {
            "name": self.name,
            "holds": self.holds,
            "is_sabotaged": self.is_sabotaged,
            "checks": [asdict(check) for check in self.checks],
            "figures": self.figures,
            "machine": machine.facts().as_dict(),
        }
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return path
