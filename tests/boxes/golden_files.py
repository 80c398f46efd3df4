"""Golden files: the whole of what a cluster or OpenClaw is given, so that no change is unmeant."""

import difflib
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parent / "golden"
RENEW = "UPDATE_GOLDEN=1 pytest tests/boxes/test_golden.py"


class _Dumper(yaml.SafeDumper):
    """Writes shared parts each time in full, and a text of many lines as lines."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the base's signature
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def as_yaml(documents: list[dict[str, Any]]) -> str:
    return yaml.dump_all(documents, Dumper=_Dumper, explicit_start=True, width=100)


def check(name: str, made: str, folder: Path = FOLDER) -> None:
    """Compare a text with the file of this name; with UPDATE_GOLDEN write it, but never in CI."""
    path = folder / name
    if os.environ.get("UPDATE_GOLDEN"):
        if os.environ.get("CI"):
            pytest.fail("CI compares golden files and writes none; take UPDATE_GOLDEN away.")
        path.write_text(made, encoding="utf-8")
        return
    known = path.read_text(encoding="utf-8") if path.exists() else ""
    if known != made:
        lines = difflib.unified_diff(
            known.splitlines(), made.splitlines(), f"golden/{name}", "made now", lineterm=""
        )
        told = f"If all of this is meant, renew it and read its diff once more: {RENEW}"
        pytest.fail("\n".join([f"{name} is not what is made now.", *lines, told]), pytrace=False)
