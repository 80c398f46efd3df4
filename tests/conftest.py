"""What every test may ask for: real servers of our own, a fresh database, an empty Valkey.

Each test process starts its own PostgreSQL and Valkey in a temporary folder, so tests run in
parallel and beside a running stack. The migrations are applied once to a template; tests
get a clone of it that is emptied between them.
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
from typing import LiteralString, cast

# What is written is what is tested; `make test-compiled` tests what was compiled.
os.environ.setdefault("OPENCLAW_CLOUD_COMPILED", "off")

import psycopg
import pytest
from psycopg import sql
from redis.asyncio import Redis
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.core import compiled
from openclaw_web.core.database import close_database, engine, open_database
from openclaw_web.core.migrations import migrate
from openclaw_web.integrations.redis import close_redis, open_redis
from openclaw_web.local import children, ports, scratch, valkey
from openclaw_web.local.places import PASSABLE
from openclaw_web.local.postgres import Postgres
from openclaw_web.local.valkey import Valkey
from tests.chaos import summary

PREFIX = "openclaw-cloud-tests-"
SCRATCH = Path(tempfile.mkdtemp(prefix=PREFIX))
TEMPLATE = "template_openclaw"
END_SECONDS = 10.0
ONE_DAY_SECONDS = 86_400
USES_OF_A_DATABASE = 100  # what tests deleted stays in the files until then
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
    config.pluginmanager.register(summary)
    config.addinivalue_line("markers", "browser: drives a real browser against a full stack")
    config.addinivalue_line("markers", "slow: takes longer than ten seconds; only `make test-all`")
    config.addinivalue_line("markers", "interpreted: replaces a part of what may be compiled")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if compiled.is_used() and item.get_closest_marker("interpreted"):
        pytest.skip("replaces a part of what is compiled")


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


@pytest.fixture(scope="session")
def databases(postgres_server: Postgres, database_template: str) -> Iterator["Databases"]:
    made = Databases(postgres_server, database_template)
    yield made
    made.forget()


@pytest.fixture
async def database(databases: "Databases") -> AsyncIterator[str]:
    """Open a database with all tables and no rows, and return its address."""
    url = databases.take()
    open_database(url)
    try:
        yield url
    finally:
        await close_database()
        databases.give_back()


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


class Databases:
    """One clone of the template for test after test: emptying it takes 3 ms, cloning it 80."""

    def __init__(self, server: Postgres, template: str) -> None:
        self._server = server
        self._template = template
        self._name: str | None = None
        self._uses = 0
        self._emptying = ""
        self._schema = ""

    def take(self) -> str:
        if self._name is None:
            self._name, self._uses = f"test_{secrets.token_hex(6)}", 0
            names = {
                "name": sql.Identifier(self._name),
                "template": sql.Identifier(self._template),
            }
            statement = "CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy"
            _administer(self._server, sql.SQL(statement).format(**names))
            with psycopg.connect(self._server.url(self._name)) as connection:
                self._schema = _schema_of(connection)
        return self._server.url(self._name)

    def give_back(self) -> None:
        """Empty the database, or drop it when something is in the way or it has grown fat."""
        self._uses += 1
        try:
            if self._uses < USES_OF_A_DATABASE and self._name is not None:
                self._empty(self._name)
                return
        except psycopg.Error:
            pass  # a test changed tables, or holds locks beyond its end
        self.forget()

    def forget(self) -> None:
        if self._name is not None:
            statement = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(self._name))
            self._name = None
            _administer(self._server, statement)

    def _empty(self, name: str) -> None:
        with psycopg.connect(self._server.url(name), autocommit=True) as connection:
            connection.execute(_END_OTHERS)
            if _schema_of(connection) != self._schema:
                self.forget()
                return
            self._emptying = self._emptying or _emptying(connection)
            connection.execute(cast("LiteralString", self._emptying))


_END_OTHERS = """SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()"""


def _emptying(connection: psycopg.Connection[tuple[str]]) -> str:
    """Return the statements that bring a used clone back to what the migrations left: no rows."""
    tables = connection.execute(
        "SELECT tablename FROM pg_tables"
        " WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
    )
    deletes = [f'DELETE FROM "{name}"' for (name,) in tables]  # noqa: S608 - its own names
    sequences = connection.execute(
        "SELECT sequencename FROM pg_sequences WHERE schemaname = 'public'"
    )
    restarts = [f"SELECT setval('{name}', 1, false)" for (name,) in sequences]
    return ";".join(
        ["SET session_replication_role = replica", "SET lock_timeout = '2s'", *deletes, *restarts]
    )


def _schema_of(connection: psycopg.Connection[tuple[str]]) -> str:
    """Return what differs once anybody has changed a table: who wrote the catalogue's rows."""
    found = connection.execute(
        """SELECT string_agg(concat_ws(':', kind, rows, writers), ' ') FROM (
        SELECT 1 AS kind, count(*) AS rows, sum(xmin::text::bigint) AS writers FROM pg_class
        UNION ALL SELECT 2, count(*), sum(xmin::text::bigint) FROM pg_attribute
        UNION ALL SELECT 3, count(*), sum(xmin::text::bigint) FROM pg_constraint
        UNION ALL SELECT 4, count(*), sum(xmin::text::bigint) FROM pg_trigger
        UNION ALL SELECT 5, count(*), sum(xmin::text::bigint) FROM pg_proc) AS catalogue"""
    ).fetchone()
    return found[0] if found else ""


def _administer(server: Postgres, statement: sql.Composed) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(statement)
