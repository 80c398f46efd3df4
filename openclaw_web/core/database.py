"""One engine for each process, and one unit of work for each act."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
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


class DatabaseNotOpenError(OpenClawError):
    """A session was asked for before `open_database`."""


class _Process:
    """What this process holds: one engine, opened once."""

    engine: AsyncEngine | None = None


def driver_url(url: str) -> sa.URL:
    """Return the SQLAlchemy address of a PostgreSQL URL in its usual spelling."""
    return sa.make_url(url).set(drivername="postgresql+psycopg")


def open_database(url: str, *, may_restart: bool = True) -> AsyncEngine:
    """Open the process's engine; the second call with another address replaces it (tests do).

    A database that `may_restart` is greeted before each unit of work.
    """
    made = create_async_engine(
        driver_url(url),
        pool_size=POOL_SIZE,
        max_overflow=POOL_SIZE,
        pool_pre_ping=may_restart,
        hide_parameters=True,  # an error's text ends in a log: statements yes, people's values no
        connect_args=dict(CONNECTION),
    )
    event.listen(made.sync_engine, "connect", _limit_idle_transactions)
    _Process.engine = made
    return made


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
        raise DatabaseNotOpenError("The database is not open; call open_database first.")
    return _Process.engine


async def close_database() -> None:
    if _Process.engine is not None:
        await _Process.engine.dispose()
        _Process.engine = None


@asynccontextmanager
async def session_scope() -> AsyncGenerator[AsyncSession]:
    """Open one unit of work: committed at the end, rolled back when anything is raised."""
    async with AsyncSession(engine(), expire_on_commit=False) as session:
        async with session.begin():
            yield session
        for callback in session.info.pop(AFTER_COMMIT, ()):
            await callback()


def after_commit(session: AsyncSession, callback: Callable[[], Awaitable[None]]) -> None:
    """Run something once this unit of work is committed, such as ringing a bell.

    Never when it is rolled back.
    """
    session.info.setdefault(AFTER_COMMIT, []).append(callback)
