import json
import os
import stat
import subprocess
import sys
from contextlib import contextmanager

import pytest

from openclaw_web.boxes.openclaw_config import PUT_USER_FILE
from openclaw_web.core.settings import Settings
from openclaw_web.local import (
    box_images,
    control,
    openclaw,
    places,
    ports,
    real_openclaw,
    warm_openclaw,
)
from openclaw_web.local.real_openclaw import OpenClawInstallError
from openclaw_web.local.screen import Screen
from openclaw_web.local.warm_openclaw import ColdError, Program


@pytest.fixture
def opened(passable_path):
    return places.open_places(passable_path / "home")


@pytest.fixture
def installed(opened):
    """Pretend that `make openclaw` was here."""
    folder = real_openclaw.folder_of(opened)
    folder.mkdir()
    (folder / real_openclaw.STAMP).write_text(f"{real_openclaw.OPENCLAW}\n")
    return folder


def image(opened):
    return json.loads(box_images.write(opened).read_text())[box_images.BOX_IMAGE]


def refuse_sandbox(monkeypatch, why):
    monkeypatch.setattr(box_images, "sandbox_refusal", lambda: why)


def test_without_it_boxes_run_the_stand_in(opened):
    assert "simulators.agent" in image(opened)["command"]
    assert box_images.denied_tools(opened) == ""
    assert "stand-in" in box_images.sentence(opened)


def test_with_it_boxes_run_openclaw_in_a_sandbox(opened, installed, monkeypatch):
    refuse_sandbox(monkeypatch, "")
    made = image(opened)
    assert made["command"][-2:] == ["gateway", "run"]
    assert made["sandbox"] == {"readable": [str(installed)]}
    assert made["as_pod_user"] is True
    assert box_images.denied_tools(opened) == ""
    assert box_images.sentence(opened) == f"OpenClaw {real_openclaw.OPENCLAW}, in a sandbox"


@pytest.mark.usefixtures("installed")
def test_without_a_sandbox_programs_and_files_are_denied(opened, monkeypatch):
    refuse_sandbox(monkeypatch, "it is forbidden here")
    assert "sandbox" not in image(opened)
    assert box_images.denied_tools(opened) == "group:runtime,group:fs"
    assert "denied" in box_images.sentence(opened)


def test_boxes_read_what_was_compiled_once_there_is_something(opened, installed):
    assert "NODE_COMPILE_CACHE" not in image(opened)["env"]
    (installed / warm_openclaw.FOLDER).mkdir()
    assert image(opened)["env"]["NODE_COMPILE_CACHE"] == str(installed / warm_openclaw.FOLDER)


def program(tmp_path, then):
    """Return a program that compiles something as Node does, and then goes on like this."""
    script = tmp_path / "gateway"
    script.write_text(
        "import os, pathlib, sys\n"
        "compiled = pathlib.Path(os.environ['NODE_COMPILE_CACHE'])\n"
        f"(compiled / 'module').write_text('compiled')\n{then}\n"
    )
    words = [sys.executable, "-I", "-S", str(script)]
    return Program(words=words, path="/usr/bin:/bin", identity=None)


ANSWER = """
import json, urllib.request
known = json.loads(pathlib.Path(os.environ["OPENCLAW_CONFIG_PATH"]).read_text())
telegram = known["channels"]["telegram"]
url = f"{telegram['apiRoot']}/bot{os.environ['TELEGRAM_BOT_TOKEN']}/sendMessage"
said = json.dumps({"chat_id": telegram["allowFrom"][0], "text": "Hello"}).encode()
urllib.request.urlopen(urllib.request.Request(url, said, {"Content-Type": "application/json"}))
"""


@pytest.mark.slow
def test_what_was_compiled_until_the_answer_stays_and_boxes_cannot_change_it(installed, tmp_path):
    answering = program(tmp_path, ANSWER + "import time; time.sleep(600)")
    warm_openclaw.warm(installed, answering)
    module = installed / warm_openclaw.FOLDER / "module"
    assert (module.read_text(), module.stat().st_mode & 0o777) == ("compiled", 0o644)
    assert not list(installed.glob("*.new"))


@pytest.mark.slow
def test_nothing_is_kept_of_one_that_ends_instead_of_answering(installed, tmp_path):
    with pytest.raises(ColdError, match="no memory"):
        warm_openclaw.warm(installed, program(tmp_path, "sys.exit('no memory')"))
    assert warm_openclaw.environment(installed) == {}
    assert not list(installed.glob("*.new"))


