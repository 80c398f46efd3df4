"""`python -m tests.browser_setup`: see to it that there is a Chromium for the browser tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
PLAYWRIGHTS = ("~/.cache/ms-playwright", "~/Library/Caches/ms-playwright")
PROGRAMS = ("chrome-linux*/chrome", "chrome-mac*/*.app/Contents/MacOS/*")
INSTALL_SECONDS = 300
MISSING = (
    "There is no Chromium, and it could not be installed, so the browser tests are skipped; "
    "install one (Debian: apt install chromium) or name it: CHROMIUM=/path/to/chromium make test"
)


def find_chromium() -> str | None:
    """Return the program of the Chromium to use: the one named, the system's, or Playwright's."""
    named = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if named:
        return named
    if MAC.exists():
        return str(MAC)
    folders = [Path(one).expanduser() for one in PLAYWRIGHTS]
    if chosen := os.environ.get("PLAYWRIGHT_BROWSERS_PATH"):
        folders.insert(0, Path(chosen))
    found = (
        path
        for folder in folders
        for program in PROGRAMS
        for path in sorted(folder.glob(f"chromium-*/{program}"), reverse=True)
    )
    return next((str(path) for path in found if os.access(path, os.X_OK)), None)


def main() -> int:
    """Install a Chromium where none is; only under CI is it an error when that fails."""
    for install in (None, _install_with_playwright, _install_with_apt):
        if install:
            install()
        if find_chromium():
            return 0
    sys.stderr.write(f"{MISSING}\n")
    return 1 if os.environ.get("CI") == "true" else 0


def _install_with_playwright() -> None:
    sys.stdout.write("Installing Chromium for the browser tests\n")
    _run(sys.executable, "-m", "playwright", "install", "chromium")


def _install_with_apt() -> None:
    if os.geteuid() == 0 and shutil.which("apt-get"):
        _run("apt-get", "update", "-q")
        _run("apt-get", "install", "-y", "-q", "--no-install-recommends", "chromium")


def _run(*words: str) -> None:
    """Run an installer; whether it worked is seen by looking for the program."""
    try:
        subprocess.run(words, check=False, timeout=INSTALL_SECONDS)  # noqa: S603 - ours
    except (OSError, subprocess.TimeoutExpired) as error:
        sys.stderr.write(f"{error}\n")


if __name__ == "__main__":
    sys.exit(main())
