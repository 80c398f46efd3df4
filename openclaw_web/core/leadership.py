"""One process at a time: what may not run twice runs behind an advisory lock of PostgreSQL."""

import contextlib
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from openclaw_web.core import database
from openclaw_web.core.errors import OpenClawError

SCOPE_BITS = 32


class NotLeaderError(OpenClawError):
    """Another process holds the lock."""


@asynccontextmanager
async def only_one(lock: int, scope: str = "") -> AsyncGenerator[Callable[[], Awaitable[None]]]:
    """Run something in one process at a time; the lock is lost together with its connection.

    With a scope, such as a cluster's name, one process for each of them does it.

    Yields a check that raises when the connection is gone.

    Raises:
        NotLeaderError: another process holds the lock.
    """
    async with database.engine().connect() as connection:
        direct = await connection.execution_options(isolation_level="AUTOCOMMIT")
        key = {"key": (lock << SCOPE_BITS) + zlib.crc32(scope.encode()) if scope else lock}
        took = await direct.scalar(sa.text("SELECT pg_try_advisory_lock(:key)"), key)
        if not took:
            raise NotLeaderError("Another process does this already.")

        async def still_leading() -> None:
            await direct.execute(sa.text("SELECT 1"))

        try:
            yield still_leading
        finally:
            with contextlib.suppress(SQLAlchemyError):
                await direct.execute(sa.text("SELECT pg_advisory_unlock(:key)"), key)
