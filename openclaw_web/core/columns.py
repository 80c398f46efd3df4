"""The column shapes that our tables share."""

from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

NOW = sa.text("now()")


def timestamp(
    *, nullable: bool = True, default_now: bool = False, **options: Any
) -> sa.Column[Any]:
    """Return a TIMESTAMPTZ column; values are aware and in UTC."""
    default = NOW if default_now else None
    return sa.Column(
        sa.TIMESTAMP(timezone=True),
        nullable=nullable and not default_now,
        server_default=default,
        **options,
    )


def uuid_key() -> sa.Column[Any]:
    """Return the usual primary key: a random UUID, made by the database when we made none."""
    return sa.Column(sa.Uuid(), primary_key=True, server_default=sa.text("gen_random_uuid()"))


def reference(target: str, *, nullable: bool = False, **options: Any) -> sa.Column[Any]:
    """Return a UUID foreign key to `table.column`."""
    return sa.Column(sa.Uuid(), sa.ForeignKey(target, **options), nullable=nullable)


def text(*, nullable: bool = True, default: str | None = None, **options: Any) -> sa.Column[Any]:
    server_default = sa.text(f"'{default}'") if default is not None else None
    return sa.Column(
        sa.Text(), nullable=nullable and default is None, server_default=server_default, **options
    )


def whole(
    *, big: bool = False, nullable: bool = False, default: int | None = None
) -> sa.Column[Any]:
    """Return an INT or BIGINT column."""
    kind = sa.BigInteger() if big else sa.Integer()
    server_default = sa.text(str(default)) if default is not None else None
    return sa.Column(kind, nullable=nullable, server_default=server_default)


def flag(*, default: bool = False) -> sa.Column[Any]:
    return sa.Column(sa.Boolean(), nullable=False, server_default=sa.text(str(default).lower()))


def document(*, nullable: bool = False, default: str | None = None) -> sa.Column[Any]:
    """Return a JSONB column; `default` is JSON text."""
    server_default = sa.text(f"'{default}'") if default is not None else None
    return sa.Column(postgresql.JSONB(), nullable=nullable, server_default=server_default)


def blob(*, nullable: bool = True, **options: Any) -> sa.Column[Any]:
    return sa.Column(sa.LargeBinary(), nullable=nullable, **options)


def enum_type(enum: type[StrEnum], name: str) -> postgresql.ENUM:
    """Return the PostgreSQL enum whose labels are the values of `enum`; migrations create it."""
    return postgresql.ENUM(
        enum,
        name=name,
        values_callable=lambda kinds: [kind.value for kind in kinds],
        create_type=False,
    )


def enum_column(
    enum: type[StrEnum], name: str, *, default: StrEnum | None = None, nullable: bool = False
) -> sa.Column[Any]:
    server_default = sa.text(f"'{default.value}'::{name}") if default is not None else None
    return sa.Column(enum_type(enum, name), nullable=nullable, server_default=server_default)
