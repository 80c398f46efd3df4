"""The scenarios of `make bench-proxy`, and what is measured of each."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench import asking, machine
from bench.asking import Result
from bench.machine import Cores
from bench.stack import Stack
from bench.targets import Target

CHAT = "/v1/chat/completions"
CONNECTIONS = (1, 16, 64, 256)
MICRO = 1_000_000
SHORTEST_PACED_SECONDS = 3


@dataclass(frozen=True)
class Scenario:
    """One kind of load. `options` are our own generator's; without them wrk asks if it is there."""

    name: str
    connections: int
    seconds: int
    prompt_kib: int = 0
    options: Sequence[str] = ()

    @property
    def is_stream(self) -> bool:
        return "--stream" in self.options

    def run(self, target: Target) -> Result:
        if not self.options and asking.has_wrk():
            running = asking.start_wrk(
                target.url + CHAT,
                target.token,
                connections=self.connections,
                seconds=self.seconds,
                prompt_kib=self.prompt_kib,
                headers=target.headers,
            )
            return asking.result_of(running)
        headers = [word for header in target.headers for word in ("--header", header)]
        sizes = ["-c", str(self.connections), "--prompt-kib", str(self.prompt_kib)]
        lengths = ["--seconds", str(self.seconds)]
        words = [*sizes, *lengths, *self.options, *headers]
        return asking.load(target.url + CHAT, target.token, *words)


def scenarios(seconds: int) -> Iterator[Scenario]:
    for connections in CONNECTIONS:
        yield Scenario(f"chat, {connections} at once", connections, seconds)
    yield Scenario("64 KiB prompts, 16 at once", 16, seconds, prompt_kib=64)
    paced = max(seconds, SHORTEST_PACED_SECONDS)
    yield Scenario(
        "streams, 50 chunks 10 ms apart, 64 at once",
        64,
        paced,
        options=["--stream", "--script", "d10"],
    )
    yield Scenario("streams, 50 chunks in a burst, 64 at once", 64, seconds, options=["--stream"])


def measure(stack: Stack, target: Target, scenario: Scenario) -> Result:
    """Run a scenario against one target; CPU is read once its background writes have ended."""
    upstream = stack.servers["upstream"].processes()
    helpers = {name: stack.servers[name].processes() for name in ("postgres", "valkey")}
    processes = target.processes()
    groups = {"proxy": processes, "upstream": upstream, **helpers}
    before = {name: machine.cpu_seconds(group) for name, group in groups.items()}
    busy, load = machine.busy_seconds(), machine.own_children_seconds()
    began = time.monotonic()
    result = scenario.run(target)
    if target.is_ours:
        machine.settle([*processes, *helpers["postgres"]])
    used = {name: machine.cpu_seconds(group) - before[name] for name, group in groups.items()}
    own = sum(used.values()) + machine.own_children_seconds() - load
    seconds = time.monotonic() - began
    memory = machine.memory(processes)
    result |= {
        f"{name}_us": round(one / max(result["n"], 1) * MICRO, 1) for name, one in used.items()
    }
    result["pss_mib"], result["rss_mib"] = memory.pss, memory.rss
    foreign = max(0.0, machine.busy_seconds() - busy - own)
    result["other_load_percent"] = round(100 * foreign / seconds / (os.cpu_count() or 1), 1)
    return result


def pin_all(stack: Stack, targets: Sequence[Target], cores: Cores) -> None:
    """Give the proxies one core and all the rest the other; load generators inherit ours."""
    measured = {process.pid for target in targets for process in target.processes()}
    for target in targets:
        machine.pin(target.processes(), cores.proxy)
    for server in stack.servers.values():
        others = [one for one in server.processes() if one.pid not in measured]
        machine.pin(others, cores.rest)
    machine.pin_self(cores.rest)
