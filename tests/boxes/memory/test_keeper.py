"""The keeper's own work on a volume: ended anywhere, nothing is lost and the next run finishes."""

import hashlib
import http.server
import io
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading

import pytest

from openclaw_web.boxes.memory import keeper

OLD = {"memory": "old", "sessions/one": "kept", "only-old": "x"}
# As root, the library is in root's home where pyenv or uv put it: out of reach afterwards.
LOSING_ITS_LIBRARY = """
import sys
sys.path.insert(0, sys.argv.pop())
import keeper
become_user = keeper.become_user
def and_lose_the_library():
    become_user()
    sys.meta_path.clear()
keeper.become_user = and_lose_the_library
sys.exit(keeper.main())
"""
NOBODY = 65_534
NEW = {"memory": "new", "sessions/one": "changed", "only-new": "y"}


class KilledError(BaseException):
    """The machine is gone."""


@pytest.fixture
def volume(tmp_path, monkeypatch):
    write(tmp_path, OLD)
    monkeypatch.setattr(keeper, "fetch", lambda folder: write(folder, NEW))
    monkeypatch.setenv("KEEPER_MARK", "one")
    return tmp_path


@pytest.fixture
def open_volume(volume):
    """Offer it where another user than root comes to it: pytest's own folders are closed."""
    with tempfile.TemporaryDirectory() as place:
        pathlib.Path(place).chmod(0o755)
        yield pathlib.Path(shutil.copytree(volume, f"{place}/volume"))


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")


def read(folder):
    found = sorted(one for one in folder.rglob("*") if one.is_file())
    return {str(one.relative_to(folder)): one.read_text(encoding="ascii") for one in found}


