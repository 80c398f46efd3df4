"""Memory over very many requests: near the end the proxy uses what it used near the start."""

import argparse
import asyncio
import statistics
import subprocess
import time
from dataclasses import asdict, dataclass

from bench import asking, counts, machine, metering, outage
from bench.checks import Outcome
from bench.customer import Holder, make_holder
from bench.stack import Server, Stack, stack

CONNECTIONS = 64
RUN_SECONDS = 20
SAMPLE_SECONDS = 1.0
PARTS = 10
KEPT_SAMPLES = 100
TOLERANCE = 0.05
SABOTAGE_FACTOR = 1.1


@dataclass(frozen=True)
class Sample:
    """Memory after so many requests."""

    requests: int
    rss: float
    pss: float


def run(chosen: argparse.Namespace, outcome: Outcome) -> None:
    with stack() as opened:
        holder = asyncio.run(make_holder(opened))
        proxy = opened.start_proxy()
        outage.pin(opened, proxy)
        samples = _sample(opened, holder, proxy, chosen.size)
        outcome.figures["samples"] = [
            asdict(one) for one in samples[:: max(1, len(samples) // 200)]
        ]
        _compare(outcome, samples, chosen.size, factor=SABOTAGE_FACTOR if chosen.sabotage else 1.0)
        outage.check_counts(opened, holder, outcome, sabotage=chosen.sabotage)


def _sample(opened: Stack, holder: Holder, proxy: Server, wanted: int) -> list[Sample]:
    """Ask until the provider has served so many, and look at the memory every second."""
    samples: list[Sample] = []
    while (served := counts.served(opened).requests) < wanted:
        print(f"  {served} of {wanted} requests", flush=True)
        running = _start(proxy, holder)
        while running.poll() is None:
            time.sleep(SAMPLE_SECONDS)
            used = machine.memory(proxy.processes())
            samples.append(Sample(counts.served(opened).requests, used.rss, used.pss))
        asking.result_of(running)
    return samples


def _start(proxy: Server, holder: Holder) -> subprocess.Popen[str]:
    url = proxy.url + metering.CHAT
    if asking.has_wrk():
        return asking.start_wrk(url, holder.token, connections=CONNECTIONS, seconds=RUN_SECONDS)
    sizes = ["-c", str(CONNECTIONS), "--seconds", str(RUN_SECONDS)]
    return asking.start_load(url, holder.token, *sizes)


def _compare(outcome: Outcome, samples: list[Sample], wanted: int, *, factor: float) -> None:
    """Compare the medians of the second and of the last tenth; the first one warms up."""
    tenth = wanted / PARTS
    second = [one for one in samples if tenth <= one.requests < 2 * tenth]
    last = [one for one in samples if one.requests >= wanted - tenth]
    for name in ("rss", "pss"):
        early = statistics.median(getattr(one, name) for one in second)
        late = statistics.median(getattr(one, name) for one in last) * factor
        outcome.check(
            f"{name.upper()} in the last tenth is within 5 % of the second tenth",
            holds=abs(late - early) <= TOLERANCE * early,
            found=f"{early:.1f} MiB, then {late:.1f} MiB ({100 * (late / early - 1):+.1f} %)",
        )
