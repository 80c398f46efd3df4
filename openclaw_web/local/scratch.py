"""A PostgreSQL for one moment: nothing of it is left."""

import secrets
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from openclaw_web.core import migrations
from openclaw_web.local import children, places, ports, postgres
from openclaw_web.local.postgres import Postgres

END_SECONDS = 10.0
DATABASE = "scratch"


@contextmanager
def postgres_server(folder: Path) -> Generator[Postgres]:
    """Run a PostgreSQL without fsync in this folder, which its user must be able to reach."""
    folder.chmod(places.PASSABLE)
    server = Postgres(
        folder=folder / "postgres",
        port=ports.free_port(),
        password=secrets.token_hex(16),
        identity=places.unprivileged_identity(),
        is_durable=False,
    )
    postgres.prepare(server)
    child = children.start(postgres.command(server), log=folder / "postgres.log")
    try:
        postgres.wait_until_ready(server)
        yield server
    finally:
        child.end(END_SECONDS)


def schema_drift() -> str | None:
    """Return how the migrations' outcome differs from our tables, or `None`."""
    with (
        tempfile.TemporaryDirectory(prefix="openclaw-cloud-scratch-") as folder,
        postgres_server(Path(folder)) as server,
    ):
        url = server.url(DATABASE)
        migrations.ensure_database(url)
        migrations.migrate(url)
        return migrations.drift(url)
