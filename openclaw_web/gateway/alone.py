"""`python -m openclaw_web proxy`: the token proxy in processes of its own, without pages."""

import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable

import uvicorn
from uvicorn.supervisors import Multiprocess

from openclaw_web.core import collecting, database
from openclaw_web.core.errors import OpenClawError
from openclaw_web.core.logs import configure_logs
from openclaw_web.core.settings import settings
from openclaw_web.gateway import upstreams
from openclaw_web.gateway.calls import Receive, Scope, Send
from openclaw_web.gateway.proxy import proxy
from openclaw_web.integrations import redis

APP = "openclaw_web.gateway.alone:app"
BACKLOG = 2_048
KEEP_ALIVE_SECONDS = 75
STOP_SECONDS = 25


def app(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
    """Hand requests to the proxy; not a coroutine of its own, which each request would pay for."""
    return proxy(scope, receive, send) if scope["type"] == "http" else _live(receive, send)


def serve_alone(*, host: str | None = None, port: int | None = None, workers: int = 1) -> None:
    """Serve until the process is asked to end; open answers are finished first.

    Each worker is a process with a spool of its own; one that dies is replaced.

    On one port for the world, and on another that only boxes reach: `gateway.origin` asks on which
    of them a request came in.
    """
    upstreams.load(settings())  # what is wrong with them is said before a port is taken
    ports = [port or settings().port, settings().proxy_internal_port]
    sockets = [_listen(host or settings().host, one) for one in ports if one]
    config = uvicorn.Config(
        APP,
        interface="asgi3",
        workers=workers,
        http="httptools",
        lifespan="on",
        proxy_headers=False,  # who calls is decided by the socket, not by a header
        server_header=False,
        access_log=False,
        log_config=None,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    if workers > 1:
        Multiprocess(config, sockets).run()
        return
    server = uvicorn.Server(config)
    server.run(sockets=sockets)
    if not server.started:
        sys.exit(1)


async def _live(receive: Receive, send: Send) -> None:
    """Open what the web process opens otherwise, and close it at the end."""
    await receive()
    configure_logs(settings().log_level)
    _end_with_parent()
    database.open_database(settings().database_url)
    redis.open_redis(settings().redis_url)
    await proxy.start()
    collecting.leave_start_alone()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await proxy.stop()
    await redis.close_redis()
    await database.close_database()
    await send({"type": "lifespan.shutdown.complete"})


def _end_with_parent() -> None:
    """Let a worker end when whoever started it was killed: nobody else would tell it to."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="watch the parent").start()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OpenClawError(f"Port {port} of {host} cannot be had: {error.strerror}.") from error
