"""One supervisor for a state folder, and what others learn about it."""

import subprocess
import sys

import pytest

from openclaw_web.core.settings import LOCAL, PRODUCTION, STACK_FILE, Settings
from openclaw_web.local import control, doctor, status
from openclaw_web.local.places import write_secret
from openclaw_web.local.screen import Screen

HOLDER = (
    "import pathlib, sys, time; sys.path.insert(0, '.');"
    "from openclaw_web.local import control\n"
    "with control.own(pathlib.Path(sys.argv[1])):\n"
    "    print('mine', flush=True); time.sleep(60)"
)


@pytest.fixture
def holder(tmp_path):
    words = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:  # noqa: S603 - ours
        assert process.stdout
        assert process.stdout.readline() == b"mine\n"
        yield process
        process.kill()


def test_a_second_supervisor_is_refused_and_told_where_the_first_is(tmp_path, holder):
    assert holder.pid
    control.write_state(tmp_path, {"url": "http://localhost:3000"})

    with (
        pytest.raises(control.AlreadyRunningError, match=r"localhost:3000.*make stop"),
        control.own(tmp_path),
    ):
        pass


def test_the_lock_tells_who_holds_it(tmp_path, holder):
    assert control.running_pid(tmp_path) == holder.pid


def test_the_lock_goes_with_a_killed_holder(tmp_path, holder):
    holder.kill()
    holder.wait()

    assert control.running_pid(tmp_path) is None
    with control.own(tmp_path):
        pass


def test_stop_ends_the_holder_and_waits(tmp_path, holder):
    assert control.stop(tmp_path, timeout_seconds=10)
    assert control.running_pid(tmp_path) is None
    assert holder.wait(10) != 0


def test_stop_says_when_nothing_ran(tmp_path):
    assert not control.stop(tmp_path)


def test_the_status_of_nothing_is_not_running(tmp_path):
    found = status.look(tmp_path / "never")

    assert not found.is_running
    assert found.exit_code == status.NOT_RUNNING == 3


def test_an_old_state_file_does_not_make_a_dead_stack_look_alive(tmp_path):
    control.write_state(tmp_path, {"url": "http://localhost:1", "services": []})

    assert not status.look(tmp_path).is_running


def test_a_service_whose_process_is_gone_is_not_healthy(tmp_path, holder):
    assert holder.pid
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    service = {
        "name": "kimi", "title": "Kimi", "kind": "service", "phase": "ready", "pid": dead.pid,
        "port": None, "sign_of_life": "", "address": "", "restarts": 0, "log": "",
    }  # fmt: skip
    control.write_state(tmp_path, {"url": "x", "services": [service]})

    found = status.look(tmp_path)

    assert found.is_running
    assert found.exit_code == status.UNHEALTHY
    assert found.services[0].state == "silent"


def test_only_programs_are_told_the_database_with_its_password(tmp_path, holder, capsys):
    assert holder.pid
    address = "postgresql://openclaw:hunter2@127.0.0.1:5432/openclaw"
    postgres = {
        "name": "postgres", "title": "PostgreSQL", "kind": "service", "phase": "ready",
        "pid": holder.pid, "port": None, "sign_of_life": "",
        "address": "127.0.0.1:5432/openclaw", "restarts": 0, "log": "",
    }  # fmt: skip
    control.write_state(tmp_path, {"url": "x", "services": [postgres]})
    write_secret(tmp_path / STACK_FILE, f"DATABASE_URL={address}\n")

    found = status.look(tmp_path)
    status.show(found, Screen())

    assert found.as_dict()["database"] == address
    assert "hunter2" not in capsys.readouterr().out
    assert "hunter2" not in repr(found)


def test_the_doctor_learns_from_the_stack_where_the_cluster_is(tmp_path, holder):
    assert holder.pid
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text('{"clusters": [{"cluster": {"server": "https://127.0.0.1:1"}}]}')
    assert doctor.cluster_address(Settings(home=tmp_path)) == ""
    control.write_state(tmp_path, {"kubeconfig": str(kubeconfig)})
    assert doctor.cluster_address(Settings(home=tmp_path)) == "https://127.0.0.1:1"
    elsewhere = Settings(home=tmp_path, kubeconfig="/nowhere")
    assert doctor.cluster_address(elsewhere) == ""


def test_in_a_pod_the_doctor_asks_the_cluster_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    pod = Settings(home=tmp_path, environment=PRODUCTION)
    assert doctor.cluster_address(pod) == "https://10.96.0.1:443"
    assert doctor.cluster_address(Settings(home=tmp_path)) == ""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    assert doctor.cluster_address(pod) == "https://[fd00::1]:443"


def test_in_production_the_doctor_misses_nothing_that_only_a_laptop_has(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_connects", lambda _address: None)
    monkeypatch.setattr(doctor.shutil, "which", lambda *_arguments, **_options: None)
    titles = {
        environment: {
            one.title for one in doctor.findings(Settings(home=tmp_path, environment=environment))
        }
        for environment in (LOCAL, PRODUCTION)
    }
    assert titles[LOCAL] - titles[PRODUCTION] == {"bun", "Disk", "Port"}
