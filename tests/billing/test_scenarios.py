"""The file of billing scenarios: every one of them is true, and a mistake in it is found."""

from pathlib import Path

import pytest

from openclaw_web import cli
from openclaw_web.workflows import billing_scenarios, scenario_files
from openclaw_web.workflows.scenario_files import ScenarioError

SCENARIOS = Path(__file__).with_name("scenarios.yaml")
SMALL = """
- name: A purchase
  steps:
    - at: 2026-01-01
      subscription: {period: [2026-01-01, 2026-02-01]}
      invoice: {id: in_1, status: paid}
      expect: {status: active, limit: 40000000}
"""


def file(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_scenario_ends_as_it_says():
    outcome = billing_scenarios.replay(SCENARIOS)
    assert outcome.mismatches == ()
    assert outcome.scenarios >= 40


def test_no_scenario_is_told_twice():
    names = [one.name for one in scenario_files.read(SCENARIOS)]
    assert len(names) == len(set(names))


def test_a_value_that_differs_is_named_with_its_line(tmp_path):
    path = file(tmp_path, SMALL.replace("status: active", "status: past_due"))
    (found,) = billing_scenarios.replay(path).mismatches
    assert (found.scenario, found.line, found.name) == ("A purchase", 4, "status")
    assert (found.expected, found.actual) == ("past_due", "active")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("status: paid", "state: paid", ":6: A purchase: an invoice has no state"),
        ("at: 2026-01-01", "at: yesterday", ":4: A purchase: at: 'yesterday' is no date"),
        ("[2026-01-01, 2026-02-01]", "[2026-01-01]", ":5: A purchase: a period is two dates"),
        ("{period", "{plan: gold, period", ":5: A purchase: plan: 'gold' is not a valid Tier"),
        ("expect", "expects", ":4: A purchase: a step has no expects"),
        ("name: A purchase", "title: A purchase", ":2: ?: a scenario has no title"),
        ("limit: 40000000}", "limit: 40000000", ":8: expected ',' or '}'"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_its_line(tmp_path, old, new, said):
    path = file(tmp_path, SMALL.replace(old, new, 1))
    with pytest.raises(ScenarioError) as error:
        billing_scenarios.replay(path)
    assert f"{path}{said}" in str(error.value)


def test_the_command_tells_what_differs_and_fails(tmp_path, capsys):
    path = file(tmp_path, SMALL.replace("limit: 40000000", "limit: 1"))
    assert cli.main(["admin", "billing", "replay", str(path)]) == 1
    assert (
        f"✗ {path}:4: A purchase, 2026-01-01 00:00: limit is 40000000, expected 1"
        in capsys.readouterr().out
    )
    assert cli.main(["admin", "billing", "replay", str(SCENARIOS)]) == 0


def test_the_command_says_what_is_wrong_with_a_file(tmp_path, capsys):
    assert cli.main(["admin", "billing", "replay", str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml cannot be read" in capsys.readouterr().err
