"""kubectl as the contract tests run it: which ones are there, and how to ask one."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

OLDEST_MINOR = 29  # older ones ask for OpenAPI version 2, which is not offered
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
        command = [str(self.program), "--kubeconfig", str(self.kubeconfig)]
        done = subprocess.run(  # noqa: S603 - kubectl itself, with the test's own arguments
            [*command, "-n", self.namespace, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home)},
            timeout=60,
            check=False,
        )
        assert done.returncode == expect, done.stderr
        return done.stdout + done.stderr
