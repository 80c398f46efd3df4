"""`python -m bench.year --customers 50`: a simulated leap year, every invariant at every stop.

Renewals, anchors on days that not every month has, cards that fail, upgrades and downgrades,
ends and second thoughts, refunds, disputes: tests/flows/year_people.py has the stories. Our own
code runs in this process, Stripe's simulator, PostgreSQL and Valkey beside it; there is no cluster.
`--sabotage` breaks an invoice, a period or a box in the middle, and the run must end red.
"""

import argparse
import asyncio
import base64
import cProfile
import os
import pstats
import secrets
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

from bench.checks import Outcome

SECRET = base64.b64encode(secrets.token_bytes(32)).decode()
# Settings are read once, at their first use: before that our own modules must not look.
ENVIRONMENT = {"SECRET_KEY": SECRET, "LOG_LEVEL": "ERROR", "PORT": "3000"}
PROFILED = 45


def main() -> int:
    chosen = _parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="openclaw-cloud-year-") as folder:
        os.environ.update(ENVIRONMENT, OPENCLAW_CLOUD_HOME=str(Path(folder) / "home"))
        profile = cProfile.Profile() if chosen.profile else None
        if profile:
            profile.enable()
        outcome = asyncio.run(_run(chosen, Path(folder)))
        if profile:
            profile.disable()
            pstats.Stats(profile).sort_stats("cumulative").print_stats(PROFILED)
            pstats.Stats(profile).sort_stats("tottime").print_stats(PROFILED)
    print(f"written: {outcome.write()}")
    return 0 if outcome.holds else 1


async def _run(chosen: argparse.Namespace, folder: Path) -> Outcome:
    from tests.flows.year import live  # noqa: PLC0415 - it reads the settings

    outcome = Outcome("year", is_sabotaged=bool(chosen.sabotage))
    async with _servers(folder) as stripe_url:
        lived = await live(
            stripe_url,
            customers=chosen.customers,
            span=timedelta(days=chosen.days),
            tell=lambda line: print(f"  {line}", flush=True),
            sabotage=chosen.sabotage,
        )
    for one in lived.wrong:
        print(f"  ✗ {one}")
    outcome.figures |= {name: value for name, value in vars(lived).items() if name != "wrong"}
    outcome.check(
        f"{lived.customers} customers, {lived.days} days: every invariant holds at each stop",
        holds=not lived.wrong,
        found=f"{len(lived.wrong)} wrong; {lived.hops} stops, {lived.webhooks} webhooks,"
        f" {lived.syncs} syncs, {sum(lived.deeds.values())} deeds in {lived.seconds:.0f} s",
    )
    return outcome


@asynccontextmanager
async def _servers(folder: Path) -> AsyncGenerator[str]:
    """Run PostgreSQL, Valkey and the simulator; database and Redis are open in this process."""
    from openclaw_web import tables  # noqa: PLC0415 - see above
    from openclaw_web.core.database import close_database, open_database  # noqa: PLC0415
    from openclaw_web.core.migrations import migrate  # noqa: PLC0415
    from openclaw_web.integrations.redis import close_redis, open_redis  # noqa: PLC0415
    from openclaw_web.local import children, ports, scratch, valkey  # noqa: PLC0415
    from tests.billing.stripe_world import stripe_world  # noqa: PLC0415

    with ExitStack() as stack:
        postgres = stack.enter_context(scratch.postgres_server(folder))
        server = valkey.Valkey(
            folder=folder / "valkey",
            port=ports.free_port(),
            password=secrets.token_hex(16),
            is_durable=False,
        )
        valkey.prepare(server)
        child = children.start(valkey.command(server), log=folder / "valkey.log")
        stack.callback(child.end, 10.0)
        valkey.wait_until_ready(server)
        migrate(postgres.url("postgres"))
        tables.resolve()
        open_database(postgres.url("postgres"))
        open_redis(server.url)
        try:
            yield stack.enter_context(stripe_world(folder)).url
        finally:
            await close_redis()
            await close_database()


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--customers", type=int, default=50)
    made.add_argument("--days", type=int, default=370)
    made.add_argument("--profile", action="store_true", help="tell what costs the time")
    made.add_argument("--sabotage", default="", choices=["", "invoice", "period", "box"])
    return made


if __name__ == "__main__":
    sys.exit(main())
