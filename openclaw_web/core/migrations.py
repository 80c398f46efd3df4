"""Bring a database to the newest schema, or say what is missing."""

from argparse import Namespace
from pathlib import Path

import psycopg
from alembic.config import Config
from alembic.util import CommandError
from psycopg import sql

from alembic import command

INI = Path(__file__).resolve().parents[2] / "alembic.ini"
MAINTENANCE_DATABASE = "postgres"


def migrate(url: str) -> None:
    """Apply the migrations that this database has not seen; a second call finds nothing to do."""
    command.upgrade(_configuration(url), "head")


def revert(url: str) -> None:
    """Take all migrations back: every table of ours and its rows are gone."""
    command.downgrade(_configuration(url), "base")


def drift(url: str) -> str | None:
    """Return how the migrated database differs from our tables, or `None`."""
    try:
        command.check(_configuration(url))
    except CommandError as error:
        return str(error)
    return None


def ensure_database(url: str) -> None:
    """Create the database that the address names, on a server of our own, unless it is there."""
    base, _, name = url.rpartition("/")
    with psycopg.connect(f"{base}/{MAINTENANCE_DATABASE}", autocommit=True) as connection:
        known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
        if known.fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def _configuration(url: str) -> Config:
    return Config(str(INI), cmd_opts=Namespace(x=[f"url={url}"]))
