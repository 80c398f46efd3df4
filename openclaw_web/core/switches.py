"""Settings that change while everything runs; today that is the clock's offset."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.core import columns
from openclaw_web.core.clock import OFFSET_KEY, forget_business_now, real_now


class PlatformSetting(SQLModel, table=True):
    __tablename__ = "platform_settings"

    key: str = Field(sa_column=sa.Column(sa.Text(), primary_key=True))
    value: Any = Field(sa_column=columns.document())
    updated_by: str | None = Field(default=None, sa_column=columns.text())
    updated_at: datetime | None = Field(default=None, sa_column=columns.timestamp(default_now=True))


async def read_switch(session: AsyncSession, key: str, default: Any = None) -> Any:
    """Return the value of a switch, or the default when nobody set it."""
    row = await session.get(PlatformSetting, key)
    return default if row is None else row.value


async def write_switch(
    session: AsyncSession, key: str, value: Any, *, by: str, at: datetime
) -> None:
    row = {"value": value, "updated_by": by, "updated_at": at}
    statement = insert(PlatformSetting).values(key=key, **row)
    await session.exec(statement.on_conflict_do_update(index_elements=["key"], set_=row))


async def advance_clock(session: AsyncSession, seconds: float, *, by: str) -> float:
    """Move business time forward and return the new offset in seconds; two steps at once add up.

    Raises:
        ValueError: the step is negative; business time only grows.
    """
    if seconds < 0:
        raise ValueError("Business time only moves forward.")
    row = {"value": seconds, "updated_by": by, "updated_at": real_now()}
    statement = insert(PlatformSetting).values(key=OFFSET_KEY, **row)
    before, step = (
        sa.cast(one, sa.Float) for one in (PlatformSetting.value, statement.excluded.value)
    )
    moved = statement.on_conflict_do_update(
        index_elements=["key"], set_={**row, "value": sa.func.to_jsonb(before + step)}
    )
    offset = await session.scalar(moved.returning(sa.cast(PlatformSetting.value, sa.Float)))
    forget_business_now(session)
    return float(offset)
