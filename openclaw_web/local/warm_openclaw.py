"""Let OpenClaw live through one message once it is installed, and keep what Node compiled of it.

Compiling its 6,000 modules is a sixth of what a box does until it is ready. Node keeps the result
in a folder (NODE_COMPILE_CACHE) for one version, one processor and one user; boxes only read it.
"""

import json
import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from openclaw_web.boxes import openclaw_config
from openclaw_web.boxes.openclaw_config import PORT, Assistant
from openclaw_web.local import children, ports
from openclaw_web.local.children import Child, Command
from openclaw_web.local.places import PASSABLE, Identity, write_secret

FOLDER = "compiled"
PATIENCE_SECONDS = 420.0  # from its start to its answer, on a machine that does much else
LOOK_SECONDS = 0.25
END_SECONDS = 90.0  # it writes the folder as its last act
SPARE_SECONDS = 5.0  # for its guardian, which ends it after those
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # neither a link nor a pipe that nobody fills
PERSON = 111222333
BOT = "warm_up_bot"
MODEL = "kimi-for-coding"


class ColdError(Exception):
    """Nothing that was compiled could be kept; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to start: the words that run the gateway, and as whom."""

    words: Sequence[str]
    path: str
    identity: Identity | None


def environment(folder: Path) -> dict[str, str]:
    """Return what makes OpenClaw use what was compiled, or nothing when nothing was."""
    compiled = folder / FOLDER
    if not compiled.is_dir():
        return {}
    # OpenClaw would otherwise start itself a second time, to put a folder of its own below.
    return {"NODE_COMPILE_CACHE": str(compiled), "OPENCLAW_PACKAGED_COMPILE_CACHE_RESPAWNED": "1"}


def warm(folder: Path, program: Program) -> None:
    """Compile what a box needs until its first answer, into a folder that only we may write.

    Raises:
        ColdError: it did not answer, or kept nothing; nothing changed.
    """
    fresh = folder / f"{FOLDER}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        with _scratch() as scratch:
            made = scratch / FOLDER
            _make_for(made, program.identity)
            _live_through_a_message(scratch, made, program)
            take_over(made, fresh)
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        fresh.replace(folder / FOLDER)
    except (OSError, HTTPException) as error:
        raise ColdError(str(error) or type(error).__name__) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def take_over(made: Path, fresh: Path) -> None:
    """Copy the files that the owner of `made` wrote there; Node believes what stands in the copy.

    The boxes' user still owns what it made: it may have put links there, and may keep files open.
    So nothing of it is followed, changed or moved, and each file of the copy is new and ours.

    Raises:
        ColdError: there is no file.
    """
    owner, count = made.lstat().st_uid, 0
    for folder, _, names, descriptor in os.fwalk(made):
        place = fresh / Path(folder).relative_to(made)
        place.mkdir()
        place.chmod(0o755)
        count += sum(_copy(name, descriptor, owner, place) for name in names)
    if not count:
        raise ColdError("Node kept nothing of what it compiled.")


def _copy(name: str, folder: int, owner: int, place: Path) -> bool:
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != owner:
        return False
    with os.fdopen(os.open(name, READ, dir_fd=folder), "rb") as source:
        if not os.path.samestat(found, os.fstat(source.fileno())):
            return False
        with (place / name).open("xb") as copy:
            os.fchmod(copy.fileno(), 0o644)
            shutil.copyfileobj(source, copy)
    return True


def _live_through_a_message(scratch: Path, made: Path, program: Program) -> None:
    token = secrets.token_hex(16)
    write_secret(scratch / "token", token)
    write_secret(scratch / "key", secrets.token_hex(16))
    with (
        _simulator(scratch, "telegram") as telegram,
        _simulator(scratch, "kimi", "--key-file", str(scratch / "key")) as kimi,
    ):
        bot = _ask(f"{telegram}/_control/bots", token, {"name": "Box", "username": BOT})
        known = _environment(scratch, program, telegram=telegram, kimi=kimi)
        known |= {"TELEGRAM_BOT_TOKEN": bot["token"], "NODE_COMPILE_CACHE": str(made)}
        log = scratch / "log"
        words = Command(
            words=program.words,
            environment=known,
            identity=program.identity,
            grace_seconds=END_SECONDS,
        )
        child = children.start(words, log=log)
        try:
            _write_and_wait(child, telegram, token, log)
        finally:
            child.end(END_SECONDS + SPARE_SECONDS)


