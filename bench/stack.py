"""The servers of one run: PostgreSQL, Valkey, the fake provider, and our own processes."""

import base64
import contextlib
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench import machine
from openclaw_web.core import migrations
from openclaw_web.local import children, frontend, places, ports, postgres, valkey
from openclaw_web.local.children import Child, Command
from openclaw_web.local.postgres import Postgres
from openclaw_web.local.valkey import Valkey

PROJECT = places.PROJECT
HOME = "OPENCLAW_CLOUD_HOME"
DEFAULT_HOME = PROJECT / ".openclaw-cloud-bench"  # keeps the built pages from run to run
DATABASE = "bench"
WEB_PORT = 3990  # fixed, since it is baked into the pages; only their building depends on it
READY_SECONDS = 60.0
END_SECONDS = 30.0
UPSTREAM_KEY = "sk-bench-upstream"
SECRET_KEY = base64.b64encode(secrets.token_bytes(32)).decode()  # our own settings read it once
NEVER_INHERITED = ("DEV_SERVICES", "PUBLIC_URL", "OPENCLAW_CLOUD_ENV", "HOST")


@dataclass
class Server:
    """One running server: where it answers, and its processes."""

    name: str
    url: str
    child: Child
    command: Command
    log: Path

    @property
    def process(self) -> psutil.Process:
        """Return the server itself, below the guardian that started it."""
        return psutil.Process(self.child.pid).children()[0]

    def processes(self) -> list[psutil.Process]:
        """Return the server and all that it started, without the guardian."""
        try:
            return psutil.Process(self.child.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def signal(self, number: int) -> None:
        """Send a signal to the server and all that it started."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut does: no handler runs."""
        self.signal(signal.SIGKILL)
        self.child.end(END_SECONDS)

    def stop(self) -> None:
        self.child.end(END_SECONDS)

    def start_again(self) -> None:
        self.child = children.start(self.command, log=self.log)
        machine.take_along(self.child.pid)


@dataclass
class Stack:
    """What every run needs; `servers` holds all that was started, by name."""

    folder: Path
    home: Path
    database: Postgres
    redis: Valkey
    upstream_port: int
    servers: dict[str, Server] = field(default_factory=dict)

    @property
    def database_url(self) -> str:
        return self.database.url(DATABASE)

    @property
    def upstream_url(self) -> str:
        return f"http://{ports.LOOPBACK}:{self.upstream_port}"

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a process of ours."""
        kept = {name: value for name, value in os.environ.items() if name not in NEVER_INHERITED}
        return kept | {
            HOME: str(self.home),
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis.url,
            "SECRET_KEY": SECRET_KEY,
            "UPSTREAM_URL": f"{self.upstream_url}/v1",
            "KIMI_API_KEY": UPSTREAM_KEY,
            "LOG_LEVEL": "WARNING",
            "MALLOC_ARENA_MAX": "2",  # as the image and the laptop's stack set it
            **more,
        }

    def run(self, name: str, url: str, command: Command) -> Server:
        """Start a server behind a guardian: it cannot outlive this process."""
        log = self.folder / f"{name}.log"
        server = Server(name, url, children.start(command, log=log), command, log)
        machine.take_along(server.child.pid)
        self.servers[name] = server
        return server

    def start_upstream(self, name: str = "upstream", port: int = 0) -> Server:
        """Start a fake provider; each counts for itself."""
        port = port or ports.free_port()
        words = [sys.executable, "-m", "bench.upstream", "--port", str(port)]
        made = self.run(name, f"http://{ports.LOOPBACK}:{port}", Command(words=words))
        wait_until_answers(f"{made.url}/__stats", made)
        return made

    def start_proxy(self, name: str = "alone", module: str = "openclaw_web", **more: str) -> Server:
        """Start `python -m openclaw_web proxy`, the token proxy alone."""
        return self._start_ours(name, "proxy", ports.free_port(), module=module, **more)

    def start_web(self, **more: str) -> Server:
        """Start `python -m openclaw_web web`, the pages with the proxy before them."""
        pages = self.home / "web"
        if not frontend.is_fresh(pages, frontend.build_key(WEB_PORT)):
            sys.stderr.write("Building the pages for the web process (about a minute)\n")
            os.environ[HOME] = str(self.home)
            frontend.build(pages, WEB_PORT)
        port = WEB_PORT if ports.is_free(WEB_PORT) else ports.free_port()
        return self._start_ours("mounted", "web", port, **more)

    def start_worker(self, **more: str) -> Server:
        """Start `python -m openclaw_web worker`, which answers nobody."""
        words = [sys.executable, "-m", "openclaw_web", "worker"]
        command = Command(words=words, environment=self.environment(**more))
        return self.run("worker", "", command)

    def start_stripe(self, key: str) -> Server:
        """Start the simulator of Stripe."""
        port, folder = ports.free_port(), self.folder / "stripe"
        folder.mkdir()
        words = [sys.executable, "-m", "simulators.stripe", "--port", str(port)]
        for name, value in (("key", key), ("token", secrets.token_hex(16))):
            places.write_secret(folder / name, value)
            words += [f"--{name}-file", str(folder / name)]
        url = f"http://{ports.LOOPBACK}:{port}"
        words += ["--state", str(folder / "state"), "--public-url", url]
        made = self.run("stripe", url, Command(words=words))
        deadline = time.monotonic() + READY_SECONDS
        while not ports.answers(port):
            if time.monotonic() > deadline:
                raise RuntimeError(f"Stripe's simulator does not answer at {url}")
            time.sleep(0.05)
        return made

    def stop_all(self) -> None:
        for server in reversed(self.servers.values()):
            server.signal(signal.SIGCONT)
            server.stop()

    def _start_ours(
        self, name: str, command: str, port: int, *, module: str = "openclaw_web", **more: str
    ) -> Server:
        words = [sys.executable, "-m", module, command]
        url = f"http://{ports.LOOPBACK}:{port}"
        environment = self.environment(PORT=str(port), **more)
        made = self.run(name, f"{url}/proxy", Command(words=words, environment=environment))
        wait_until_answers(f"{url}/proxy/healthz", made)
        return made


@contextlib.contextmanager
def stack(home: Path | None = None, *, upstream_port: int = 0) -> Generator[Stack]:
    """Run PostgreSQL (durable, as in production), Valkey and the fake provider, then tidy up."""
    folder = Path(tempfile.mkdtemp(prefix="openclaw-cloud-bench-"))
    folder.chmod(places.PASSABLE)
    home = home or Path(os.environ.get(HOME) or DEFAULT_HOME)
    home.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(home / "spool", ignore_errors=True)  # what an interrupted run left
    made = Stack(
        folder=folder,
        home=home.resolve(),
        database=_postgres(folder),
        redis=_valkey(folder),
        upstream_port=upstream_port or ports.free_port(),
    )
    try:
        _start_servers(made)
        yield made
    finally:
        made.stop_all()
        shutil.rmtree(folder, ignore_errors=True)


def wait_until_answers(url: str, server: Server) -> None:
    """Wait until a server answers.

    Raises:
        RuntimeError: it ended, or does not answer in time; the text has the end of its log.
    """
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and server.child.exit_code() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own address
                return
        except OSError:
            time.sleep(0.05)
    last = server.log.read_text(encoding="utf-8", errors="replace")[-2_000:]
    raise RuntimeError(f"{server.name} does not answer at {url}:\n{last}")


def _postgres(folder: Path) -> Postgres:
    return Postgres(
        folder=folder / "postgres",
        port=ports.free_port(),
        password=secrets.token_hex(16),
        identity=places.unprivileged_identity(),
    )


def _valkey(folder: Path) -> Valkey:
    return Valkey(folder=folder / "valkey", port=ports.free_port(), password=secrets.token_hex(16))


def _start_servers(made: Stack) -> None:
    postgres.prepare(made.database)
    valkey.prepare(made.redis)
    made.run("postgres", "", postgres.command(made.database))
    made.run("valkey", "", valkey.command(made.redis))
    postgres.wait_until_ready(made.database)
    valkey.wait_until_ready(made.redis)
    made.start_upstream(port=made.upstream_port)
    migrations.ensure_database(made.database_url)
    migrations.migrate(made.database_url)
