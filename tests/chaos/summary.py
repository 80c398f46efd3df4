"""The end of a run of chaos: how many cells each story had, and how many ended elsewhere."""

from collections import defaultdict
from typing import Any

PROPERTY = "cells of chaos"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Tell of every cell that was tried, whichever process of tests did it."""
    rows = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == PROPERTY
    ]
    if rows:
        terminalreporter.section("the matrix of chaos")
        terminalreporter.write_line("\n".join(lines(rows)))


def lines(rows: list[dict[str, Any]]) -> list[str]:
    stories: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        stories[row["story"]].append(row)
    told = []
    for story, its in stories.items():
        parts = ", ".join(f"{one['disturbance']}: {one['cells']}" for one in its)
        told.append(f"{story}, {_sum(its)}: {parts}")
    return [*told, f"All, {_sum(rows)}."]


def _sum(rows: list[dict[str, Any]]) -> str:
    cells, wrong, seconds = (sum(row[key] for row in rows) for key in ("cells", "wrong", "seconds"))
    return f"{cells} cells in {seconds} s, {wrong} of them ended elsewhere"
