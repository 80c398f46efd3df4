"""`python -m openclaw_web proxy`: the token proxy in processes of its own, without pages."""

import multiprocessing
import os
import signal
import socket
import sys
import threading

import uvicorn
from uvicorn.supervisors import Multiprocess

from openclaw_web.core.errors import OpenClawError
from openclaw_web.core.settings import settings
from openclaw_web.gateway import stopping, upstreams

APP = "openclaw_web.gateway.proxy:alone"
HTTP = "openclaw_web.gateway.proxy:HttpProtocol"
BACKLOG = 2_048
KEEP_ALIVE_SECONDS = 75
LAST_SECONDS = 0.3


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
        http=HTTP,
        ws="none",
        lifespan="on",
        proxy_headers=False,  # who calls is decided by the socket, not by a header
        server_header=False,
        access_log=False,
        log_config=None,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=stopping.PRODUCTION.streams,
    )
    if workers > 1:
        Multiprocess(config, sockets).run()
        return
    server = uvicorn.Server(config)
    server.run(sockets=sockets)
    if not server.started:
        sys.exit(1)


def end_with_parent() -> None:
    """Let a worker end when whoever started it was killed: nobody else would tell it to."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="watch the parent").start()


def end_now() -> None:
    """End in a moment, even if something still waits for a database that has fallen silent.

    asyncio would wait for it without a limit. Call it last: all that counts is in the spool.
    """
    last = threading.Timer(LAST_SECONDS, os._exit, [0])
    last.daemon = True
    last.start()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OpenClawError(f"Port {port} of {host} cannot be had: {error.strerror}.") from error
