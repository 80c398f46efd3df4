"""Start simulators as real processes on free ports, for the contract tests."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).parents[2]
TOKEN = "control-token-of-a-test"  # noqa: S105 - opens a simulator on this machine for one test
PUBLIC_URL = "http://localhost:3000/dev/page"
START_SECONDS = 90  # on a machine that does much else; it takes one on a quiet one
STEP_SECONDS = 0.02


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def eventually(found: Callable[[], Any], seconds: float = 30) -> Any:
    """Return the first true answer; asks again until the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        answer = found()
        if answer:
            return answer
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(STEP_SECONDS)


class Simulator:
    """One simulator process; it can be stopped and started again on the same state."""

    def __init__(self, module: str, folder: Path, *arguments: str) -> None:
        self.port = free_port()
        self._folder = folder
        self._module = module
        self._arguments = arguments
        self._log = folder / "log"
        folder.mkdir(parents=True, exist_ok=True)
        secret_file(folder / "token", TOKEN)
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(
            base_url=self.url, headers={"x-simulator-token": TOKEN}, trust_env=False, timeout=30
        )
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-m", f"simulators.{self._module}", "--port", str(self.port)]
        command += ["--state", str(self._folder / "state"), "--public-url", PUBLIC_URL]
        command += ["--token-file", str(self._folder / "token"), *self._arguments]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own module
                command, cwd=ROOT, stdout=log, stderr=log
            )
        try:
            eventually(lambda: answers(self.url) or self.process.poll() is not None, START_SECONDS)
        except BaseException:
            self.process.kill()  # nobody else would: the fixture has nothing to close yet
            raise
        assert self.process.poll() is None, self._log.read_text()

    def restart(self, number: int = signal.SIGTERM) -> None:
        self.stop(number)
        self._start()

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(timeout=30)

    def close(self) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.stop()

    def rss_megabytes(self) -> float:
        return rss_megabytes(self.process.pid)


@contextlib.contextmanager
def running(module: str, folder: Path, *arguments: str) -> Generator[Simulator]:
    simulator = Simulator(module, folder, *arguments)
    try:
        yield simulator
    finally:
        simulator.close()


def rss_megabytes(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / 1024**2


def answers(url: str) -> bool:
    try:
        httpx.get(url, trust_env=False, timeout=5)
    except httpx.TransportError:
        return False
    return True


def secret_file(path: Path, value: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(value, encoding="utf-8")
    return path


def clean_environment(**more: str) -> dict[str, str]:
    """Return the little of our environment that a pod would have, and what the test adds."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {"PYTHONPATH": str(ROOT)} | more