def _write_and_wait(child: Child, telegram: str, token: str, log: Path) -> None:
    """Write to it at once: Telegram keeps the message until it asks."""
    said = {"from": PERSON, "bot": BOT, "text": "Hello"}
    _ask(f"{telegram}/_control/messages", token, said)
    chat = urllib.parse.urlencode({"person": PERSON, "bot": BOT})

    def is_answered() -> bool:
        if child.exit_code() is not None:
            raise ColdError(f"It did not answer a message; it wrote last:\n{_last(log)}")
        found = _ask(f"{telegram}/_control/messages?{chat}", token)
        return any(one["from"] == "bot" for one in found)

    _wait(is_answered, PATIENCE_SECONDS, log)


def _environment(scratch: Path, program: Program, *, telegram: str, kimi: str) -> dict[str, str]:
    """Return what a box's pod would have, with a configuration as boxes have it."""
    assistant = Assistant(
        telegram_user_ids=(PERSON,),
        language="en",
        model=MODEL,
        thinking_level="low",
        generation=1,
        proxy_url=f"{kimi}/coding/v1",
        telegram_url=telegram,
    )
    config, state, temporary = (scratch / name for name in ("openclaw.json", "state", "tmp"))
    config.write_text(openclaw_config.render(assistant), encoding="utf-8")
    config.chmod(0o644)
    for one in (state, temporary):
        _make_for(one, program.identity)
    return {
        "PATH": program.path,
        "HOME": str(state),
        "TMPDIR": str(temporary),
        "LANG": "C.UTF-8",
        "POD_IP": ports.LOOPBACK,
        f"PORT_{PORT}": str(ports.free_port()),
        "DO_NOT_TRACK": "1",
        "OPENCLAW_STATE_DIR": str(state),
        "OPENCLAW_CONFIG_PATH": str(config),
        "OPENCLAW_CONFIG_READONLY": "1",
        "OPENCLAW_PACKAGED_COMPILE_CACHE_RESPAWNED": "1",
        "OPENCLAW_GATEWAY_TOKEN": secrets.token_hex(16),
        "OPENCLAW_PROXY_TOKEN": (scratch / "key").read_text(encoding="utf-8"),
    }


@contextmanager
def _simulator(scratch: Path, name: str, *options: str) -> Generator[str]:
    port = ports.free_port()
    words = [sys.executable, "-m", f"simulators.{name}", "--port", str(port), *options]
    words += ["--state", str(scratch / name), "--token-file", str(scratch / "token")]
    url = f"http://{ports.LOOPBACK}:{port}"
    log = scratch / f"{name}.log"
    child = children.start(Command(words=[*words, "--public-url", url]), log=log)
    try:
        _wait(lambda: ports.answers(port), PATIENCE_SECONDS, log)
        yield url
    finally:
        child.end(END_SECONDS)


def _wait(is_true: Callable[[], bool], seconds: float, log: Path) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            raise ColdError(f"It did not answer a message; it wrote last:\n{_last(log)}")
        time.sleep(LOOK_SECONDS)


def _ask(url: str, token: str, payload: dict[str, Any] | None = None) -> Any:
    data = None if payload is None else json.dumps(payload).encode()
    headers = {"Content-Type": "application/json", "X-Simulator-Token": token}
    request = urllib.request.Request(url, data, headers)  # noqa: S310 - our own simulator
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
        return json.loads(answer.read())


def _last(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return "\n".join(lines[-10:])


@contextmanager
def _scratch() -> Generator[Path]:
    """Make a folder that the boxes' user may pass through."""
    # What the boxes' user writes there to the last must not undo a success.
    made = tempfile.TemporaryDirectory(prefix="openclaw-warm-", ignore_cleanup_errors=True)
    with made as folder:
        Path(folder).chmod(PASSABLE)
        yield Path(folder)


def _make_for(folder: Path, identity: Identity | None) -> None:
    """Make a folder, in one of ours, that the boxes' user may write."""
    folder.mkdir()
    if identity is not None:
        os.chown(folder, identity.uid, identity.gid)
