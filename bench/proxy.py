"""`python -m bench.proxy`, or `make bench-proxy`: what the token proxy costs beside nginx.

All targets run at the same time and are asked in turns, round by round, so that the machine's
moods meet all of them. Then the metering check says whether ours counted every token.
"""

import argparse
import asyncio
import os
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from bench import counts, machine, metering, report
from bench.asking import Result
from bench.checks import Outcome
from bench.customer import make_holder
from bench.machine import Cores
from bench.scenarios import Scenario, measure, pin_all, scenarios
from bench.stack import Stack, stack
from bench.targets import NGINX, Target, make_targets

NAME = "proxy"
PART = "proxy-part"  # of only some scenarios: it must not stand for a whole run
WARM_UP = Scenario("warm-up", 16, 2)


def main() -> int:
    chosen = _parser().parse_args()
    machine.hurry(chosen.nice)
    _tell_missing()
    outcome = Outcome(PART if chosen.only else NAME, is_sabotaged=chosen.sabotage)
    with stack(upstream_port=chosen.upstream_port) as opened:
        holder = asyncio.run(make_holder(opened))
        targets = make_targets(opened, holder, chosen.targets)
        pin_all(opened, targets, Cores(chosen.proxy_core, chosen.rest_core))
        wanted = [one for one in scenarios(chosen.seconds) if chosen.only in one.name]
        tables = _run_rounds(opened, targets, wanted, chosen.rounds, outcome)
        counts.wait_until_written(opened, holder.customer_id, at_least=0)
        fresh = asyncio.run(make_holder(opened))  # whose events are counted in a moment
        for target in targets:
            if target.is_ours and target.server is not None:
                metering.check(opened, fresh, target.server, outcome, sabotage=chosen.sabotage)
    path = outcome.write()
    markdown = path.with_suffix(".md")
    markdown.write_text(_document(tables, outcome), encoding="utf-8")
    print(f"\nWritten: {path} and {markdown}")
    return 0 if outcome.holds else 1


def _run_rounds(
    opened: Stack,
    targets: Sequence[Target],
    wanted: Sequence[Scenario],
    rounds: int,
    outcome: Outcome,
) -> list[str]:
    """Ask every target in every scenario, round by round, and return the tables."""
    results: dict[str, dict[str, list[Result]]] = {
        scenario.name: {target.name: [] for target in targets} for scenario in wanted
    }
    for target in targets:
        measure(opened, target, WARM_UP)
    for number in range(rounds):
        for scenario in wanted:
            sys.stderr.write(f"round {number + 1} of {rounds}: {scenario.name}\n")
            for target in targets if number % 2 == 0 else reversed(targets):
                found = measure(opened, target, scenario)
                results[scenario.name][target.name].append(found)
                if found["errors"]:
                    sys.stderr.write(f"  {target.name}: {found['errors']} errors\n")
    outcome.figures["scenarios"] = results
    tables = [report.table(scenario, results[scenario.name]) for scenario in wanted]
    print("\n\n".join(["", *tables, ""]))
    return tables


def _document(tables: Sequence[str], outcome: Outcome) -> str:
    facts = machine.facts()
    head = [
        f"# The token proxy, {datetime.now(UTC):%Y-%m-%d}",
        "",
        (
            f"{facts.processor}, {facts.cores} cores, {facts.system}, Python {facts.python}; "
            f"load average before the end {facts.load_average}. "
            f"The token proxy was {'compiled' if facts.is_compiled else 'not compiled'}. "
            "`make bench-proxy` makes this file; docs/benchmarks.md tells how to read it."
        ),
        "",
    ]
    checked = ["## Metering", "", *(f"- {check}" for check in outcome.checks), ""]
    return "\n".join([*head, "\n\n".join(tables), "", *checked])


def _tell_missing() -> None:
    missing = [name for name in (NGINX, "wrk") if shutil.which(name) is None]
    if missing:
        sys.stderr.write(
            f"{' and '.join(missing)} not found: install with `apt-get install nginx-light wrk` or "
            "`brew install nginx wrk`; going on with what is there.\n"
        )


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--seconds", type=int, default=3, help="of one scenario")
    made.add_argument("--only", default="", help="a part of the scenarios' names")
    made.add_argument("--proxy-core", type=int, default=0)
    made.add_argument("--rest-core", type=int, default=1)
    made.add_argument("--upstream-port", type=int, default=0, help="for peers that run already")
    made.add_argument("--nice", type=int, default=0, help="-10 on a machine that is not idle")
    made.add_argument("--sabotage", action="store_true", help="lose an event: must end red")
    made.add_argument(
        "targets", nargs="*", default=os.environ.get("BENCH_TARGETS", "").split(), help="peers"
    )
    return made


if __name__ == "__main__":
    sys.exit(main())
