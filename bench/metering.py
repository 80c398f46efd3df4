"""The metering check's cases: what goes well, and every way in which usage gets lost elsewhere."""

import argparse
import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench import asking, counts
from bench.checks import Outcome
from bench.counts import Metered, Served
from bench.customer import Holder, make_holder
from bench.stack import Server, Stack, stack

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"

Judge = Callable[[Served, Metered], bool]


def equal(served: Served, found: Metered) -> bool:
    """Say whether each request is one event, with the tokens that the provider counted."""
    return (
        found.events == served.requests
        and found.prompt_tokens == served.prompt_tokens
        and found.completion_tokens == served.completion_tokens
        and found.flagged == 0
    )


def flagged(served: Served, found: Metered) -> bool:
    """Say whether each request is one event that is marked as an estimate, and not for free."""
    return found.events == found.flagged == served.requests and found.tokens > 0


def free(served: Served, found: Metered) -> bool:
    """Say whether each request is one event without tokens: the provider bills none."""
    return found.events == served.requests == served.failures and found.tokens == 0


@dataclass(frozen=True)
class Case:
    """Requests of one kind, and how served and metered must compare."""

    name: str
    path: str
    options: Sequence[str]
    judge: Judge = equal


CASES = (
    Case("300 plain answers", CHAT, ["--count", "300", "-c", "32"]),
    Case("200 streams", CHAT, ["--count", "200", "-c", "32", "--stream"]),
    Case(
        "200 streams of a client that did not ask for usage",
        CHAT,
        ["--count", "200", "-c", "32", "--stream", "--without-usage"],
    ),
    Case(
        "200 streams with usage in choices[0] (Kimi)",
        CHAT,
        ["--count", "200", "-c", "32", "--stream", "--script", "kimi"],
    ),
    Case("200 Anthropic answers", MESSAGES, ["--count", "200", "-c", "32"]),
    Case("200 Anthropic streams", MESSAGES, ["--count", "200", "-c", "32", "--stream"]),
    Case(
        "100 clients that leave in mid-stream",
        CHAT,
        ["--count", "100", "-c", "32", "--stream", "--leave-after", "10", "--script", "d5"],
    ),
    Case(
        "100 clients that leave in an Anthropic stream",
        MESSAGES,
        ["--count", "100", "-c", "32", "--stream", "--leave-after", "10", "--script", "d5"],
    ),
    Case(
        "50 streams that the provider cuts",
        CHAT,
        ["--count", "50", "-c", "16", "--stream", "--script", "d1,cut"],
        flagged,
    ),
    Case(
        "50 answers with status 500",
        CHAT,
        ["--count", "50", "-c", "16", "--script", "fail"],
        free,
    ),
)


def run(chosen: argparse.Namespace, outcome: Outcome) -> None:
    """Check both forms of the proxy, alone and before the pages."""
    with stack() as opened:
        holder = asyncio.run(make_holder(opened))
        for proxy in (opened.start_proxy(), opened.start_web()):
            check(opened, holder, proxy, outcome, sabotage=chosen.sabotage)


def check(
    opened: Stack, holder: Holder, proxy: Server, outcome: Outcome, *, sabotage: bool = False
) -> None:
    """Run all cases against one proxy."""
    rows: list[dict[str, object]] = []
    for case in CASES:
        served_before = counts.served(opened)
        metered_before = counts.metered(opened, holder.customer_id)
        asking.load(proxy.url + case.path, holder.token, *case.options)
        was_served = counts.served(opened).since(served_before)
        counts.wait_until_written(
            opened, holder.customer_id, at_least=metered_before.events + was_served.requests
        )
        was_served = counts.served(opened).since(served_before)  # and what was drained
        if sabotage and case is CASES[0]:
            counts.lose_an_event(opened, holder.customer_id)
        now = counts.metered(opened, holder.customer_id)
        found = now.since(metered_before)
        wrong = found.contradictions()
        rows.append({"case": case.name, "served": vars(was_served), "metered": vars(found)})
        outcome.check(
            f"{proxy.name}: {case.name}",
            holds=case.judge(was_served, found) and not wrong,
            found=sentence(was_served, found, wrong),
        )
    outcome.figures[f"metering {proxy.name}"] = rows


def sentence(served: Served, found: Metered, wrong: Sequence[str]) -> str:
    text = (
        f"{served.requests} served with {served.prompt_tokens}+{served.completion_tokens} tokens, "
        f"{found.events} metered with {found.prompt_tokens}+{found.completion_tokens}"
    )
    if found.flagged:
        text += f", {found.flagged} flagged"
    return "; ".join([text, *wrong])
