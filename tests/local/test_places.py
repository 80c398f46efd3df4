"""The state folder: private, writable, and reachable for another user only where it must be."""

import os
import stat

import pytest

from openclaw_web.local import places
from openclaw_web.local.places import PlaceError

AS_ROOT = os.geteuid() == 0


def _mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_secret_file_is_for_its_owner_only(tmp_path):
    places.write_secret(tmp_path / "secret", "hush")

    assert _mode(tmp_path / "secret") == 0o600
    assert (tmp_path / "secret").read_text() == "hush"


def test_nobody_may_look_around_in_the_state_folder(passable_path):
    opened = places.open_places(passable_path / "home")

    assert _mode(opened.home) in {0o700, 0o711}
    assert _mode(opened.secrets) == 0o700
    assert _mode(opened.logs) == 0o700


def test_a_state_folder_that_cannot_be_made_is_explained_with_a_cure(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(PlaceError, match=r"cannot be written .* OPENCLAW_CLOUD_HOME="):
        places.open_places(tmp_path / "file" / "home")


@pytest.mark.skipif(not AS_ROOT, reason="only root starts servers as another user")
def test_below_a_private_folder_the_servers_get_a_place_they_can_reach(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "OUTSIDE_PARENT", tmp_path)
    private = tmp_path / "root"
    private.mkdir(mode=0o700)

    opened = places.open_places(private / "home")

    assert opened.outside.parent == tmp_path
    assert _mode(opened.outside) == 0o711
    places.forget(opened.home)
    assert not opened.home.exists()
    assert not opened.outside.exists()


@pytest.mark.skipif(not AS_ROOT, reason="only root starts servers as another user")
def test_a_place_that_somebody_else_prepared_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "OUTSIDE_PARENT", tmp_path)
    private = tmp_path / "root"
    private.mkdir(mode=0o700)
    opened = places.open_places(private / "home")
    os.chown(opened.outside, 65534, 65534)

    with pytest.raises(PlaceError, match="is not ours"):
        places.open_places(private / "home")
