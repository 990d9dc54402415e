"""Environments that adapters make: named with arguments, refused with a reason, found again by other processes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from turnwise_envs import Environment, UnknownEnvironment, registry
from turnwise_envs.adapters import adapter, made_by
from turnwise_envs.address import Address, address, find, is_local
from turnwise_envs.check import check_env

CLOCKS = """
from turnwise_envs import Environment, EnvSpec, FunctionTaskSet, Observation, SplitSpec, StepResult
from turnwise_envs.adapters import adapter

@adapter
def clocks(name: str, *, ticks: int = 3) -> type[Environment]:
    class Clock(Environment):
        spec = EnvSpec(id=f"clocks:{name}", max_turns=20, splits=[SplitSpec(name="train", size=5)])
        tasks = FunctionTaskSet(spec, lambda split, index: f"Wait for {ticks} ticks.")

        async def reset(self, task, seed, options):
            self.left = ticks
            return Observation.say(task.instruction)

        async def step(self, action):
            self.left -= 1
            over = self.left == 0
            return StepResult(observation=Observation.say(f"{self.left} left"), reward=float(over), terminated=over)

    return Clock

@adapter
def hollow() -> type[Environment]:
    import a_package_that_nobody_has
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package with two adapters."""
    (tmp_path / "clock_world.py").write_text(CLOCKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    points = [EntryPoint(name, f"clock_world:{name}", registry.ADAPTER_GROUP) for name in ("clocks", "hollow")]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == registry.ADAPTER_GROUP else [])
    yield
    sys.modules.pop("clock_world", None)


def test_an_environment_by_adapter_and_arguments(world: None) -> None:
    assert registry.adapters() == ["clocks", "hollow"]
    three, four = registry.load("clocks:tower"), registry.load("clocks:tower", {"ticks": "4"})
    assert three.spec.id == "clocks:tower"
    assert three.tasks.get("train", 0).instruction == "Wait for 3 ticks."
    assert four.tasks.get("train", 0).instruction == "Wait for 4 ticks."
    assert registry.load("clocks:tower", {"ticks": "4"}) is four


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("clocks", {}, r"missing a required argument: 'name'; it takes name, ticks"),
        ("clocks:tower", {"tocks": "4"}, r"unexpected keyword argument 'tocks'; it takes name, ticks"),
        ("clocks:tower", {"ticks": "many"}, r"clocks --ticks: .*integer"),
        ("hollow", {}, r"hollow: needs a package: No module named 'a_package_that_nobody_has'"),
        ("household", {"ticks": "4"}, r"'household' takes no options, but was given --ticks"),
    ],
)
def test_what_does_not_fit_is_said(world: None, name: str, arguments: dict[str, str], words: str) -> None:
    with pytest.raises(UnknownEnvironment, match=words):
        registry.load(name, arguments)


def test_a_command_line_names_environments_each_with_its_options() -> None:
    words = ["clocks:a", "--ticks", "3", "household", "clocks:b", "--ticks=5", "--big-hand", "x y"]
    assert registry.read(words) == [
        ("clocks:a", {"ticks": "3"}),
        ("household", {}),
        ("clocks:b", {"ticks": "5", "big_hand": "x y"}),
    ]
    with pytest.raises(UnknownEnvironment, match="no such option: --prot"):
        registry.read(["--prot", "80", "household"])
    with pytest.raises(UnknownEnvironment, match="--ticks needs a value"):
        registry.read(["clocks:a", "--ticks"])


def test_another_process_makes_the_same_class(world: None, tmp_path: Path) -> None:
    made = registry.load("clocks:tower", {"ticks": "4"})
    assert not is_local(made)
    code = "import sys, json; from turnwise_envs.address import Address, find\n"
    code += "print(find(Address(**json.loads(sys.argv[1]))).tasks.get('train', 0).instruction)"
    where = json.dumps(asdict(address(made)))
    done = subprocess.run([sys.executable, "-c", code, where], capture_output=True, text=True, check=True)
    assert done.stdout == "Wait for 4 ticks.\n"
    assert find(Address(**json.loads(where))) is made


def test_a_made_class_passes_the_checks_that_need_other_processes(world: None) -> None:
    report = check_env(registry.load("clocks:tower"))
    assert report.ok, report
    assert {one.check: one.status for one in report.findings}["fresh-process"] == "ok"


def test_a_subclass_of_a_made_class_is_its_own() -> None:
    @adapter
    def local() -> type[Environment]:
        class Nothing(Environment):
            pass

        return Nothing

    made = local()

    class Heir(made):  # type: ignore[misc, valid-type]
        pass

    assert made_by(made) is not None
    assert made_by(Heir) is None
    assert is_local(Heir)
    assert is_local(made)  # its adapter is itself inside a function