def test_of_what_was_compiled_only_plain_files_are_taken_over(tmp_path):
    made, secret = tmp_path / "made", tmp_path / "secret"
    (made / "v24").mkdir(parents=True)
    secret.write_text("of somebody else")
    secret.chmod(0o600)
    (made / "link").symlink_to(secret)
    (made / "folder").symlink_to(tmp_path)
    os.mkfifo(made / "pipe")
    module = made / "v24" / "module"
    with module.open("w") as held:
        held.write("compiled")
        held.flush()
        warm_openclaw.take_over(made, tmp_path / "fresh")
        held.write(" and changed afterwards")
    taken = [one for one in (tmp_path / "fresh").rglob("*") if not one.is_dir()]
    assert [one.relative_to(tmp_path / "fresh").as_posix() for one in taken] == ["v24/module"]
    assert (taken[0].read_text(), taken[0].stat().st_mode & 0o777) == ("compiled", 0o644)
    assert not taken[0].samefile(module)
    assert secret.stat().st_mode & 0o777 == 0o600


def test_files_of_somebody_else_are_not_taken_over(tmp_path, monkeypatch):
    made = tmp_path / "made"
    made.mkdir()
    (made / "hard-link").write_text("secret")
    real = os.stat
    fields = list(real(made / "hard-link"))
    fields[stat.ST_UID] += 1
    monkeypatch.setattr(
        os,
        "stat",
        lambda *given, **more: (
            os.stat_result(fields) if given[0] == "hard-link" else real(*given, **more)
        ),
    )
    with pytest.raises(ColdError, match="kept nothing"):
        warm_openclaw.take_over(made, tmp_path / "fresh")


def test_an_empty_folder_is_not_kept(tmp_path):
    (tmp_path / "made" / "v24").mkdir(parents=True)
    with pytest.raises(ColdError, match="kept nothing"):
        warm_openclaw.take_over(tmp_path / "made", tmp_path / "fresh")


def test_a_failed_warming_leaves_nothing_and_the_install_is_told(
    opened, installed, monkeypatch, capsys
):
    @contextmanager
    def unreachable(*_):
        yield f"http://127.0.0.1:{ports.free_port()}"

    monkeypatch.setattr(warm_openclaw, "_simulator", unreachable)
    refuse_sandbox(monkeypatch, "")
    openclaw.bring(Settings(home=opened.home), {})
    printed = capsys.readouterr()
    assert "Nothing was kept" in printed.out + printed.err
    assert "`make run` starts with it." in printed.out
    assert warm_openclaw.environment(installed) == {}
    assert not list(installed.glob("*.new"))


@pytest.mark.usefixtures("installed")
def test_installing_again_downloads_nothing(opened):
    assert real_openclaw.install(opened, Screen(), {}).version == real_openclaw.OPENCLAW


def test_a_full_disk_is_said_before_anything_is_downloaded(opened, monkeypatch):
    monkeypatch.setattr(real_openclaw, "NEEDED_BYTES", 10**18)
    with pytest.raises(OpenClawInstallError, match="make room and run `make openclaw` again"):
        real_openclaw.install(opened, Screen(), {})
    assert real_openclaw.find_installed(opened) is None


def test_what_was_not_finished_does_not_count_as_installed(opened):
    real_openclaw.folder_of(opened).mkdir()
    assert real_openclaw.find_installed(opened) is None


def test_going_back_leaves_the_stand_in(opened, installed):
    openclaw.take_away(Settings(home=opened.home))
    assert not installed.exists()
    written = json.loads((opened.home / "images.json").read_text())
    assert "simulators.agent" in written[box_images.BOX_IMAGE]["command"]


def test_it_is_not_taken_away_from_boxes_that_run(opened, installed):
    with control.own(opened.home), pytest.raises(OpenClawInstallError, match="make stop"):
        openclaw.take_away(Settings(home=opened.home))
    assert installed.exists()


def test_production_has_images_instead(opened):
    chosen = Settings(home=opened.home, environment="production")
    for act in (lambda: openclaw.bring(chosen, {}), lambda: openclaw.take_away(chosen)):
        with pytest.raises(OpenClawInstallError, match="BOX_IMAGE"):
            act()


def test_user_md_is_put_into_the_workspace_and_notes_in_it_stay(tmp_path):
    ours, place = tmp_path / "ours.md", tmp_path / "workspace" / "USER.md"
    environment = {
        "PATH": "/usr/bin:/bin",
        "OPENCLAW_USER_MD": str(ours),
        "OPENCLAW_STATE_DIR": str(tmp_path),
    }

    def start(text):
        ours.write_text(text)
        subprocess.run(PUT_USER_FILE, env=environment, check=True)  # noqa: S603 - our own words
        return place.read_text()

    assert start("German") == "German"
    place.write_text("German, and a note")
    assert start("German") == "German, and a note"
    assert start("French") == "French"
    place.unlink()
    assert start("French") == "French"
