"""The supervisor: order, restarts with a pause, giving up at the first start, and the end."""

import io
import os
import signal
import sys
import threading
import time

import pytest

from openclaw_web.local import supervisor
from openclaw_web.local.children import Command
from openclaw_web.local.screen import Screen
from openclaw_web.local.services import Kind, Service
from openclaw_web.local.supervisor import StartError, Supervisor

SLEEP = "import time; time.sleep(60)"


class Trial:
    """Runs a supervisor over small Python programs and ends it when told."""

    def __init__(self, folder):
        self.folder = folder
        self.out = io.StringIO()
        self.runs = []

    def service(self, name, program, **more):
        words = [sys.executable, "-c", program, str(self.folder)]
        return Service(name=name, title=name, prepare=lambda: Command(words=words), **more)

    def run(self, services, *, on_ready=lambda: None):
        def remember(runs):
            self.runs = list(runs)

        Supervisor(
            services,
            logs=self.folder,
            screen=Screen(self.out),
            on_change=remember,
            on_ready=on_ready,
        ).run()

    @property
    def screen(self):
        return self.out.getvalue()


@pytest.fixture
def trial(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "BACK_OFF_SECONDS", (0.05,))
    monkeypatch.setattr(supervisor, "IDLE_TICK_SECONDS", 0.02)
    before = {number: signal.getsignal(number) for number in supervisor.SIGNALS}
    yield Trial(tmp_path)
    for number, handler in before.items():
        signal.signal(number, handler)


def _end():
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_service_starts_after_what_it_needs(trial):
    order = trial.folder / "order"
    note = "import sys, pathlib; f = pathlib.Path(sys.argv[1]) / 'order';"
    first = trial.service("first", f"{note} f.open('a').write('first ')", kind=Kind.TASK)
    second = trial.service(
        "second",
        f"{note} f.open('a').write('second'); {SLEEP}",
        needs=("first",),
        is_ready=lambda: order.exists() and "second" in order.read_text(),
    )

    trial.run([second, first], on_ready=_end)

    assert order.read_text() == "first second"


def test_a_signal_ends_everything(trial):
    trial.run([trial.service("a", SLEEP), trial.service("b", SLEEP, ending=1)], on_ready=_end)

    assert [run.pid for run in trial.runs] == [None, None]


def test_a_crashed_service_comes_back_and_the_screen_says_so(trial):
    def crash():
        pid = trial.runs[0].pid
        threading.Timer(0.1, os.kill, (pid, signal.SIGKILL)).start()
        threading.Thread(target=_end_when, args=(lambda: "again" in trial.screen,)).start()

    trial.run([trial.service("fragile", SLEEP)], on_ready=crash)

    assert "fragile ended by itself (exit code 137); next try in" in trial.screen
    assert trial.runs[0].restarts == 1


def test_a_service_that_never_starts_is_named_with_its_last_words(trial):
    broken = trial.service("broken", "raise SystemExit('no such thing')", is_ready=lambda: False)

    with pytest.raises(StartError, match=r"broken could not be started; see .*broken\.log"):
        trial.run([broken])

    assert "no such thing" in trial.screen


def test_a_secret_in_the_last_words_stays_out_of_the_screen(trial):
    leaky = trial.service("leaky", "raise SystemExit('sk_test_abcdef')", is_ready=lambda: False)

    with pytest.raises(StartError):
        trial.run([leaky])

    assert "sk_test_abcdef" not in trial.screen
    assert "[redacted]" in trial.screen


def test_a_failed_task_ends_what_was_started_before(trial):
    task = trial.service("task", "raise SystemExit(1)", kind=Kind.TASK)

    with pytest.raises(StartError):
        trial.run([trial.service("other", SLEEP), task])

    assert trial.runs[0].pid is None


def _end_when(is_so):
    deadline = time.monotonic() + 10
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.01)
    _end()
