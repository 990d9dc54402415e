"""Registration, discovery, third-party objectives, and what the composition checks."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import flat_group
from numpy.testing import assert_allclose
from pydantic import Field

from turnwise_trainer import catalog
from turnwise_trainer.errors import ConfigError, ObjectiveError
from turnwise_trainer.objective import Objective
from turnwise_trainer.settings import Settings
from turnwise_trainer.slots import Preset, entry, make_entry, use
from turnwise_trainer.spec import ObjectiveSpec
from turnwise_trainer.view import BatchView, Floats

RLOO = '''
"""RLOO (arXiv 2402.14740): compare each episode with the others of its group."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from turnwise_trainer.settings import Settings
from turnwise_trainer.slots import Preset, entry, use
from turnwise_trainer.view import BatchView, Floats

PRESET = Preset(
    name="rloo",
    summary="Leave-one-out.",
    advantage="rloo",
    loss=use("clip", eps_high=0.28),
    regularizers=(use("entropy", coefficient=0.5), use("kl", coefficient=0.5)),
)


class Rloo(Settings):
    scale: float = Field(default=1.0, description="Multiplies the advantage.")


@entry("advantage", "rloo")
def rloo(view: BatchView, reward_S: Floats, settings: Rloo) -> Floats:
    """A_i = R_i - mean of the others' R."""
    outcome_N = view.sum_rows(reward_S)
    size_G = np.bincount(view.group_N)
    mean_G = np.bincount(view.group_N, weights=outcome_N) / size_G
    advantage_N = (outcome_N - mean_G[view.group_N]) * (size_G / (size_G - 1))[view.group_N]
    return settings.scale * advantage_N[view.episode_S]


def unregistered(view: BatchView, reward_S: Floats, settings: Rloo) -> Floats:
    """A plain function works by its import path, too."""
    return -rloo(view, reward_S, settings)
