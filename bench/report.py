"""The table of a run: medians over its rounds, ratios to nginx and to no proxy of the same run."""

import statistics
from collections.abc import Mapping, Sequence

from bench.asking import Result
from bench.scenarios import Scenario
from bench.targets import DIRECT, NGINX, OURS

Results = Mapping[str, Mapping[str, Sequence[Result]]]

WHOLE_COLUMNS = (
    "target",
    "proxy µs/req",
    "times nginx",
    "times ours-alone",
    "PostgreSQL µs",
    "Valkey µs",
    "provider µs",
    "p50 ms",
    "added p50",
    "p99 ms",
    "req/s",
    "times direct",
    "PSS MiB",
    "errors",
    "others' load %",
)
STREAM_COLUMNS = (
    "target",
    "proxy µs/stream",
    "times nginx",
    "times ours-alone",
    "PostgreSQL µs",
    "Valkey µs",
    "provider µs",
    "TTFB p50 ms",
    "added p50",
    "TTFB p99 ms",
    "streams/s",
    "times direct",
    "PSS MiB",
    "errors",
    "others' load %",
)


def median(rounds: Sequence[Result], name: str) -> float | None:
    """Return the median of the rounds in which anything was answered."""
    found = [one[name] for one in rounds if one["n"] and one.get(name) is not None]
    return statistics.median(found) if found else None


def table(scenario: Scenario, by_target: Mapping[str, Sequence[Result]]) -> str:
    """Return one scenario's table in Markdown."""
    columns = STREAM_COLUMNS if scenario.is_stream else WHOLE_COLUMNS
    rounds = len(next(iter(by_target.values())))
    lines = [
        f"### {scenario.name} (medians of {rounds} rounds)",
        "",
        "| " + " | ".join(columns) + " |",
        "|---" + "|---:" * (len(columns) - 1) + "|",
    ]
    lines += [
        "| " + " | ".join([name, *_cells(name, scenario, by_target)]) + " |" for name in by_target
    ]
    return "\n".join(lines)


def _cells(name: str, scenario: Scenario, by_target: Mapping[str, Sequence[Result]]) -> list[str]:
    latency = "ttfb" if scenario.is_stream else "lat"
    rounds, nginx, direct = by_target[name], by_target.get(NGINX), by_target.get(DIRECT)

    def ratio(figure: str, other: Sequence[Result] | None) -> float | None:
        mine, theirs = median(rounds, figure), median(other, figure) if other else None
        return mine / theirs if mine is not None and theirs else None

    p50 = median(rounds, f"{latency}_p50")
    base = median(direct, f"{latency}_p50") if direct else None
    added = p50 - base if p50 is not None and base is not None and name != DIRECT else None
    is_proxy = name != DIRECT
    return [
        _text(median(rounds, "proxy_us") if is_proxy else None, 1),
        _text(ratio("proxy_us", nginx) if is_proxy else None, 2),
        _text(ratio("proxy_us", by_target.get(OURS)) if is_proxy else None, 2),
        *(_text(median(rounds, f"{one}_us"), 1) for one in ("postgres", "valkey", "upstream")),
        _text(p50, 3),
        _text(added, 3),
        _text(median(rounds, f"{latency}_p99"), 2),
        _text(median(rounds, "per_s"), 0),
        _text(ratio("per_s", direct), 3),
        _text(median(rounds, "pss_mib") if is_proxy else None, 0),
        str(sum(one["errors"] for one in rounds)),
        _text(median(rounds, "other_load_percent"), 0),
    ]


def _text(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
