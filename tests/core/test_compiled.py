"""Which modules are machine code: those of these very sources, and none else."""

import sys

import pytest

from openclaw_web.core import compiled

WIRE = "openclaw_web.gateway.wire"


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Return a folder as `compile` leaves it, but for what is in the files."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.delenv(compiled.SWITCH, raising=False)
    file = tmp_path / f"{WIRE.replace('.', '/')}{compiled.SUFFIX}"
    file.parent.mkdir(parents=True)
    file.touch()
    (tmp_path / compiled.MARK).write_text(compiled.sources())
    return tmp_path


def origin_of(name):
    spec = sys.meta_path[0].find_spec(name, None)
    return None if spec is None else spec.origin


def test_what_is_made_of_these_sources_is_found_before_them(made):
    compiled.use(made)
    assert compiled.is_used()
    assert origin_of(WIRE) == str(made / f"openclaw_web/gateway/wire{compiled.SUFFIX}")
    assert origin_of("openclaw_web.gateway.proxy") is None


def test_what_is_made_of_other_sources_is_left_alone(made):
    (made / compiled.MARK).write_text("others")
    before = list(sys.meta_path)
    compiled.use(made)
    assert sys.meta_path == before


def test_it_can_be_turned_off(made, monkeypatch):
    monkeypatch.setenv(compiled.SWITCH, compiled.OFF)
    before = list(sys.meta_path)
    compiled.use(made)
    assert sys.meta_path == before


@pytest.mark.parametrize(
    ("made_of", "said"), [(None, "is not compiled"), ("others", "of other sources")]
)
def test_who_requires_it_and_lacks_it_is_told_what_to_do(made, monkeypatch, made_of, said):
    monkeypatch.setenv(compiled.SWITCH, compiled.REQUIRED)
    (made / compiled.MARK).unlink()
    if made_of is not None:
        (made / compiled.MARK).write_text(made_of)
    with pytest.raises(compiled.CompiledError, match=rf"{said}.*python -m openclaw_web compile"):
        compiled.use(made)


def test_any_change_of_a_source_makes_it_other_sources(tmp_path, monkeypatch):
    (tmp_path / "one.py").write_text("A = 1")
    monkeypatch.setattr(compiled, "PACKAGE", tmp_path)
    first = compiled.fingerprint()
    (tmp_path / "one.py").write_text("A = 2")
    second = compiled.fingerprint()
    (tmp_path / "one.py").rename(tmp_path / "two.py")
    assert len({first, second, compiled.fingerprint()}) == 3


@pytest.mark.parametrize("name", compiled.MODULES)
def test_a_compiled_module_is_one_that_can_be(name):
    file = compiled.PACKAGE.parent / f"{name.replace('.', '/')}.py"
    text = file.read_text()
    assert "msgspec.Struct" not in text, "its annotations are not kept: put it into shapes.py"
    assert "vars(" not in text, "what is compiled has no __dict__"