'''
WORKED = [0.857143] * 2 + [-0.285714] * 6


@pytest.fixture(scope="module")
def rloo_module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "my_rloo.py").write_text(RLOO)
    sys.path.insert(0, str(folder))
    yield "my_rloo"
    sys.path.remove(str(folder))


def advantages(said: Any) -> Floats:
    view = BatchView.of([flat_group([1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])])
    return Objective.resolve(said).credit(view).advantage_K


class TestThirdParty:
    def test_preset_by_import_path(self, rloo_module: str) -> None:
        assert_allclose(advantages(f"{rloo_module}:PRESET"), WORKED, atol=1e-6)
        spec = ObjectiveSpec.parse(f"{rloo_module}:PRESET")
        assert spec.table()["loss"]["eps_high"] == 0.28
        assert ObjectiveSpec.parse(spec.table()) == spec

    def test_entry_by_import_path_with_settings(self, rloo_module: str) -> None:
        said = {"preset": "grpo", "advantage": {"name": f"{rloo_module}:rloo", "scale": 2.0}}
        assert_allclose(advantages(said), np.multiply(2.0, WORKED), atol=1e-6)
        spec = ObjectiveSpec.parse(said)
        assert ObjectiveSpec.parse(spec.table()) == spec

    def test_changes_start_from_what_the_preset_says(self, rloo_module: str) -> None:
        said = {"preset": f"{rloo_module}:PRESET", "regularizers": {"entropy": {}, "kl": {"coefficient": 0.25}}}
        written = ObjectiveSpec.parse(said).table()
        assert [item["coefficient"] for item in written["regularizers"]] == [0.5, 0.25]
        listed = ObjectiveSpec.parse({**said, "regularizers": ["kl"]}).table()
        assert listed["regularizers"] == [{"name": "kl", "coefficient": 0.001}]

    def test_plain_function_by_import_path(self, rloo_module: str) -> None:
        assert_allclose(advantages({"advantage": f"{rloo_module}:unregistered"}), np.negative(WORKED), atol=1e-6)

    def test_installed_plugins_are_found_and_a_broken_one_harms_nobody(self, tmp_path: Path) -> None:
        (tmp_path / "my_rloo.py").write_text(RLOO)
        info = tmp_path / "my_rloo-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-rloo\nVersion: 1\n")
        (info / "entry_points.txt").write_text("[turnwise.objectives]\nrloo = my_rloo\nbroken = no_such_module\n")
        script = """
            from turnwise_trainer import catalog
            from turnwise_trainer.errors import ConfigError
            assert "rloo" in catalog.presets() and "rloo" in catalog.entries("advantage"), catalog.presets()
            try:
                catalog.find_preset("nothing-like-it")
            except ConfigError as error:
                assert "plug-in 'broken' failed" in str(error) and "no_such_module" in str(error), error
            else:
                raise SystemExit("found")
        """
        result = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{textwrap.dedent(script)}"],
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert result.returncode == 0, result.stderr

    @pytest.mark.parametrize(
        ("said", "message"),
        [
            ("no_such_module:PRESET", "objective: cannot import 'no_such_module:PRESET'"),
            ("my_rloo:NOTHING", "objective: cannot import 'my_rloo:NOTHING'"),
            ("my_rloo:rloo", "objective: 'my_rloo:rloo' is <function"),
            ({"loss": "my_rloo:rloo"}, "objective.loss: 'my_rloo:rloo' is an entry of advantage"),
        ],
    )
    def test_wrong_paths(self, rloo_module: str, said: Any, message: str) -> None:
        with pytest.raises(ConfigError, match=f"^{message}"):
            Objective.resolve(said)


class Knobs(Settings):
    size: float = Field(default=1.0, description="How much.")


class Undescribed(Settings):
    size: float = 1.0


class Named(Settings):
    name: str = Field(default="x", description="Clashes.")


class TestRegistration:
    def test_a_name_is_taken_once_per_slot(self) -> None:
        with pytest.raises(ObjectiveError, match="advantage already has an entry 'grpo'"):

            @entry("advantage", "grpo")
            def other(view: BatchView, reward_S: Floats, settings: Knobs) -> Floats:
                return reward_S

    @pytest.mark.parametrize(
        ("slot", "settings", "message"),
        [
            ("modulator", Knobs, "no slot 'modulator'"),
            ("rewards", Knobs, r"must take \(view, settings\), not \(view, advantage_K, settings\)"),
            ("modulators", None, "annotate its last parameter with a subclass of Settings"),
            ("modulators", Undescribed, r"Field\(description=...\): size"),
            ("modulators", Named, "a setting cannot be called 'name'"),
        ],
    )
    def test_functions_that_do_not_fit(self, slot: Any, settings: Any, message: str) -> None:
        def function(view, advantage_K, settings):  # type: ignore[no-untyped-def]
            return advantage_K

        with pytest.raises(ObjectiveError, match=message):
            make_entry(slot, "mine", function, settings)

    def test_losses_need_loss_settings(self) -> None:
        with pytest.raises(ObjectiveError, match="LossSettings"):
            make_entry("loss", "mine", lambda inputs, settings: inputs, Knobs)

    def test_presets_default_to_grpo(self) -> None:
        preset = Preset(name="x", summary="", loss=use("clip", dual_clip=2.0))
        assert [made.name for made in preset.uses("advantage")] == ["grpo"]
        assert preset.uses("modulators") == ()
        assert preset.uses("loss")[0].settings == {"dual_clip": 2.0}


class TestChecks:
    @pytest.fixture
    def view(self) -> BatchView:
        return BatchView.of([flat_group([1.0, 0.0], turns=2, tokens=3)])

    def test_wrong_shape_names_the_entry(self, view: BatchView, monkeypatch: pytest.MonkeyPatch) -> None:
        def short(view: BatchView, reward_S: Floats, settings: Knobs) -> Floats:
            return reward_S[:-1]

        monkeypatch.setattr(sys.modules[__name__], "short", short, raising=False)
        objective = self.with_advantage(short)
        with pytest.raises(ObjectiveError, match=r"advantage entry .* returned shape \[3\], not \[4\] or \[12\]"):
            objective.credit(view)

    def test_not_finite_names_the_entry(self, view: BatchView) -> None:
        def infinite(view: BatchView, reward_S: Floats, settings: Knobs) -> Floats:
            return np.log(0 * reward_S)

        with np.errstate(divide="ignore"), pytest.raises(ObjectiveError, match="not finite"):
            self.with_advantage(infinite).credit(view)

    def test_advantages_per_token_are_taken_as_they_are(self, view: BatchView) -> None:
        def positions(view: BatchView, reward_S: Floats, settings: Knobs) -> Floats:
            return np.arange(12.0)

        assert self.with_advantage(positions).credit(view).advantage_K.tolist() == list(range(12))

    def test_statistics_are_over_kept_groups_and_dropped_ones_have_no_advantage(self) -> None:
        groups = [flat_group([1.0, 1.0]), flat_group([0.0, 1.0], turns=2, index=1)]
        said = {"preset": "empg", "select": ["varied"]}
        credit = Objective.resolve(said).credit(BatchView.of(groups))
        alone = Objective.resolve(said).credit(BatchView.of(groups[1:]))
        assert credit.groups == [1]
        assert credit.kept_G.tolist() == [False, True]
        assert credit.advantage_K.tolist() == [0.0, 0.0, *alone.advantage_K]
        assert credit.metrics["groups/kept"] == 0.5

    def test_nothing_kept(self) -> None:
        credit = Objective.resolve({"select": ["varied"]}).credit(BatchView.of([flat_group([1.0, 1.0])]))
        assert credit.groups == []
        assert credit.advantage_K.tolist() == [0.0, 0.0]

    def with_advantage(self, function: Any) -> Objective:
        spec = ObjectiveSpec.parse("grpo")
        made = make_entry("advantage", "mine", function, Knobs)
        bound = type(spec.advantage)("mine", made, Knobs())
        return Objective(type(spec)(**{**vars(spec), "advantage": bound}))


def test_help_stays_light() -> None:
    code = "import sys, turnwise_trainer.config as c; c.ObjectiveSpec.parse('arpo'); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], timeout=500).returncode == 0


def test_built_in_presets() -> None:
    assert {"grpo", "empg", "arpo", "gspo"} <= set(catalog.presets())
