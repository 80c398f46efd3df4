"""What every test may ask for: real servers of our own, a fresh database, an empty Valkey.

Each test process starts its own PostgreSQL and Valkey in a temporary folder, so tests run in
parallel and beside a running stack. The migrations are applied once to a template; a test gets a
clone of it in some 50 ms.
"""

import base64
import faulthandler
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from redis.asyncio import Redis
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.core.database import close_database, engine, open_database
from openclaw_web.core.migrations import migrate
from openclaw_web.integrations.redis import close_redis, open_redis
from openclaw_web.local import children, ports, scratch, valkey
from openclaw_web.local.places import PASSABLE
from openclaw_web.local.postgres import Postgres
from openclaw_web.local.valkey import Valkey

PREFIX = "openclaw-cloud-tests-"
SCRATCH = Path(tempfile.mkdtemp(prefix=PREFIX))
TEMPLATE = "template_openclaw"
END_SECONDS = 10.0
ONE_DAY_SECONDS = 86_400
LONGEST_TEST_SECONDS = 600  # with starting a full stack and building its pages
# Settings are read once, at the first call of settings(): that is later than pytest_configure.
ENVIRONMENT = {
    "OPENCLAW_CLOUD_HOME": str(SCRATCH / "home"),
    "SECRET_KEY": base64.b64encode(b"only for tests: not secret, 32 b").decode(),
    "PORT": "3000",
    "__REFLEX_SKIP_COMPILE": "1",
    "REFLEX_TELEMETRY_ENABLED": "false",
}
NOT_FOR_TESTS = (
    "OPENCLAW_CLOUD_ENV",
    "DATABASE_URL",
    "REDIS_URL",
    "PUBLIC_URL",
    "DEV_SERVICES",
    "HOST",
)


def pytest_configure(config: pytest.Config) -> None:
    for name in NOT_FOR_TESTS:
        os.environ.pop(name, None)
    os.environ.update(ENVIRONMENT)
    SCRATCH.chmod(PASSABLE)  # as root, PostgreSQL runs as somebody else
    config.addinivalue_line("markers", "browser: drives a real browser against a full stack")
    config.addinivalue_line("markers", "slow: takes longer than ten seconds; only `make test-all`")


def pytest_unconfigure() -> None:
    shutil.rmtree(SCRATCH, ignore_errors=True)
    for left in SCRATCH.parent.glob(f"{PREFIX}*"):  # by runs that were killed
        if time.time() - left.stat().st_mtime > ONE_DAY_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """End a test process that hangs, with its traceback, rather than the patience of a reader."""
    faulthandler.dump_traceback_later(LONGEST_TEST_SECONDS, exit=True)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def passable_path() -> Path:
    """Return a fresh folder that any user may pass through; pytest's own `tmp_path` is private."""
    SCRATCH.chmod(PASSABLE)
    folder = Path(tempfile.mkdtemp(dir=SCRATCH))
    folder.chmod(PASSABLE)
    return folder


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """Run a PostgreSQL of this test process's own, without fsync."""
    with scratch.postgres_server(SCRATCH) as server:
        yield server


@pytest.fixture(scope="session")
def database_template(postgres_server: Postgres) -> str:
    """Apply the migrations once and return the name of the database to clone."""
    _administer(postgres_server, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
    migrate(postgres_server.url(TEMPLATE))
    return TEMPLATE


@pytest.fixture
async def database(postgres_server: Postgres, database_template: str) -> AsyncIterator[str]:
    """Open a fresh database with all tables and return its address."""
    name = f"test_{secrets.token_hex(6)}"
    names = {"name": sql.Identifier(name), "template": sql.Identifier(database_template)}
    _administer(
        postgres_server, sql.SQL("CREATE DATABASE {name} TEMPLATE {template}").format(**names)
    )
    url = postgres_server.url(name)
    open_database(url)
    try:
        yield url
    finally:
        await close_database()
        _administer(postgres_server, sql.SQL("DROP DATABASE {name} WITH (FORCE)").format(**names))


@pytest.fixture
async def session(database: str) -> AsyncIterator[AsyncSession]:
    """Open a session; what a test wants others to see, it commits."""
    assert database
    async with AsyncSession(engine(), expire_on_commit=False) as opened:
        yield opened


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    """Run a Valkey of this test process's own, in memory only."""
    server = Valkey(
        folder=SCRATCH / "valkey",
        port=ports.free_port(),
        password=secrets.token_hex(16),
        is_durable=False,
    )
    valkey.prepare(server)
    child = children.start(valkey.command(server), log=SCRATCH / "valkey.log")
    try:
        valkey.wait_until_ready(server)
        yield server
    finally:
        child.end(END_SECONDS)


@pytest.fixture
async def redis(valkey_server: Valkey) -> AsyncIterator[Redis]:
    """Open an empty Valkey and return our client of it."""
    client = open_redis(valkey_server.url)
    await client.flushall()
    try:
        yield client
    finally:
        await close_redis()


def _administer(server: Postgres, statement: sql.Composed) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(statement)
