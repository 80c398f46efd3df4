"""The two ports of a proxy in production: one for the world, one for boxes."""

import asyncio
import contextlib
import os
import sys
from pathlib import Path

import httpx
import pytest

from openclaw_web.boxes import queries
from openclaw_web.boxes.memory import addresses, backups, keeper
from openclaw_web.boxes.models import BoxBackup
from openclaw_web.local import ports
from openclaw_web.metering import service as metering
from openclaw_web.metering.models import TokenKind
from tests.factories import make_box, make_period, make_subscription

SIZE = 4_000_000  # many times what goes through at once
PROJECT = Path(__file__).parents[2]
PRODUCTION = {
    "OPENCLAW_CLOUD_ENV": "production",
    "PUBLIC_URL": "https://cloud.example",
    "STRIPE_SECRET_KEY": "sk_test_x",
    "STRIPE_WEBHOOK_SECRET": "whsec_x",
    "KIMI_API_KEY": "k",
    "SMTP_URL": "smtps://mail.example",
    "MAIL_FROM": "OpenClaw Cloud <hello@cloud.example>",
    "KEEPER_IMAGE": "ghcr.io/example/openclaw-cloud:1",
    "BOX_PROXY_URL": "http://proxy.openclaw.svc:3001/proxy/v1",
    "BOX_RUNTIME_CLASS": "gvisor",
}


@pytest.fixture
async def listeners(database, valkey_server, tmp_path):
    """Run a proxy as in production, and return the addresses of its public and its inside port."""
    public, inside = ports.free_port(), ports.free_port()
    environment = {
        **os.environ,
        **PRODUCTION,
        "OPENCLAW_CLOUD_HOME": str(tmp_path),
        "DATABASE_URL": database,
        "REDIS_URL": valkey_server.url,
        "BACKUP_URL": f"file://{tmp_path}/store",
        "PORT": str(public),
        "PROXY_INTERNAL_PORT": str(inside),
    }
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "openclaw_web", "proxy"),
            env=environment,
            cwd=PROJECT,
            stderr=log,
        )
    addresses = [f"http://127.0.0.1:{port}/proxy/v1/key" for port in (public, inside)]
    async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(60):
        for address in addresses:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    await client.get(address)
                    break
                assert process.returncode is None, (tmp_path / "log").read_text()
                await asyncio.sleep(0.05)
    yield addresses
    if process.returncode is None:
        process.terminate()
    await process.wait()


async def test_a_boxs_token_is_taken_on_the_inside_port_only(listeners, session):
    subscription = await make_subscription(session)
    await make_period(session, subscription=subscription)
    box = await make_box(session, subscription=subscription, api_access=True)
    issued = {
        kind: await metering.issue_token(
            session, customer_id=box.customer_id, box_id=box.id, kind=kind
        )
        for kind in TokenKind
    }
    await session.commit()
    public, inside = listeners
    forged = {"x-forwarded-for": "127.0.0.1", "forwarded": "for=127.0.0.1", "host": "127.0.0.1"}
    async with httpx.AsyncClient(trust_env=False) as client:

        async def status(address, kind, **headers):
            bearer = {"authorization": f"Bearer {issued[kind].clear}"}
            return (await client.get(address, headers=bearer | headers)).status_code

        assert await status(public, TokenKind.BOX) == 403
        assert await status(public, TokenKind.BOX, **forged) == 403
        assert await status(inside, TokenKind.BOX) == 200
        assert await status(inside, TokenKind.BOX, **forged) == 403
        assert await status(public, TokenKind.API) == 200
        assert await status(inside, TokenKind.API) == 200


async def test_a_keeper_carries_a_memory_out_and_back_on_the_inside_port_only(
    listeners, session, tmp_path
):
    box = await make_box(session)
    volume, back = tmp_path / "volume", tmp_path / "back"
    (volume / "state").mkdir(parents=True)
    back.mkdir()
    (volume / "state" / "large").write_bytes(os.urandom(SIZE))
    (volume / "state" / "link").symlink_to("large")
    (back / "old").write_text("what was there before", encoding="ascii")
    ticket = await backups.begin_save(session, box, backups.Reason.MANUAL, most=2 * SIZE)
    await session.commit()
    public, inside = (one.removesuffix("/proxy/v1/key") for one in listeners)
    code, said = await keep(ticket, public, volume)
    assert (code, "404" in said) == (3, True)
    assert await keep(ticket, inside, volume) == (0, "keeper: save is done\n")
    backup = await session.get_one(BoxBackup, ticket.backup_id, populate_existing=True)
    assert (backup.size_bytes or 0) > SIZE
    locked = await queries.get_any_box(session, box.id, lock=True)
    backups.mark_restore(locked, backup)
    ticket = await backups.begin_restore(session, locked)
    await session.commit()
    assert ticket is not None
    assert await keep(ticket, inside, back) == (0, "keeper: restore is done\n")
    assert [one.name for one in back.iterdir()] == ["state"]
    large = (back / "state" / "large").read_bytes()
    assert large == (volume / "state" / "large").read_bytes()
    assert (back / "state" / "link").readlink() == Path("large")


async def keep(ticket, address, folder):
    """Run the keeper's program as its pod does; return its exit code and what it said."""
    environment = {
        "KEEPER_ACT": ticket.way.value,
        "KEEPER_FOLDER": str(folder),
        "KEEPER_URL": f"{address}{addresses.PATH}{ticket.backup_id}",
        "KEEPER_TOKEN": ticket.token,
        "KEEPER_MARK": ticket.mark,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", keeper.__file__),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()
