"""Run the load generators as processes of their own, and read what they tell."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LUA = Path(__file__).with_name("chat.lua")
PROJECT = LUA.parents[1]
PATIENCE_SECONDS = 900
RESULT = "JSON "
MODEL = "k2p5"

Result = dict[str, Any]


class LoadError(RuntimeError):
    """A load generator failed by itself; what it said is the text."""


def has_wrk() -> bool:
    return shutil.which("wrk") is not None


def start_load(url: str, token: str, *options: str) -> subprocess.Popen[str]:
    """Start our own generator; `result_of` waits for it."""
    words = [sys.executable, "-m", "bench.load", url, "--token", token, *options]
    return subprocess.Popen(  # noqa: S603 - our own module
        words, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def result_of(running: subprocess.Popen[str]) -> Result:
    """Wait for a generator.

    Raises:
        LoadError: it did not tell what happened.
    """
    output, complaint = running.communicate(timeout=PATIENCE_SECONDS)
    if running.returncode:
        raise LoadError(complaint[-2_000:] or output[-2_000:])
    return json.loads(output.splitlines()[-1].removeprefix(RESULT))


def load(url: str, token: str, *options: str) -> Result:
    return result_of(start_load(url, token, *options))


def start_wrk(
    url: str,
    token: str,
    *,
    connections: int,
    seconds: int,
    model: str = MODEL,
    prompt_kib: int = 0,
    headers: Sequence[str] = (),
) -> subprocess.Popen[str]:
    """Start wrk, which costs less than our own generator and asks as fast as answers come."""
    limits = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s"]
    script = [*("-s", str(LUA), url, "--", token, model, str(prompt_kib)), *headers]
    return subprocess.Popen(  # noqa: S603 - words of our own
        [shutil.which("wrk") or "wrk", *limits, *script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
