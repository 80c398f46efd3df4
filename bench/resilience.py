"""`python -m bench.resilience NAME`: what must hold when things go wrong, each as PASS or FAIL.

`--sabotage` tampers with what is compared, and the run must end red: a check that cannot fail
proves nothing. Each run writes its figures to `bench/results/NAME.json`.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

from bench import crash, endurance, limit, limit_outage, machine, metering, outage
from bench.checks import Outcome

Run = Callable[[argparse.Namespace, Outcome], None]


@dataclass(frozen=True)
class Proof:
    """One thing to prove. `size` is its usual length in `unit`."""

    run: Run
    summary: str
    size: int
    unit: str = "seconds"


PROOFS = {
    "metering": Proof(metering.run, "served = metered in every case", 0, "(ignored)"),
    "outage-paused": Proof(outage.run_paused, "PostgreSQL hangs under load", 30),
    "outage-stopped": Proof(outage.run_stopped, "PostgreSQL is stopped under load", 30),
    "outage-flushed": Proof(
        outage.run_flushed, "PostgreSQL is stopped and Redis emptied under load", 30
    ),
    "crash": Proof(crash.run_spooled, "the proxy is killed with events that wait", 200, "requests"),
    "crash-loaded": Proof(crash.run_loaded, "the proxy is killed under load", 5, "kills"),
    "limit": Proof(limit.run, "200 clients at 99 % of a limit, 4 proxies", 15),
    "limit-flushed": Proof(limit.run_flushed, "the same, and Redis is emptied in between", 15),
    "limit-outage": Proof(
        limit_outage.run, "the same at 96 %, and Redis and PostgreSQL go away together", 15
    ),
    "limit-outage-flushed": Proof(
        limit_outage.run_flushed, "the same, and Redis is emptied and stays", 15
    ),
    "million": Proof(endurance.run, "memory over very many requests", 1_000_000, "requests"),
}


def main() -> int:
    chosen = _parser().parse_args()
    machine.hurry(chosen.nice)
    names = list(PROOFS) if chosen.name == "all" else [chosen.name]
    outcomes = [_prove(name, chosen) for name in names]
    for outcome in outcomes:
        print(f"{'PASS' if outcome.holds else 'FAIL'}  {outcome.name}")
    return 0 if all(outcome.holds for outcome in outcomes) else 1


def _prove(name: str, chosen: argparse.Namespace) -> Outcome:
    proof = PROOFS[name]
    print(f"{name}: {proof.summary}")
    options = argparse.Namespace(sabotage=chosen.sabotage, size=chosen.size or proof.size)
    outcome = Outcome(name, is_sabotaged=chosen.sabotage)
    proof.run(options, outcome)
    print(f"  written: {outcome.write()}")
    return outcome


def _parser() -> argparse.ArgumentParser:
    lines = [
        f"  {name:16} {proof.summary}; {proof.size} {proof.unit}" for name, proof in PROOFS.items()
    ]
    made = argparse.ArgumentParser(
        description=__doc__,
        epilog="\n".join(["what there is to prove, and its usual size:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("name", choices=[*PROOFS, "all"])
    made.add_argument("--size", type=int, default=0, help="another size than the usual")
    made.add_argument("--nice", type=int, default=0, help="-10 on a machine that is not idle")
    made.add_argument("--sabotage", action="store_true", help="must end red")
    return made


if __name__ == "__main__":
    sys.exit(main())
