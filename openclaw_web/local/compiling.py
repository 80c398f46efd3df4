"""`python -m openclaw_web compile`: make machine code of what a completion runs through.

It needs a C compiler, and the packages of requirements-compile.txt.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from openclaw_web.core import compiled
from openclaw_web.core.errors import OpenClawError

GROUP = "openclaw_web_compiled"
OPTIMISATION = "2"
MISSING = "Compiling needs more packages: pip install -r requirements-compile.txt"
NO_COMPILER = "The C compiler failed; is there one, with Python's headers? It said: "
TRIAL = "import openclaw_web.gateway.proxy"


def compile_modules(folder: Path = compiled.FOLDER) -> int:
    """Replace what was compiled before; return how many modules it is.

    Raises:
        OpenClawError: the packages or the compiler are missing, or what was made does not run.
    """
    root = compiled.PACKAGE.parent
    sources = [f"{name.replace('.', os.sep)}.py" for name in compiled.MODULES]
    with tempfile.TemporaryDirectory(prefix="openclaw-compile-") as made_in:
        made = Path(made_in) / "made"
        _build(root, sources, Path(made_in) / "work", made)
        (made / compiled.MARK).write_text(compiled.sources())
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(made, folder)
    _try(root)
    return len(sources)


def _build(root: Path, sources: list[str], work: Path, made: Path) -> None:
    try:
        from mypyc.build import mypycify  # noqa: PLC0415 - only who compiles has it
        from setuptools import Distribution  # noqa: PLC0415
        from setuptools.command.build_ext import build_ext  # noqa: PLC0415
        from setuptools.errors import BaseError, CCompilerError  # noqa: PLC0415
    except ImportError as error:
        raise OpenClawError(MISSING) from error
    before = Path.cwd()
    os.chdir(root)  # mypyc names modules by their files
    try:
        extensions = mypycify(
            ["--follow-imports=silent", *sources],
            opt_level=OPTIMISATION,
            debug_level="0",
            group_name=GROUP,
            target_dir=str(work),
        )
        command = build_ext(Distribution({"ext_modules": extensions}))
        command.build_temp, command.build_lib = str(work), str(made)
        command.ensure_finalized()
        command.run()
    except (BaseError, CCompilerError) as error:
        raise OpenClawError(f"{NO_COMPILER}{error}") from error
    finally:
        os.chdir(before)


def _try(root: Path) -> None:
    """Load what was made, in a process of its own."""
    tried = subprocess.run(
        [sys.executable, "-c", TRIAL],
        cwd=root,
        env={**os.environ, compiled.SWITCH: compiled.REQUIRED},
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        raise OpenClawError(f"What was compiled does not load: {tried.stderr.strip()}")
