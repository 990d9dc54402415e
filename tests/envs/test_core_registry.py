"""Finding environments: by id, by import path, and what is said when there is none."""

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from turnwise_envs import Environment, UnknownEnvironment, registry


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on sys.path whose modules are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_an_installed_environment_by_id() -> None:
    assert "household" in registry.installed()
    found = registry.load("household")
    assert issubclass(found, Environment)
    assert found.spec.id == "household"
    assert type(registry.make("household")) is found


def test_an_unknown_id_names_the_known_ones() -> None:
    with pytest.raises(UnknownEnvironment, match=r"no environment 'hosehold'; installed: .*household.*module:Class"):
        registry.load("hosehold")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("no_such_module_at_all:Maze", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("json:Maze", "no attribute 'Maze'"),
        ("json:dumps", "not a subclass of turnwise_envs.Environment"),
        (":Maze", "Empty module name"),
        ("broken_world:Maze", "SyntaxError"),
        ("failing_world:Maze", "ZeroDivisionError"),
    ],
)
def test_an_import_path_that_leads_nowhere(modules: Path, path: str, words: str) -> None:
    (modules / "broken_world.py").write_text("class Maze(")
    (modules / "failing_world.py").write_text("1 / 0")
    with pytest.raises(UnknownEnvironment, match=words) as caught:
        registry.load(path)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_broken_plug_in_is_an_unknown_environment(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (modules / "bad_plugin.py").write_text("import no_such_dependency")
    point = EntryPoint("bad", "bad_plugin:Env", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    with pytest.raises(UnknownEnvironment, match=r"'bad' cannot be imported.*no_such_dependency"):
        registry.load("bad")


def test_register_makes_a_class_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    household = registry.load("household")

    @registry.register
    class Palace(household):
        spec = household.spec.model_copy(update={"id": "palace"})

    assert registry.load("palace") is Palace
    assert "palace" in registry.installed()
