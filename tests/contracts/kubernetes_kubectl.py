"""kubectl as the contract tests run it: which ones are there, and how to ask one."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

OLDEST_MINOR = 29  # older ones ask for OpenAPI version 2, which is not offered
LONGEST_SECONDS = 60
_NAMED = re.compile(r"kubectl\.1\.(\d+)")


def kubectls() -> list[Path]:
    """Return the one to use first, then others from newest to oldest.

    Others stand beside it under names such as `kubectl.1.29`, or in the interpreter's own folder,
    where a wheel puts it.
    """
    first = shutil.which("kubectl")
    wheel = Path(sys.prefix) / "bin" / "kubectl"
    found = [Path(first)] if first else []
    if wheel.exists() and wheel not in found:
        found.append(wheel)
    versions: dict[int, Path] = {}
    for one in found:
        for path in one.resolve().parent.glob("kubectl.1.*"):
            if match := _NAMED.fullmatch(path.name):
                versions[int(match[1])] = path
    others = [path for minor, path in sorted(versions.items()) if minor >= OLDEST_MINOR]
    return [*found, *reversed(others)]


@dataclass(frozen=True)
class Kubectl:
    """One kubectl in one namespace."""

    program: Path
    kubeconfig: Path
    namespace: str
    home: Path

    def __call__(self, *arguments: str, stdin: str = "", expect: int = 0) -> str:
        """Run a command and return all that it says."""
        done = subprocess.run(  # noqa: S603 - kubectl itself, with the test's own arguments
            self._command(arguments),
            input=stdin,
            capture_output=True,
            text=True,
            env=self._environment,
            timeout=LONGEST_SECONDS,
            check=False,
        )
        assert done.returncode == expect, done.stderr
        return done.stdout + done.stderr

    @contextlib.contextmanager
    def running(self, *arguments: str) -> Generator[IO[str]]:
        """Run a command that says something again and again; yield what it says.

        It has to end by itself, and well; one that says nothing more is ended.
        """
        with subprocess.Popen(  # noqa: S603 - as above
            self._command(arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment,
        ) as process:
            deadline = threading.Timer(LONGEST_SECONDS, process.kill)
            deadline.start()
            try:
                assert process.stdout is not None
                yield process.stdout
                assert process.wait(LONGEST_SECONDS) == 0
            finally:
                deadline.cancel()
                process.kill()

    def _command(self, arguments: Iterable[str]) -> list[str]:
        where = ("--kubeconfig", str(self.kubeconfig), "-n", self.namespace)
        return [str(self.program), *where, *arguments]

    @property
    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.home)}
