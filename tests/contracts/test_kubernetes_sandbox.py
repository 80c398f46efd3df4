"""The sandbox of a pod, where this machine offers one: what is not given is not there."""

import subprocess
import sys
from pathlib import Path

import pytest

from openclaw_web.local.box_images import SANDBOX, sandbox_refusal
from openclaw_web.local.places import unprivileged_identity

pytestmark = pytest.mark.skipif(bool(sandbox_refusal()), reason=sandbox_refusal())


@pytest.fixture
def inside(passable_path):
    """Return a function that runs a shell line in a sandbox and gives code and output."""
    identity = unprivileged_identity()
    for name in ("root", "given", "kept", "scratch", "other"):
        (passable_path / name).mkdir()
        (passable_path / name).chmod(0o777)
    (passable_path / "given" / "file").write_text("for reading")
    (passable_path / "other" / "file").write_text("of somebody else")

    def run(line):
        words = [sys.executable, "-I", "-S", str(SANDBOX), "--root", str(passable_path / "root")]
        words += ["--readable", str(passable_path / "given")]
        words += ["--writable", str(passable_path / "kept")]
        words += ["--scratch", str(passable_path / "scratch")]
        if identity is not None:
            words += ["--user", str(identity.uid), "--group", str(identity.gid)]
        done = subprocess.run(  # noqa: S603 - our own program
            [*words, "--", "/bin/sh", "-c", line],
            cwd=passable_path,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_what_is_given_is_there_and_nothing_else(inside, passable_path):
    code, said = inside(f"cat {passable_path}/given/file; ls {passable_path}")
    assert (code, said) == (0, "for readinggiven\nkept\nscratch\n")
    assert "No such file" in inside(f"cat {passable_path}/other/file")[1]
    assert "No such file" in inside(f"ls {Path(__file__).parent}")[1]
    assert "No such file" in inside("cat /etc/shadow")[1]


def test_only_what_is_writable_can_be_written(inside, passable_path):
    assert inside(f"echo x > {passable_path}/kept/mine; echo y > /tmp/mine")[0] == 0
    assert (passable_path / "kept" / "mine").read_text() == "x\n"
    assert (passable_path / "scratch" / "mine").read_text() == "y\n"
    for place in (f"{passable_path}/given/x", "/x", "/usr/x", "/dev/shm/../x"):  # noqa: S108
        code, said = inside(f"echo x > {place}")
        assert code != 0, said


def test_it_has_no_rights_and_sees_no_process_but_its_own(inside):
    code, said = inside(
        "id -u; ls /proc | grep -c '^[0-9]'; grep -E 'CapEff|NoNew' /proc/self/status"
    )
    user, processes, *rest = said.split()
    assert (code, user) != (0, "0")
    assert int(processes) <= 5
    assert rest == ["CapEff:", "0000000000000000", "NoNewPrivs:", "1"]


def test_the_exit_code_and_a_signal_come_through(inside):
    assert inside("exit 7")[0] == 7
    assert inside("kill -TERM $$")[0] == 143
