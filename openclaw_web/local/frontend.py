"""Build the browser's part once, and again only when something that it is made of changed."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from openclaw_web.core.errors import OpenClawError
from openclaw_web.local.places import PROJECT

STAMP = "openclaw-build-key"
SOURCES = ("rxconfig.py", "requirements.txt")
FOLDERS = (("openclaw_web", "*.py"), ("assets", "*"), ("reflex.lock", "*"))
EXPORT = ("export", "--frontend-only", "--no-zip", "--env", "prod")
NPM_TIMEOUT_SECONDS = 10


class BuildError(OpenClawError):
    """The browser's part could not be built; the text says what to do."""


def build_key(port: int) -> str:
    """Return a hash of all that the pages are made of; the port is baked into them."""
    digest = hashlib.sha256(f"{port}\0{sys.version_info[:2]}".encode())
    for path in _sources():
        digest.update(f"\0{path.relative_to(PROJECT)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_fresh(web: Path, key: str) -> bool:
    """Say whether this folder holds the pages of this key."""
    try:
        return (web / STAMP).read_text(encoding="utf-8") == key
    except OSError:
        return False


def build(web: Path, port: int) -> None:
    """Build the pages into this folder; what the compiler says goes to our own output.

    Raises:
        BuildError: the compiler failed.
    """
    key = build_key(port)
    (web / STAMP).unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "reflex", *EXPORT],
        check=False,
        cwd=PROJECT,
        env=build_environment(os.environ, web, port),
    )
    if done.returncode:
        raise BuildError(
            "The pages could not be built; the lines above say why. (Without network the first "
            "build cannot fetch its packages: connect, or name one in NPM_CONFIG_REGISTRY.)"
        )
    (web / STAMP).write_text(key, encoding="utf-8")


def build_environment(environment: Mapping[str, str], web: Path, port: int) -> dict[str, str]:
    """Return the compiler's environment: our folders, our bun, this machine's npm registry."""
    chosen = {
        **environment,
        **reflex_environment(web),
        "PORT": str(port),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), environment.get("PATH", ""))),
        "__REFLEX_SKIP_COMPILE": "",
    }
    if registry := npm_registry(environment):
        chosen["NPM_CONFIG_REGISTRY"] = registry
    return {name: value for name, value in chosen.items() if value}


def reflex_environment(web: Path) -> dict[str, str]:
    """Return what Reflex needs to know while building and while serving."""
    return {
        "REFLEX_WEB_WORKDIR": str(web),
        "REFLEX_DIR": str(web.parent / "reflex"),
        "REFLEX_STATES_WORKDIR": str(web.parent / "states"),
        "REFLEX_CHECK_LATEST_VERSION": "false",
        "REFLEX_TELEMETRY_ENABLED": "false",
        "REFLEX_ENV_MODE": "prod",
    }


def npm_registry(environment: Mapping[str, str]) -> str:
    """Return this machine's npm registry, or nothing: then Reflex chooses."""
    for name in ("NPM_CONFIG_REGISTRY", "npm_config_registry"):
        if environment.get(name):
            return environment[name]
    npm = shutil.which("npm")
    if npm is None:
        return _registry_of_npmrc(Path.home() / ".npmrc")
    asked = subprocess.run(
        [npm, "config", "get", "registry"],
        check=False,
        capture_output=True,
        text=True,
        timeout=NPM_TIMEOUT_SECONDS,
    )
    answer = asked.stdout.strip()
    return answer if answer.startswith("http") else ""


def _registry_of_npmrc(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    for line in lines:
        name, _, value = line.partition("=")
        if name.strip() == "registry":
            return value.strip()
    return ""


def _sources() -> Iterator[Path]:
    yield from (PROJECT / name for name in SOURCES if (PROJECT / name).is_file())
    for folder, pattern in FOLDERS:
        yield from sorted(
            path
            for path in (PROJECT / folder).rglob(pattern)
            if path.is_file() and not path.name.startswith(".")
        )
