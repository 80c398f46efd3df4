"""Other gateways beside ours: started when they are installed, or measured where they run.

`litellm` and `portkey` are started by name. Anything else is `name=URL[,token=T][,header=K: V]...`
for one that runs already and forwards to the port given as `--upstream-port`.
"""

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from bench.asking import MODEL
from bench.stack import Server, Stack, wait_until_answers
from openclaw_web.local import ports
from openclaw_web.local.children import Command

LITELLM = "litellm"
PORTKEY = "portkey"
MASTER_KEY = "sk-bench"
OURS = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "PORT")  # what LiteLLM would take for its own
PROGRAMS = {LITELLM: "BENCH_LITELLM", PORTKEY: "BENCH_PORTKEY"}

# One worker, a master key, exact model names, no database: the fastest that it can be.
_LITELLM_CONFIGURATION = """
model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "{upstream}/v1", api_key: sk-upstream}}
general_settings: {{master_key: {key}, disable_spend_logs: true}}
litellm_settings: {{telemetry: false, set_verbose: false, request_timeout: 60}}
"""


@dataclass(frozen=True)
class Peer:
    """A gateway that is not ours."""

    name: str
    url: str
    token: str = field(default=MASTER_KEY, repr=False)
    server: Server | None = None
    port: int | None = None
    headers: Sequence[str] = ()


def known(stack: Stack, spelling: str) -> Peer | None:
    """Start or find a peer; `None` when it is not installed."""
    name, is_running, address = spelling.partition("=")
    if is_running:
        return _running(name, address)
    program = program_of(name)
    return _STARTERS[name](stack, program) if program and name in _STARTERS else None


def program_of(name: str) -> str | None:
    return os.environ.get(PROGRAMS.get(name, "")) or shutil.which(name)


def not_installed(spelling: str) -> str:
    """Say in one sentence how a peer comes along."""
    if spelling not in PROGRAMS:
        return f"{spelling} is no known peer: write litellm, portkey, or name=URL,token=T."
    return (
        f"{spelling} is not installed and left out; docs/benchmarks.md tells how to install it, "
        f"{PROGRAMS[spelling]} names its program."
    )


def _running(name: str, address: str) -> Peer:
    url, *options = address.split(",")
    pairs = [option.partition("=")[::2] for option in options]
    return Peer(
        name,
        url.rstrip("/"),
        token=next((value for key, value in pairs if key == "token"), MASTER_KEY),
        port=urlsplit(url).port,
        headers=[value for key, value in pairs if key == "header"],
    )


def _start_litellm(stack: Stack, program: str) -> Peer:
    port = ports.free_port()
    configuration = stack.folder / "litellm.yaml"
    configuration.write_text(
        _LITELLM_CONFIGURATION.format(model=MODEL, upstream=stack.upstream_url, key=MASTER_KEY),
        encoding="utf-8",
    )
    words = [program, "--config", str(configuration), "--port", str(port), "--num_workers", "1"]
    quiet = {"LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION"}
    server = _start(stack, LITELLM, port, words, quiet)
    wait_until_answers(f"{server.url}/health/liveliness", server)
    return Peer(LITELLM, server.url, server=server)


def _start_portkey(stack: Stack, program: str) -> Peer:
    """Start the gateway's `build/start-server.js`, which `BENCH_PORTKEY` names."""
    port = ports.free_port()
    words = [program, f"--port={port}", "--headless"]
    if program.endswith(".js"):
        words.insert(0, shutil.which("node") or "node")
    server = _start(stack, PORTKEY, port, words, {"NODE_ENV": "production"})
    wait_until_answers(server.url, server)
    to_us = f"x-portkey-custom-host: {stack.upstream_url}/v1"
    return Peer(PORTKEY, server.url, server=server, headers=["x-portkey-provider: openai", to_us])


def _start(
    stack: Stack, name: str, port: int, words: Sequence[str], more: dict[str, str]
) -> Server:
    sys.stderr.write(f"Starting {name}\n")
    theirs = {name: value for name, value in os.environ.items() if name not in OURS}
    environment = {**theirs, **more, "NO_PROXY": ports.LOOPBACK}
    command = Command(words=words, environment=environment)
    return stack.run(name, f"http://{ports.LOOPBACK}:{port}", command)


_STARTERS: dict[str, Callable[[Stack, str], Peer]] = {
    LITELLM: _start_litellm,
    PORTKEY: _start_portkey,
}
