"""Look at this machine and the stack, and say for each thing that it is fine or how to mend it.

In production, where it runs beside a process in its container, what only a laptop needs is left
out: bun, a free port, room for everything else.
"""

import asyncio
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from sqlalchemy.exc import SQLAlchemyError

from openclaw_web.core import database
from openclaw_web.core.errors import OpenClawError
from openclaw_web.core.settings import Settings, problems, variable_named
from openclaw_web.gateway import upstreams
from openclaw_web.integrations import redis
from openclaw_web.local import box_images, control, places, ports, status
from openclaw_web.local.screen import GREEN, RED, Screen
from openclaw_web.local.up import MIN_FREE_BYTES

OLDEST, NEWEST = (3, 11), (3, 13)
CONNECT_SECONDS = 5.0
TITLE_WIDTH = 20
DEFAULT_PORTS = {"http": 80, "https": 443, "smtp": 25, "smtps": 465, "postgresql": 5432}


@dataclass(frozen=True)
class Finding:
    """What one look found; `cure` is empty when all is well."""

    title: str
    fact: str
    cure: str = ""


def examine(chosen: Settings, screen: Screen) -> bool:
    """Print a line for each check and return whether all is well."""
    well = True
    for finding in findings(chosen):
        mark = screen.paint("problem", RED) if finding.cure else screen.paint("ok", GREEN)
        screen.line(f"  {finding.title:<{TITLE_WIDTH}}{mark:<8} {finding.fact}")
        if finding.cure:
            well = False
            screen.line(f"  {'':<{TITLE_WIDTH}}         → {finding.cure}")
    return well


def findings(chosen: Settings) -> Iterator[Finding]:
    """Yield what each check found, the machine first, then the servers that the settings name."""
    yield _python()
    yield _home(chosen.home)
    if not chosen.is_production:
        yield _disk(chosen.home)
        yield _port(chosen)
        yield _bun()
    yield _boxes(chosen)
    yield _settings(chosen)
    yield _server("Database", chosen.database_url, "DATABASE_URL", _database_answers)
    yield _server("Redis", chosen.redis_url, "REDIS_URL", _redis_answers)
    for title, name, address in (
        ("Stripe", "STRIPE_API_URL", chosen.stripe_api_url),
        ("Telegram", "TELEGRAM_API_URL", chosen.telegram_api_url),
        ("Mail", "SMTP_URL", chosen.smtp_url),
    ):
        yield _server(title, address, name, _connects)
    yield from _models(chosen)
    yield _server("Kubernetes", cluster_address(chosen), "KUBECONFIG", _connects)


def _python() -> Finding:
    version = ".".join(str(number) for number in sys.version_info[:3])
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return Finding("Python", version)
    return Finding("Python", version, "install Python 3.11, 3.12 or 3.13 and run `make run` again")


def _home(home: Path) -> Finding:
    try:
        places.open_places(home)
    except OpenClawError as error:
        return Finding("State folder", str(home), str(error))
    return Finding("State folder", f"{home} can be written")


def _disk(home: Path) -> Finding:
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    cure = "" if free >= MIN_FREE_BYTES else "make room: at least 2 GB are needed"
    return Finding("Disk", f"{free / 1024**3:.1f} GB free", cure)


def _port(chosen: Settings) -> Finding:
    if control.running_pid(chosen.home) is not None:
        return Finding("Port", f"{chosen.port} is served by this stack")
    if ports.is_free(chosen.port):
        return Finding("Port", f"{chosen.port} is free")
    return Finding("Port", f"{chosen.port} is taken", ports.busy_sentence(chosen.port))


def _bun() -> Finding:
    found = shutil.which("bun", path=str(Path(sys.executable).parent)) or shutil.which("bun")
    cure = "" if found else "install it with the rest: .venv/bin/pip install -r requirements.txt"
    return Finding("bun", found or "missing", cure)


def _boxes(chosen: Settings) -> Finding:
    if chosen.is_production:
        return Finding("Boxes", f"run {chosen.box_image}")
    try:
        return Finding("Boxes", f"run {box_images.sentence(places.open_places(chosen.home))}")
    except OpenClawError as error:
        return Finding("Boxes", "cannot be looked at", str(error))


def _settings(chosen: Settings) -> Finding:
    found = problems(chosen)
    return Finding("Settings", f"{chosen.environment}, {chosen.public_url}", " ".join(found))


def _server(title: str, address: str, name: str, look: Callable[[str], None]) -> Finding:
    if not address:
        return Finding(title, "not set", f"run `make run`, or set {name}")
    where = urlsplit(address)
    shown = f"{where.scheme}://{where.hostname}:{where.port or DEFAULT_PORTS.get(where.scheme, '')}"
    try:
        look(address)
    except (OSError, OpenClawError, SQLAlchemyError) as error:
        reason = str(error).splitlines()[0][:120]
        return Finding(title, f"{shown}: {reason}", f"start it (`make run`), or correct {name}")
    return Finding(title, f"{shown} answers")


def _models(chosen: Settings) -> Iterator[Finding]:
    name = "UPSTREAMS_FILE" if chosen.upstreams_file else "UPSTREAM_URL"
    try:
        found = upstreams.load(chosen)
    except OpenClawError as error:
        yield Finding("Model", "cannot be asked", str(error))
        return
    for one in found:
        title = "Model" if len(found) == 1 else f"Model {one.name}"[: TITLE_WIDTH - 1]
        yield _server(title, one.openai_url or one.anthropic_url, name, _connects)


def _connects(address: str) -> None:
    where = urlsplit(address)
    port = where.port or DEFAULT_PORTS.get(where.scheme, 443)
    socket.create_connection((where.hostname or "", port), CONNECT_SECONDS).close()


def _database_answers(url: str) -> None:
    async def ask() -> None:
        database.open_database(url)
        try:
            async with database.session_scope() as session:
                await session.connection()
        finally:
            await database.close_database()

    asyncio.run(ask())


def _redis_answers(url: str) -> None:
    async def ask() -> bool:
        redis.open_redis(url)
        try:
            return await redis.is_alive()
        finally:
            await redis.close_redis()

    if not asyncio.run(ask()):
        raise ConnectionError("no answer")


def cluster_address(chosen: Settings) -> str:
    """Return the API server's address by the kubeconfig, or nothing when that cannot be read.

    On a laptop only the worker has it among its settings: the running stack says where it is. In a
    pod the cluster itself does.
    """
    kubeconfig = chosen.kubeconfig or status.look(chosen.home).kubeconfig
    host, port = (variable_named(f"KUBERNETES_SERVICE_{part}") for part in ("HOST", "PORT"))
    if chosen.is_production and not kubeconfig and host:
        return f"https://{f'[{host}]' if ':' in host else host}:{port or DEFAULT_PORTS['https']}"
    try:
        found = yaml.safe_load(Path(kubeconfig).read_text(encoding="utf-8"))
        return str(found["clusters"][0]["cluster"]["server"])
    except (OSError, KeyError, IndexError, TypeError, yaml.YAMLError):
        return ""