def dies_at(monkeypatch, count):
    """Have the process end before its rename of that number; return the undoing."""
    renames = [0]
    rename = pathlib.Path.rename

    def counted(self, target):
        renames[0] += 1
        if renames[0] == count:
            raise KilledError
        return rename(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", counted)


def test_a_restore_replaces_everything(volume):
    keeper.restore(volume)
    assert read(volume) == NEW


@pytest.mark.parametrize("step", range(1, 8))
def test_a_restore_that_was_killed_is_finished_by_the_next_run(volume, step):
    with pytest.MonkeyPatch.context() as killing:
        dies_at(killing, step)
        with pytest.raises(KilledError):
            keeper.restore(volume)
    keeper.restore(volume)
    assert read(volume) == NEW


@pytest.mark.parametrize("step", range(1, 4))
def test_a_restore_that_was_killed_while_it_deleted_is_finished(volume, step):
    deleted = [0]
    rmtree = shutil.rmtree

    def counted(path, **more):
        if str(path).endswith((keeper.OLD, keeper.NEW, keeper.WORK)):
            deleted[0] += 1
        if deleted[0] == step + 1:  # the first one is before it fetches
            raise KilledError
        return rmtree(path, **more)

    (volume / keeper.WORK).mkdir()
    with pytest.MonkeyPatch.context() as killing:
        killing.setattr(shutil, "rmtree", counted)
        with pytest.raises(KilledError):
            keeper.restore(volume)
    keeper.restore(volume)
    assert read(volume) == NEW
    assert not (volume / keeper.WORK).exists()


def test_folders_that_may_not_be_written_to_are_replaced_and_keep_their_mode(
    open_volume, monkeypatch
):
    def fetch(folder):
        write(folder, NEW)
        (folder / "sessions").chmod(0o555)

    monkeypatch.setattr(keeper, "fetch", fetch)
    (open_volume / "sessions").chmod(0o555)
    write(open_volume, {"deep/closed/file": "x"})
    (open_volume / "deep" / "closed").chmod(0o555)
    as_nobody(lambda: keeper.restore(open_volume), open_volume)
    assert read(open_volume) == NEW
    assert (open_volume / "sessions").stat().st_mode & 0o777 == 0o555
    (open_volume / "sessions").chmod(0o755)


@pytest.mark.parametrize("step", range(1, 8))
def test_a_backup_in_the_middle_of_a_restore_is_whole(volume, step):
    with pytest.MonkeyPatch.context() as killing:
        dies_at(killing, step)
        with pytest.raises(KilledError):
            keeper.restore(volume)
    saved = packed(volume)
    assert saved in (OLD, NEW)
    assert (saved == NEW) is bool(keeper.written(volume / keeper.WORK / keeper.EMPTIED))


def test_what_was_moved_aside_never_replaces_what_was_made_since(volume, monkeypatch):
    with pytest.MonkeyPatch.context() as killing:
        dies_at(killing, 3)
        with pytest.raises(KilledError):
            keeper.restore(volume)
    write(volume, {"memory": "made since"})
    monkeypatch.setenv("KEEPER_MARK", "two")
    keeper.begin_anew(volume, volume / keeper.WORK)
    kept = read(volume)
    assert (kept["memory"], kept["memory.before-restore"]) == ("made since", "old")


def test_what_cannot_be_saved_is_left_out_and_named(open_volume, capsys):
    write(open_volume, {"closed": "x", "folder/inside": "x"})
    (open_volume / "closed").chmod(0)
    (open_volume / "folder").chmod(0)
    with (open_volume / "holes").open("wb") as holes:
        holes.truncate(shutil.disk_usage(open_volume).total + 1)
    saved = {}
    as_nobody(lambda: saved.update(packed(open_volume)), open_volume)
    (open_volume / "folder").chmod(0o755)
    assert saved == OLD
    told = capsys.readouterr().err
    assert [f"left out {one}" in told for one in ("closed", "folder", "holes")] == [True] * 3


@pytest.mark.parametrize("step", range(1, 5))
def test_another_restore_first_puts_back_what_was_moved_aside(volume, step, monkeypatch):
    with pytest.MonkeyPatch.context() as killing:
        dies_at(killing, step)
        with pytest.raises(KilledError):
            keeper.restore(volume)
    monkeypatch.setenv("KEEPER_MARK", "two")

    def broken(_folder):
        raise keeper.RefusedError("403")

    monkeypatch.setattr(keeper, "fetch", broken)
    with pytest.raises(keeper.RefusedError):
        keeper.restore(volume)
    kept = {name: text for name, text in read(volume).items() if not name.startswith(keeper.WORK)}
    assert kept == OLD


def test_what_does_not_arrive_whole_replaces_nothing(volume, monkeypatch):
    def half(folder):
        write(folder, {"memory": "new"})
        raise keeper.RefusedError("the archive did not arrive whole")

    monkeypatch.setattr(keeper, "fetch", half)
    with pytest.raises(keeper.RefusedError):
        keeper.restore(volume)
    kept = {name: text for name, text in read(volume).items() if not name.startswith(keeper.WORK)}
    assert kept == OLD


def test_a_backup_holds_no_unfinished_restore_and_no_pipe(volume):
    write(volume, {f"{keeper.WORK}/new/half": "x"})
    (volume / "link").symlink_to("memory")
    os.mkfifo(volume / "pipe")
    path = volume.parent / f"{volume.name}.tar.gz"
    with path.open("wb") as body:
        keeper.pack(volume, body)
    with tarfile.open(path) as archive:
        names = {one.name for one in archive.getmembers()}
    assert names == {"memory", "sessions", "sessions/one", "only-old", "link"}


@pytest.fixture
def platform():
    """Serve an address that keeps one archive, and return it."""

    class Address(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        kept = b""

        def do_PUT(self):
            Address.kept = b""
            while size := int(self.rfile.readline(), 16):
                Address.kept += self.rfile.read(size)
                self.rfile.readline()
            self.answer(keeper.CREATED, b"")

        def do_GET(self):
            self.answer(keeper.FINE, Address.kept)

        def answer(self, status, body):
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.send_header("x-content-sha256", hashlib.sha256(body).hexdigest())
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, code="-", size="-"):
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Address) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/memory/one"
        server.shutdown()


def test_it_needs_nothing_of_pythons_library_once_it_has_given_up_root(tmp_path, platform):
    volume, back = tmp_path / "volume", tmp_path / "back"
    write(volume, OLD)
    back.mkdir()
    where = str(pathlib.Path(keeper.__file__).parent)
    for act, folder in (("save", volume), ("restore", back)):
        chosen = {"KEEPER_ACT": act, "KEEPER_FOLDER": str(folder), "KEEPER_URL": platform}
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-I", "-S", "-c", LOSING_ITS_LIBRARY, where],
            env={**chosen, "KEEPER_TOKEN": "one-time", "KEEPER_MARK": "one"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert read(back) == OLD


def packed(folder):
    body = io.BytesIO()
    keeper.pack(folder, body)
    body.seek(0)
    with tarfile.open(fileobj=body) as archive:
        found = {one.name: archive.extractfile(one) for one in archive.getmembers()}
        return {name: file.read().decode() for name, file in found.items() if file}


def as_nobody(act, folder):
    """Do something without root's rights over every file."""
    if os.getuid() != 0:
        act()
        return
    for place, folders, files in os.walk(folder):
        for name in ("", *folders, *files):
            os.chown(pathlib.Path(place, name), NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        act()
    finally:
        os.seteuid(0)
