"""Start the stand-in as a pod does: `python -m simulators.agent`, the rest in the environment.

OPENCLAW_CONFIG_PATH names the configuration, OPENCLAW_STATE_DIR the folder that survives restarts,
OPENCLAW_USER_MD an optional mounted USER.md. POD_IP and PORT_<port> say where to listen. Started
as root with RUN_AS_UID and RUN_AS_GID, it gives root up before it talks to anybody.
"""

import asyncio
import importlib
import logging
import os
import signal
import sys
from pathlib import Path

import httpx

from simulators import LOOPBACK
from simulators.agent.config import Config, ConfigError
from simulators.agent.health import Health, HealthServer
from simulators.agent.reload import LiveConfig
from simulators.agent.telegram import PART, Spool, TelegramChannel, TelegramClient
from simulators.agent.turns import Assistant

EXIT_CONFIG = 78  # EX_CONFIG, as OpenClaw exits
DRAIN_SECONDS = 5.0
DEFAULT_STATE = "~/.openclaw"
# Imported by httpx at its first request; the new user may not be able to read our files.
IMPORTED_LATE = ("encodings.idna", "anyio._backends._asyncio", "httpcore._backends.anyio")
log = logging.getLogger("agent")


def main() -> int:
    logging.basicConfig(
        stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs addresses, which hold the token
    for name in IMPORTED_LATE:
        importlib.import_module(name)
    http = httpx.AsyncClient(trust_env=False)
    _give_up_root()
    state = Path(os.environ.get("OPENCLAW_STATE_DIR", DEFAULT_STATE)).expanduser()
    config_path = Path(os.environ.get("OPENCLAW_CONFIG_PATH", state / "openclaw.json"))
    try:
        state.mkdir(parents=True, exist_ok=True)
        live = LiveConfig(config_path, os.environ)
    except ConfigError as error:
        for issue in error.issues:
            sys.stderr.write(f"Invalid config: {issue}\n")
        return EXIT_CONFIG
    except OSError as error:
        sys.stderr.write(f"Cannot use OPENCLAW_STATE_DIR {state}: {error.strerror}\n")
        return EXIT_CONFIG
    for warning in live.current.warnings:
        log.warning("config: %s", warning)
    asyncio.run(_run(http, live, state))
    return 0


async def _run(http: httpx.AsyncClient, live: LiveConfig, state: Path) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    health = Health()
    server = await _listen(health, live.current)
    spool = Spool(state)
    client = TelegramClient(http, live)
    user_file = os.environ.get("OPENCLAW_USER_MD")
    assistant = Assistant(
        http,
        live,
        client,
        spool,
        state=state,
        mounted_user_file=Path(user_file) if user_file else None,
    )
    loops = [asyncio.create_task(live.watch())]
    if live.current.telegram is None:
        health.phase = "started"
    else:
        health.fail(PART, "not connected yet")
        channel = TelegramChannel(client, health, spool, assistant.take)
        loops.append(asyncio.create_task(channel.run()))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([stopping, *loops], return_when=asyncio.FIRST_COMPLETED)
    for loop in loops:
        if loop.done():
            loop.result()  # a loop never ends by itself: show why it did
    await _drain(health, loops, assistant)
    server.close()
    await http.aclose()


async def _listen(health: Health, config: Config) -> asyncio.Server:
    host = os.environ.get("POD_IP", LOOPBACK)
    port = int(os.environ.get(f"PORT_{config.port}", config.port))
    server = await HealthServer(health, config.gateway_token).start(host, port)
    log.info("gateway listens on %s:%s", host, port)
    return server


async def _drain(health: Health, loops: list[asyncio.Task[None]], assistant: Assistant) -> None:
    health.phase = "draining"
    log.info("draining")
    for loop in loops:
        loop.cancel()
    await assistant.drain(DRAIN_SECONDS)
    log.info("stopped")


def _give_up_root() -> None:
    """Become the pod's user; what was imported so far came from files of ours."""
    uid, gid = os.environ.get("RUN_AS_UID"), os.environ.get("RUN_AS_GID")
    if uid is None or gid is None or os.geteuid() != 0:
        return
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))


if __name__ == "__main__":
    sys.exit(main())
