"""Which program a box of the embedded cluster runs: the stand-in, or the real OpenClaw."""

import json
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from openclaw_web.boxes.openclaw_config import PUT_USER_FILE
from openclaw_web.local import warm_openclaw
from openclaw_web.local.places import PROJECT, Places
from openclaw_web.local.real_openclaw import Installed, find_installed
from openclaw_web.local.warm_openclaw import Program

BOX_IMAGE = "openclaw-cloud/agent:local"
KEEPER_IMAGE = "openclaw-cloud/keeper:local"
KEEPER = PROJECT / "openclaw_web" / "boxes" / "memory" / "keeper.py"
AGENT_MODULE = "simulators.agent"
SANDBOX = PROJECT / "simulators" / "kubernetes" / "sandbox.py"
ADDRESS_MODULE = PROJECT / "simulators" / "kubernetes" / "pod_address.cjs"
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
# Without a sandbox its assistant must not get at the files and programs of whoever runs the stack.
DENIED_WITHOUT_SANDBOX = "group:runtime,group:fs"
TRY_SECONDS = 20
NO_SANDBOX = (
    "This machine offers no sandbox ({why}), so assistants may neither run programs nor touch "
    "files: exec and file tools are denied to them."
)


def write(places: Places) -> Path:
    """Write the list of images that the cluster may run, and return its path.

    A running cluster reads it anew, so the next pod that starts runs what it says.
    """
    path = places.home / "images.json"
    fresh = path.with_suffix(".new")
    known = {BOX_IMAGE: _box(places), KEEPER_IMAGE: _keeper()}
    fresh.write_text(json.dumps(known, indent=1), encoding="utf-8")
    fresh.replace(path)
    return path


def denied_tools(places: Places) -> str:
    """Return the tools that boxes here must not have, as the setting is written."""
    is_open = find_installed(places) is not None and sandbox_refusal()
    return DENIED_WITHOUT_SANDBOX if is_open else ""


def sentence(places: Places) -> str:
    """Say what new boxes run."""
    found = find_installed(places)
    if found is None:
        return "the stand-in (make openclaw installs the real OpenClaw)"
    how = "in a sandbox" if not sandbox_refusal() else "without a sandbox: exec and files denied"
    return f"OpenClaw {found.version}, {how}"


@cache
def sandbox_refusal() -> str:
    """Try the sandbox; return why this machine does not offer one, or nothing when it does."""
    if sys.platform != "linux":
        return "Linux alone has what it needs"
    root = Path(tempfile.mkdtemp(prefix="openclaw-sandbox-"))
    words = [sys.executable, "-I", "-S", str(SANDBOX), "--root", str(root), "--", "/bin/true"]
    try:
        tried = subprocess.run(
            words, capture_output=True, text=True, timeout=TRY_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return "" if tried.returncode == 0 else (tried.stderr.strip() or "it does not start")


def _box(places: Places) -> dict[str, Any]:
    found = find_installed(places)
    return _real(places, found) if found else _stand_in()


def _stand_in() -> dict[str, Any]:
    return {
        "command": [sys.executable, "-m", AGENT_MODULE],
        "env": {"PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1"},
        "also": [list(PUT_USER_FILE)],
    }


def _keeper() -> dict[str, Any]:
    """Return the keeper's fixed words; it gives up root by itself once it is loaded."""
    return {"command": [sys.executable, "-I", "-S", str(KEEPER)]}


def real_program(places: Places, found: Installed) -> Program:
    """Return what starts a gateway at a pod's address, outside of any sandbox."""
    module = found.folder / ADDRESS_MODULE.name
    shutil.copyfile(ADDRESS_MODULE, module)
    module.chmod(0o644)
    words = [str(found.node), "--require", str(module), *found.words("gateway", "run")]
    return Program(words=words, path=f"{found.node.parent}:{SYSTEM_PATH}", identity=places.identity)


def _real(places: Places, found: Installed) -> dict[str, Any]:
    program = real_program(places, found)
    sandbox = {} if sandbox_refusal() else {"sandbox": {"readable": [str(found.folder)]}}
    return {
        "command": list(program.words),
        "env": {"PATH": program.path, **warm_openclaw.environment(found.folder)},
        "also": [list(PUT_USER_FILE)],
        "as_pod_user": True,
        **sandbox,
    }
