"""One engine for each process, and one unit of work for each act."""

import select
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.core.errors import OpenClawError

# PostgreSQL's own names, so that the documented constraint and index names come out by themselves.
SQLModel.metadata.naming_convention = {
    "pk": "%(table_name)s_pkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "ck": "%(constraint_name)s",
}

POOL_SIZE = 10
STATEMENTS_AT_ONCE = 4  # of those that are transactions by themselves; each takes a millisecond
# A connection that was used so lately, and whose server has said nothing since, is not greeted.
RESTED_SECONDS = 1.0
USED_AT = "used_at"
# What a network that swallows packets may cost: a connection that hears nothing for so long ends.
CONNECTION: dict[str, int] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,  # milliseconds; where the system has it
}
# A process that stands still in the middle of a transaction would lock others out for as long; at
# the end of its lease somebody else goes on.
IDLE_TRANSACTION_SECONDS = 60
AFTER_COMMIT = "after_commit"
ONE_UNIT = "one_unit"  # on a session that lives for one unit of work
NOT_OPEN = "The database is not open; call open_database first."


class DatabaseNotOpenError(OpenClawError):
    """A session was asked for before `open_database`."""


class _Process:
    """What this process holds, opened once: an engine, and one for statements without a unit."""

    engine: AsyncEngine | None = None
    direct: AsyncEngine | None = None


def driver_url(url: str) -> sa.URL:
    """Return the SQLAlchemy address of a PostgreSQL URL in its usual spelling."""
    return sa.make_url(url).set(drivername="postgresql+psycopg")


def open_database(
    url: str, *, may_restart: bool = True, connections: int = POOL_SIZE
) -> AsyncEngine:
    """Open the process's engine; the second call with another address replaces it (tests do).

    A database that `may_restart` is greeted before each unit of work, over a connection that has
    rested. `connections` stay open once they were used; `POOL_SIZE` more come and go.
    """
    make = partial(_make_engine, url, may_restart=may_restart)
    _Process.engine = made = make(pool_size=connections, max_overflow=POOL_SIZE)
    _Process.direct = make(
        pool_size=STATEMENTS_AT_ONCE,
        max_overflow=connections,  # while somebody holds the rows of many jobs
        pool_reset_on_return=None,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
    )
    return made


def _make_engine(url: str, *, may_restart: bool, **options: Any) -> AsyncEngine:
    """Make an engine that connects when it is needed."""
    made = create_async_engine(
        driver_url(url),
        pool_use_lifo=True,  # few connections at work, which need no greeting
        hide_parameters=True,  # an error's text ends in a log: statements yes, people's values no
        connect_args=dict(CONNECTION),
        **options,
    )
    event.listen(made.sync_engine, "connect", _limit_idle_transactions)
    if may_restart:
        event.listen(made.sync_engine, "connect", _note_use)
        event.listen(made.sync_engine, "checkin", _note_use)
        event.listen(made.sync_engine, "checkout", partial(_greet, made.sync_engine.dialect))
    return made


def _note_use(_connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
    record.info[USED_AT] = time.monotonic()


def _greet(
    dialect: sa.Dialect, connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object
) -> None:
    """Make sure that the server is still there, unless it was a moment ago and is silent.

    A server that ends says goodbye: its end of the connection can be read without asking.

    Raises:
        InvalidatePoolError: it is another one now; the pool connects anew.
    """
    has_rested = time.monotonic() - record.info[USED_AT] > RESTED_SECONDS
    if not has_rested and not _can_be_read(dialect, connection):
        return
    try:
        dialect.do_ping(connection)
    except dialect.loaded_dbapi.Error as error:
        if dialect.is_disconnect(error, connection, None):
            raise InvalidatePoolError from error
        raise


def _can_be_read(dialect: sa.Dialect, connection: DBAPIConnection) -> bool:
    """Say whether the server has said something by itself, or the connection is closed."""
    poll = select.poll()
    try:
        poll.register(connection.driver_connection.fileno(), select.POLLIN)
    except dialect.loaded_dbapi.Error:
        return True
    return bool(poll.poll(0))


def _limit_idle_transactions(connection: DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_TRANSACTION_SECONDS}s'")
    cursor.close()
    connection.commit()


def engine() -> AsyncEngine:
    """Return the process's engine.

    Raises:
        DatabaseNotOpenError: nobody called `open_database`.
    """
    if _Process.engine is None:
        raise DatabaseNotOpenError(NOT_OPEN)
    return _Process.engine


def engines() -> list[AsyncEngine]:
    """Return what this process has open."""
    return [opened for opened in (_Process.engine, _Process.direct) if opened is not None]


async def answers() -> bool:
    """Say whether the server takes a new connection, for which it has five seconds."""
    url = engine().url.set(drivername="postgresql")
    address = url.update_query_dict({name: str(value) for name, value in CONNECTION.items()})
    try:
        connection = await psycopg.AsyncConnection.connect(
            address.render_as_string(hide_password=False)
        )
    except psycopg.Error:
        return False
    await connection.close()
    return True


async def close_database() -> None:
    for opened in engines():
        await opened.dispose()
    _Process.engine = _Process.direct = None


@asynccontextmanager
async def session_scope() -> AsyncGenerator[AsyncSession]:
    """Open one unit of work: committed at the end, rolled back when anything is raised."""
    info = {ONE_UNIT: True}
    async with AsyncSession(engine(), expire_on_commit=False, info=info) as session:
        async with session.begin():
            yield session
        for callback in session.info.pop(AFTER_COMMIT, ()):
            await callback()


async def at_once(statement: sa.Executable, values: Mapping[str, Any]) -> sa.Row[Any] | None:
    """Run one statement that returns rows and is a transaction of its own; return the first row.

    It takes no connection from the process's units of work; a row that one has locked it waits for.

    Raises:
        DatabaseNotOpenError: nobody called `open_database`.
    """
    if _Process.direct is None:
        raise DatabaseNotOpenError(NOT_OPEN)
    async with _Process.direct.connect() as connection:
        return (await connection.execute(statement, values)).first()


def after_commit(session: AsyncSession, callback: Callable[[], Awaitable[None]]) -> None:
    """Run something once this unit of work is committed, such as ringing a bell.

    Never when it is rolled back.
    """
    session.info.setdefault(AFTER_COMMIT, []).append(callback)
