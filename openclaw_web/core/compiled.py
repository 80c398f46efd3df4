"""The compiled token proxy: the same modules as machine code, if they were made of these sources.

`python -m openclaw_web compile` makes them with mypyc. Nothing needs them: without a compiler, or
after any change to a source, the modules run as they are written, only slower.
"""

import hashlib
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from pathlib import Path
from types import ModuleType

SWITCH = "OPENCLAW_CLOUD_COMPILED"
OFF, REQUIRED = "off", "required"

PACKAGE = Path(__file__).parent.parent
FOLDER = PACKAGE.parent / ".compiled"
MARK = "made-of"  # the file that says of which sources
SUFFIX = EXTENSION_SUFFIXES[0]

# What a completion runs through. Classes in them may be subclassed in each other only, and what
# msgspec decodes into stays out (`gateway/shapes.py`): it reads annotations, which are not kept.
MODULES = (
    "openclaw_web.integrations.upstream.answer",
    "openclaw_web.integrations.upstream.connection",
    "openclaw_web.integrations.upstream.errors",
    "openclaw_web.integrations.upstream.pool",
    "openclaw_web.metering.limits",
    "openclaw_web.metering.meter",
    "openclaw_web.metering.meters",
    "openclaw_web.metering.spool",
    "openclaw_web.gateway.admission",
    "openclaw_web.gateway.breaker",
    "openclaw_web.gateway.callers",
    "openclaw_web.gateway.calls",
    "openclaw_web.gateway.completing",
    "openclaw_web.gateway.connection",
    "openclaw_web.gateway.credentials",
    "openclaw_web.gateway.direct",
    "openclaw_web.gateway.errors",
    "openclaw_web.gateway.exchange",
    "openclaw_web.gateway.front",
    "openclaw_web.gateway.guessing",
    "openclaw_web.gateway.heads",
    "openclaw_web.gateway.passing",
    "openclaw_web.gateway.patience",
    "openclaw_web.gateway.providers",
    "openclaw_web.gateway.routes",
    "openclaw_web.gateway.settling",
    "openclaw_web.gateway.statuses",
    "openclaw_web.gateway.streams",
    "openclaw_web.gateway.usage",
    "openclaw_web.gateway.wire",
)


class CompiledError(ImportError):
    """The compiled modules are required, and not there."""


class _Finder(MetaPathFinder):
    """Finds the compiled modules before their sources."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - importlib's
        target: ModuleType | None = None,  # noqa: ARG002 - importlib's
    ) -> ModuleSpec | None:
        file = self._files.get(fullname)
        if file is None:
            return None
        loader = ExtensionFileLoader(fullname, str(file))
        return importlib.util.spec_from_file_location(fullname, file, loader=loader)


def use(folder: Path = FOLDER) -> None:
    """Let imports find the compiled modules, if they are there and of these very sources.

    Raises:
        CompiledError: they are required, and not there.
    """
    wish = os.environ.get(SWITCH, "")
    if wish == OFF:
        return
    reason = _unfit(folder)
    if reason is None:
        sys.meta_path.insert(0, _Finder(files_in(folder)))
    elif wish == REQUIRED:
        raise CompiledError(f"{reason} Run `python -m openclaw_web compile`, or unset {SWITCH}.")


def is_used() -> bool:
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)


def files_in(folder: Path) -> dict[str, Path]:
    """Return the modules of a folder, by name."""
    found = folder.rglob(f"*{SUFFIX}")
    return {
        str(file.relative_to(folder)).removesuffix(SUFFIX).replace(os.sep, "."): file
        for file in found
    }


@cache
def sources() -> str:
    """Return the fingerprint of the sources that this process runs."""
    return fingerprint()


def fingerprint() -> str:
    """Read all sources, and who can run what is made of them: about 20 ms."""
    found = hashlib.sha256(SUFFIX.encode())
    for file in sorted(PACKAGE.rglob("*.py")):
        found.update(str(file.relative_to(PACKAGE)).encode())
        found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()


def _unfit(folder: Path) -> str | None:
    try:
        made_of = (folder / MARK).read_text()
    except OSError:
        return "The token proxy is not compiled."
    return None if made_of == sources() else "The compiled token proxy is of other sources."
