"""A simulated year in worlds side by side: each a process with a database and a Stripe of its own.

The customers are divided by their first days, so each world also stops less often. Every invariant
is checked in each world at each of its stops; what they came to is added up.
"""

import base64
import cProfile
import multiprocessing
import os
import pstats
import resource
import secrets
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import uvloop

from tests.flows.lived import Lived

SECRET = base64.b64encode(secrets.token_bytes(32)).decode()
# Settings are read once, at their first use: before that our own modules must not look.
ENVIRONMENT = {"SECRET_KEY": SECRET, "LOG_LEVEL": "ERROR", "PORT": "3000"}
PROFILED = 45


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How many customers live how long, in how many worlds."""

    customers: int = 50
    days: int = 370
    worlds: int = 2
    sabotage: str = ""
    has_profile: bool = False


def live(wanted: Wanted) -> Lived:
    """Run all worlds, and return what they came to together."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(wanted.worlds, mp_context=context) as pool:
        running: list[Future[Lived]] = [
            pool.submit(_one_world, wanted, number) for number in range(wanted.worlds)
        ]
        return _together(wanted, [one.result() for one in running])


def _together(wanted: Wanted, lives: Sequence[Lived]) -> Lived:
    """Add up; only what was noticed in every world was noticed."""
    made = Lived(customers=sum(one.customers for one in lives), days=wanted.days)
    for one in lives:
        for name in ("hops", "syncs", "webhooks", "tokens", "cpu_seconds", "server_seconds"):
            setattr(made, name, getattr(made, name) + getattr(one, name))
        made.deeds = dict(Counter(made.deeds) + Counter(one.deeds))
        made.happened = {
            name: made.happened.get(name, 0) + count for name, count in one.happened.items()
        }
        made.wrong += one.wrong
    made.noticed = [name for name in lives[0].noticed if all(name in one.noticed for one in lives)]
    made.worlds = [one.customers for one in lives]
    made.seconds = max(one.seconds for one in lives)
    return made


def _one_world(wanted: Wanted, number: int) -> Lived:
    """Live in this process, which does nothing else."""
    with tempfile.TemporaryDirectory(prefix="openclaw-cloud-year-") as folder:
        os.environ.update(ENVIRONMENT, OPENCLAW_CLOUD_HOME=str(Path(folder) / "home"))
        profile = cProfile.Profile() if wanted.has_profile else None
        if profile:
            profile.enable()
        lived = uvloop.run(_run(wanted, number, Path(folder)))
        if profile:
            profile.disable()
            pstats.Stats(profile).sort_stats("cumulative").print_stats(PROFILED)
            pstats.Stats(profile).sort_stats("tottime").print_stats(PROFILED)
    ours, servers = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    lived.cpu_seconds = ours.ru_utime + ours.ru_stime
    lived.server_seconds = servers.ru_utime + servers.ru_stime
    return lived


async def _run(wanted: Wanted, number: int, folder: Path) -> Lived:
    from openclaw_web.core import collecting  # noqa: PLC0415 - see below
    from tests.flows import year  # noqa: PLC0415 - it reads the settings

    collecting.leave_start_alone()  # as our own servers do
    if wanted.sabotage and wanted.sabotage not in year.SABOTAGE:
        raise SystemExit(f"There is no such sabotage; there are: {', '.join(year.SABOTAGE)}.")
    name = f"world {number + 1}" if wanted.worlds > 1 else "the year"
    async with _servers(folder) as stripe_url:
        return await year.live(
            stripe_url,
            customers=wanted.customers,
            span=timedelta(days=wanted.days),
            share=(number, wanted.worlds),
            tell=lambda line: print(f"  {name}, {line}", flush=True),
            sabotage=wanted.sabotage,
        )


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
        open_database(postgres.url("postgres"), may_restart=False)
        open_redis(server.url)
        try:
            yield stack.enter_context(stripe_world(folder)).url
        finally:
            await close_redis()
            await close_database()
