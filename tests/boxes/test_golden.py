"""Whatever changes in a box's objects, its keeper's or `openclaw.json` is seen in a diff.

A meant change: `UPDATE_GOLDEN=1 pytest tests/boxes/test_golden.py`, and read the diff. When
`config-hash` changes there, the release gives every box a new pod.
"""

from dataclasses import replace

import pytest

from openclaw_web.boxes import openclaw_config
from openclaw_web.boxes.memory import keeper_job
from openclaw_web.boxes.memory.addresses import Way
from openclaw_web.boxes.memory.keeper_job import Source
from tests.boxes import golden_files
from tests.boxes.memory.test_keeper_job import SPEC as KEEPER
from tests.boxes.test_manifests import everything
from tests.boxes.test_openclaw_config import ASSISTANT


def test_a_box_is_made_of_these_objects():
    golden_files.check("box.yaml", golden_files.as_yaml(everything()))


def test_a_keeper_is_made_of_these_objects():
    fetching = replace(KEEPER, ticket=replace(KEEPER.ticket, way=Way.RESTORE))
    source = Source(snapshot="daily-7", size="5Gi", storage_class="fast")
    objects = [
        keeper_job.secret(KEEPER, job_uid="uid-of-the-job"),
        keeper_job.job(KEEPER),
        keeper_job.job(fetching),
        keeper_job.copied_claim(KEEPER, source, job_uid="uid-of-the-job"),
    ]
    golden_files.check("keeper.yaml", golden_files.as_yaml(objects))


def test_an_assistant_is_configured_so():
    elsewhere = replace(ASSISTANT, telegram_url="http://127.0.0.1:9000", denied_tools=("exec",))
    golden_files.check("openclaw.json", openclaw_config.render(elsewhere) + "\n")


def test_a_change_is_shown_with_the_way_to_renew_it(tmp_path, monkeypatch):
    monkeypatch.delenv("UPDATE_GOLDEN", raising=False)
    (tmp_path / "one.yaml").write_text("a: 1\nb: 2\n")
    golden_files.check("one.yaml", "a: 1\nb: 2\n", tmp_path)
    with pytest.raises(pytest.fail.Exception, match=r"(?s)-b: 2.*\+b: 3.*UPDATE_GOLDEN=1 pytest"):
        golden_files.check("one.yaml", "a: 1\nb: 3\n", tmp_path)
    with pytest.raises(pytest.fail.Exception, match=r"two\.yaml is not what"):
        golden_files.check("two.yaml", "a: 1\n", tmp_path)


def test_golden_files_are_renewed_when_asked_and_never_in_ci(tmp_path, monkeypatch):
    monkeypatch.setenv("UPDATE_GOLDEN", "1")
    monkeypatch.delenv("CI", raising=False)
    golden_files.check("one.yaml", "a: 1\n", tmp_path)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="writes none"):
        golden_files.check("one.yaml", "a: 2\n", tmp_path)
    assert (tmp_path / "one.yaml").read_text() == "a: 1\n"
