"""`python -m bench.year --customers 50`: a simulated leap year, every invariant at every stop.

Renewals, anchors on days that not every month has, cards that fail, upgrades and downgrades,
ends and second thoughts, refunds, disputes: tests/flows/year_people.py has the stories. Our own
code, Stripe's simulator, PostgreSQL and Valkey run; there is no cluster. The customers live in two
worlds side by side, one a core (bench/worlds.py).
`--sabotage NAME` breaks what one invariant protects in the middle, and the run must end red. A run
that ends well has broken each of them at its end, too, and rolled that back once it was noticed.
"""

import argparse
import sys
import time

from bench import worlds
from bench.checks import Outcome

EVERYTHING = 48  # with so many customers, each story comes twice and each first day four times
YEAR = 366


def main() -> int:
    chosen = _parser().parse_args()
    wanted = worlds.Wanted(
        customers=chosen.customers,
        days=chosen.days,
        worlds=min(chosen.worlds, chosen.customers),
        sabotage=chosen.sabotage,
        has_profile=chosen.profile,
    )
    outcome = Outcome("year", is_sabotaged=bool(wanted.sabotage))
    began = time.monotonic()
    lived = worlds.live(wanted)
    seconds = time.monotonic() - began
    for one in lived.wrong:
        print(f"  ✗ {one}")
    print("  " + ", ".join(f"{name} {count}" for name, count in lived.happened.items()))
    outcome.figures |= {name: value for name, value in vars(lived).items() if name != "wrong"}
    outcome.figures |= {"wall_seconds": seconds}
    sizes = " + ".join(map(str, lived.worlds))
    outcome.check(
        f"{lived.customers} customers (worlds of {sizes} side by side), {lived.days} days:"
        " every invariant holds at each stop",
        holds=not lived.wrong,
        found=f"{len(lived.wrong)} wrong; {lived.hops} stops, {lived.webhooks} webhooks,"
        f" {lived.syncs} syncs, {sum(lived.deeds.values())} deeds in {seconds:.0f} s"
        f" (CPU: our own code {lived.cpu_seconds:.0f} s, servers {lived.server_seconds:.0f} s)",
    )
    if wanted.customers >= EVERYTHING and wanted.days >= YEAR and not wanted.sabotage:
        missing = [name for name, count in lived.happened.items() if not count]
        outcome.check(
            "everything that can happen has happened",
            holds=not missing,
            found=f"missing: {', '.join(missing)}" if missing else "nothing is missing",
        )
    print(f"written: {outcome.write()}")
    return 0 if outcome.holds else 1


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--customers", type=int, default=50)
    made.add_argument("--days", type=int, default=370)
    made.add_argument("--worlds", type=int, default=2, help="into how many they are divided")
    made.add_argument("--profile", action="store_true", help="tell what costs the time")
    made.add_argument("--sabotage", default="", metavar="NAME", help="see tests/flows/year.py")
    return made


if __name__ == "__main__":
    sys.exit(main())
