"""Keep the services of one stack running: start in order, restart what crashes, end all."""

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from openclaw_web.core.errors import OpenClawError
from openclaw_web.core.logs import redact
from openclaw_web.local import children
from openclaw_web.local.children import Child
from openclaw_web.local.screen import Screen
from openclaw_web.local.services import Kind, Phase, Service

BACK_OFF_SECONDS = (1, 2, 4, 8, 16, 30)
STEADY_SECONDS = 60.0  # who ran this long starts its back-off anew
TRIES_AT_START = 3
BUSY_TICK_SECONDS = 0.05
IDLE_TICK_SECONDS = 0.4
STEP_SECONDS = 8.0  # a little over the guardians' own grace
LAST_LINES = 6
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TAIL_BYTES = 4_096


class StartError(OpenClawError):
    """A service cannot be started; the text names it and the log to read."""


class Run:
    """One service's present life."""

    def __init__(self, service: Service, log: Path) -> None:
        self.service = service
        self.log = log
        self.phase = Phase.WAITING
        self.child: Child | None = None
        self.restarts = 0
        self.failures = 0
        self.was_ready = False
        self.started = 0.0
        self.retry_at = 0.0

    @property
    def is_settled(self) -> bool:
        return self.phase in {Phase.READY, Phase.DONE}

    @property
    def pid(self) -> int | None:
        return self.child.pid if self.child else None

    def start(self) -> None:
        self.child = children.start(self.service.prepare(), log=self.log)
        self.phase = Phase.STARTING
        self.started = time.monotonic()

    def last_lines(self) -> list[str]:
        """Return the end of the log, without secrets."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return []
        return [redact(line)[:200] for line in lines if line.strip()][-LAST_LINES:]


class Supervisor:
    """Runs the services until a signal asks it to end.

    `on_change` is told the runs whenever a phase changed; `on_ready` once, when all are up.
    """

    def __init__(
        self,
        services: Sequence[Service],
        *,
        logs: Path,
        screen: Screen,
        on_change: Callable[[Sequence[Run]], None],
        on_ready: Callable[[], None],
    ) -> None:
        self._runs = {one.name: Run(one, logs / f"{one.name}.log") for one in services}
        self._screen = screen
        self._on_change = on_change
        self._on_ready = on_ready
        self._is_asked_to_end = False
        self._was_up = False

    def run(self) -> None:
        """Start everything and stay until a signal.

        Raises:
            StartError: something did not come up the first time; everything is ended again.
        """
        for number in SIGNALS:
            signal.signal(number, self._ask_to_end)
        try:
            while not self._is_asked_to_end:
                self._tick()
                time.sleep(IDLE_TICK_SECONDS if self._is_up() else BUSY_TICK_SECONDS)
        finally:
            self._end()

    def _tick(self) -> None:
        before = self._snapshot()
        for run in self._runs.values():
            self._look_at(run)
        if self._snapshot() != before:
            self._on_change(list(self._runs.values()))
        if not self._was_up and self._is_up():
            self._was_up = True
            self._on_ready()

    def _look_at(self, run: Run) -> None:
        if run.phase is Phase.WAITING:
            if all(self._runs[name].is_settled for name in run.service.needs if name in self._runs):
                self._start(run)
        elif run.phase is Phase.BROKEN:
            if time.monotonic() >= run.retry_at:
                self._start(run)
        elif run.phase in {Phase.STARTING, Phase.READY}:
            self._look_at_process(run)

    def _look_at_process(self, run: Run) -> None:
        code = run.child.exit_code() if run.child else None
        if code == 0 and run.service.kind is Kind.TASK:
            run.child = None
            self._settle(run, Phase.DONE)
        elif code is not None:
            self._failed(run, f"{run.service.title} ended by itself (exit code {code})")
        elif run.phase is Phase.STARTING:
            self._look_at_start(run)
        elif run.failures and time.monotonic() - run.started > STEADY_SECONDS:
            run.failures = 0

    def _look_at_start(self, run: Run) -> None:
        if run.service.kind is Kind.SERVICE and run.service.is_ready():
            self._settle(run, Phase.READY)
        elif time.monotonic() - run.started > run.service.start_seconds:
            if run.child:
                run.child.end(STEP_SECONDS)
            self._failed(
                run, f"{run.service.title} did not answer in {run.service.start_seconds:.0f} s"
            )

    def _start(self, run: Run) -> None:
        try:
            run.start()
        except (OSError, OpenClawError) as error:
            self._failed(run, f"{run.service.title} cannot be started ({error})")

    def _settle(self, run: Run, phase: Phase) -> None:
        run.phase = phase
        seconds = time.monotonic() - run.started
        note = f"{'again, ' if run.was_ready else ''}{seconds:.1f} s"
        run.was_ready = True
        self._screen.ready(run.service.title, note)

    def _failed(self, run: Run, sentence: str) -> None:
        """Plan the next try, or give up when it never worked."""
        run.child = None
        run.phase = Phase.BROKEN
        run.failures += 1
        if not run.was_ready and (run.service.kind is Kind.TASK or run.failures >= TRIES_AT_START):
            self._screen.problem(f"{sentence}. Last lines of {run.log}:", run.last_lines())
            raise StartError(f"{run.service.title} could not be started; see {run.log}")
        run.restarts += 1
        pause = BACK_OFF_SECONDS[min(run.failures, len(BACK_OFF_SECONDS)) - 1]
        run.retry_at = time.monotonic() + pause
        self._screen.problem(f"{sentence}; next try in {pause} s. Last lines:", run.last_lines())

    def _end(self) -> None:
        """End the services in order; what stands on one step ends together."""
        for step in sorted({run.service.ending for run in self._runs.values()}):
            together = [
                run for run in self._runs.values() if run.service.ending == step and run.child
            ]
            for run in together:
                if run.child:
                    run.child.ask_to_end()
            deadline = time.monotonic() + STEP_SECONDS
            for run in together:
                if run.child:
                    run.child.end(max(0.1, deadline - time.monotonic()))
                run.child, run.phase = None, Phase.ENDED

    def _is_up(self) -> bool:
        return all(run.is_settled for run in self._runs.values())

    def _snapshot(self) -> list[tuple[Phase, int | None]]:
        return [(run.phase, run.pid) for run in self._runs.values()]

    def _ask_to_end(self, _number: int, _frame: FrameType | None) -> None:
        self._is_asked_to_end = True
