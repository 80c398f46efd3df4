"""This machine: which core runs what, who used how much CPU and memory, and what the machine is."""

import contextlib
import os
import platform
import resource
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import psutil

from openclaw_web.core import compiled

MIB = 1024 * 1024
CPU_INFO = Path("/proc/cpuinfo")
SETTLE_SECONDS = 8.0
SETTLE_STEP_SECONDS = 0.4
IDLE_CPU_SECONDS = 0.03  # in one step: background writes have ended
PACKAGES = ("uvicorn", "uvloop", "httptools", "msgspec", "reflex", "sqlalchemy", "psycopg")

Processes = Sequence[psutil.Process]


@dataclass(frozen=True)
class Cores:
    """Where things run: the proxy has a core of its own, everything else shares the other."""

    proxy: int = 0
    rest: int = 1


@dataclass(frozen=True)
class Facts:
    """What a figure depends on besides our code."""

    time: str
    processor: str
    cores: int
    memory_mib: int
    system: str
    python: str
    packages: dict[str, str]
    load_average: list[float]
    is_compiled: bool  # what is ours, but for `ours-interpreted`

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def facts() -> Facts:
    return Facts(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        processor=_processor(),
        cores=os.cpu_count() or 0,
        memory_mib=psutil.virtual_memory().total // MIB,
        system=platform.platform(),
        python=platform.python_version(),
        packages={name: metadata.version(name) for name in PACKAGES},
        load_average=[round(one, 2) for one in os.getloadavg()],
        is_compiled=compiled.is_used(),
    )


def pin(processes: Processes, core: int) -> None:
    """Bind processes with all their threads to one core, where the system can do that."""
    if not hasattr(os, "sched_setaffinity") or (os.cpu_count() or 1) <= core:
        return
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            for thread in process.threads():
                os.sched_setaffinity(thread.id, {core})


def pin_self(core: int) -> None:
    """Bind this process and all that it starts from now on."""
    pin([psutil.Process()], core)


def hurry(nice: int) -> None:
    """Go before other work of this machine, with all that is started from now on (needs root)."""
    if nice:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
        take_along(os.getpid())


def take_along(pid: int) -> None:
    """Let a session of its own have our priority: Linux weighs sessions before processes."""
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    if nice:
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/autogroup").write_text(str(nice), encoding="utf-8")


def cpu_seconds(processes: Processes) -> float:
    """Return the user and system time of processes and of their ended children."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])  # user, system, and both of ended children
    return total


def own_children_seconds() -> float:
    """Return the CPU of the load generators that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def busy_seconds() -> float:
    """Return what all processes of the machine have used."""
    times = psutil.cpu_times()
    return times.user + times.system + getattr(times, "nice", 0) + getattr(times, "softirq", 0)


def settle(processes: Processes) -> None:
    """Wait until background writes have ended: they belong to the requests before."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        before = cpu_seconds(processes)
        time.sleep(SETTLE_STEP_SECONDS)
        if cpu_seconds(processes) - before <= IDLE_CPU_SECONDS:
            return


@dataclass(frozen=True)
class Memory:
    """In MiB. `pss` shares out common pages; where the system does not tell, it is the unique."""

    rss: float
    pss: float


def memory(processes: Processes) -> Memory:
    rss = pss = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            full = process.memory_full_info()
            rss += full.rss
            pss += getattr(full, "pss", full.uss)
    return Memory(rss=round(rss / MIB, 1), pss=round(pss / MIB, 1))


def _processor() -> str:
    with contextlib.suppress(OSError), CPU_INFO.open(encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
