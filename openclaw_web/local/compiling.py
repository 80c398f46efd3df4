"""`python -m openclaw_web compile`: make machine code of what a completion runs through.

It needs a C compiler, and the packages of requirements-compile.txt.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from openclaw_web.core import compiled
from openclaw_web.core.errors import OpenClawError

GROUP = "openclaw_web_compiled"
OPTIMISATION = "2"
LAST_LINES = 20
MISSING = "Compiling needs more packages: pip install -r requirements-compile.txt"
FAILED = (
    "The token proxy could not be compiled, and goes on as it is written. Is there a C compiler "
    "with Python's headers (Debian: apt install gcc python3-dev)? It was said:\n"
)


def compile_modules() -> int:
    """Replace what was compiled before; return how many modules it is now. Two minutes.

    Raises:
        OpenClawError: the packages or the compiler are missing, or what was made does not run.
    """
    if importlib.util.find_spec("mypyc") is None or importlib.util.find_spec("setuptools") is None:
        raise OpenClawError(MISSING)
    folder, made_of = compiled.FOLDER, compiled.sources()  # of now: somebody may go on editing
    with tempfile.TemporaryDirectory(prefix="openclaw-compile-") as work:
        made = Path(work) / "made"
        _python(["-m", "openclaw_web.local.compiling", str(Path(work) / "work"), str(made)])
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(made, folder)
        (folder / compiled.MARK).write_text(made_of)  # last: until then nobody uses it
    try:
        _python(["-c", "import openclaw_web.gateway.proxy"], switch=compiled.REQUIRED)
    except OpenClawError:
        shutil.rmtree(folder)
        raise
    return len(compiled.MODULES)


def build(work: str, made: str) -> None:
    """Compile into `made`; the working folder is the project's, as modules are named by files."""
    from mypyc.build import mypycify  # noqa: PLC0415 - only who compiles has it
    from setuptools import Distribution  # noqa: PLC0415
    from setuptools.command.build_ext import build_ext  # noqa: PLC0415

    extensions = mypycify(
        ["--follow-imports=silent", *(f"{name.replace('.', '/')}.py" for name in compiled.MODULES)],
        opt_level=OPTIMISATION,
        debug_level="0",
        group_name=GROUP,
        target_dir=work,
    )
    command = build_ext(Distribution({"ext_modules": extensions}))
    command.build_temp, command.build_lib = work, made
    command.ensure_finalized()
    command.run()


def _python(words: Sequence[str], *, switch: str = compiled.OFF) -> None:
    """Run Python in the project's folder; what it says is shown only if it fails."""
    ran = subprocess.run(
        [sys.executable, *words],
        cwd=compiled.PACKAGE.parent,
        env={**os.environ, compiled.SWITCH: switch},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise OpenClawError(FAILED + "\n".join(ran.stdout.splitlines()[-LAST_LINES:]))


if __name__ == "__main__":
    build(*sys.argv[1:])
