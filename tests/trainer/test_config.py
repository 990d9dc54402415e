"""The configuration: defaults, overrides, round trip, and errors that say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from turnwise_envs.errors import TurnwiseError
from turnwise_trainer.config import TrainConfig, dump, load
from turnwise_trainer.errors import ConfigError

BASE = ["model=checkpoints/tiny", "env.id=household"]


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def table_of(*overrides: str) -> dict[str, object]:
    return load(None, [*BASE, *overrides]).objective.table()


class TestReading:
    def test_defaults(self) -> None:
        config = load(None, BASE)
        assert config.run == "runs/household"
        assert config.objective.preset == "grpo"
        assert config.env.urls == ("http://127.0.0.1:8000",)
        assert (config.rollout.groups_per_step, config.rollout.group_size) == (16, 8)
        assert load(None, ["model=m", "env.id=pkg.worlds:Maze"]).run == "runs/pkg.worlds.Maze"
        assert load(None, [*BASE, "run=elsewhere"]).run == "elsewhere"

    def test_file_and_overrides_in_order(self, tmp_path: Path) -> None:
        path = write(
            tmp_path,
            """
            model = "m"
            steps = 7
            objective = "arpo"
            [env]
            id = "household"
            options = {max_turns = 12}
            [optimizer]
            lr = 3e-4
            betas = [0.9, 0.95]
            """,
        )
        config = load(path, ["optimizer.lr=1e-3", "optimizer.lr=2e-3", "env.options.easy=true", 'run="1"'])
        assert config.steps == 7
        assert config.optimizer.lr == 2e-3
        assert config.optimizer.betas == (0.9, 0.95)
        assert config.env.options == {"max_turns": 12, "easy": True}
        assert config.run == "1"
        assert config.objective.sampling.name == "arpo"

    @pytest.mark.parametrize("preset", ["grpo", "empg", "arpo", "gspo"])
    def test_dump_loads_back_equal(self, tmp_path: Path, preset: str) -> None:
        config = load(
            None,
            [*BASE, f"objective={preset}", "objective.regularizers.kl.coefficient=0.01", "env.options.seeded=true"],
        )
        assert load(write(tmp_path, dump(config))) == config
        assert load(write(tmp_path, dump(config)), ["steps=3"]) != config

    def test_dump_keeps_what_was_turned_off_or_emptied(self, tmp_path: Path) -> None:
        config = load(None, [*BASE, "objective=arpo", "objective.loss.dual_clip=none", "objective.select=[]"])
        again = load(write(tmp_path, dump(config)))
        assert again == config
        assert again.objective.table()["loss"]["dual_clip"] == "none"  # type: ignore[index]
        shuffled = load(None, [*BASE, 'objective.rewards=["shuffled_env"]'])
        assert load(write(tmp_path, dump(shuffled))) == shuffled


class TestObjective:
    def test_preset_then_a_setting_of_its_entry(self) -> None:
        changed = table_of("objective=empg", "objective.modulators.empg.zeta=0.05")
        assert changed["preset"] == "empg"
        assert changed["modulators"] == [{"name": "empg", "k": 1.0, "k_prime": 1.0, "zeta": 0.05}]

    def test_a_list_slot_by_name_adds(self) -> None:
        added = table_of("objective=empg", "objective.modulators.arpo_hard={}")
        assert [item["name"] for item in added["modulators"]] == ["empg", "arpo_hard"]  # type: ignore[attr-defined]

    def test_a_list_replaces_and_can_be_opened_up(self) -> None:
        replaced = table_of("objective=empg", 'objective.modulators=["arpo_hard"]')
        assert replaced["modulators"] == [{"name": "arpo_hard"}]
        opened = table_of('objective.modulators=["arpo_hard", "empg"]', "objective.modulators.empg.k=2")
        assert [item["name"] for item in opened["modulators"]] == ["arpo_hard", "empg"]  # type: ignore[attr-defined]
        assert opened["modulators"][1]["k"] == 2.0  # type: ignore[index]

    def test_a_table_merges_and_a_name_starts_from_the_entrys_defaults(self) -> None:
        merged = table_of("objective=arpo", "objective.loss.eps_high=0.28")["loss"]
        assert (merged["eps_high"], merged["dual_clip"]) == (0.28, 3.0)  # type: ignore[index]
        named = table_of("objective=arpo", "objective.loss=clip", "objective.loss.eps_high=0.28")["loss"]
        assert (named["eps_high"], named["dual_clip"]) == (0.28, "none")  # type: ignore[index]

    def test_without_a_preset_it_is_grpo(self) -> None:
        assert table_of("objective.modulators.empg.k=1")["preset"] == "grpo"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["lr=1"], "lr: unknown setting; did you mean 'optimizer.lr'?"),
        (["optimizer.weight_decy=1"], "optimizer.weight_decy: unknown setting; did you mean 'weight_decay'?"),
        (["steps=many"], "steps: input should be a valid integer"),
        (["steps=0"], "steps: input should be greater than or equal to 1, not 0"),
        (["rollout.temperature=inf"], "rollout.temperature: input should be a finite number"),
        (["rollout.max_action_tokens=4096"], "rollout: max_action_tokens must be less than max_context_tokens"),
        (["optimizer.betas=[0.9, 1.0]"], "optimizer: betas must be at least 0 and less than 1"),
        (["optimizer.minibatches=17"], "optimizer.minibatches: 17 minibatches cannot be made of whole groups"),
        (["optimizer.warmup_steps=200"], "optimizer.warmup_steps: more than steps = 100"),
        (["eval.episodes=3", "eval.modes=['sampled']"], "eval: episodes, modes would have no effect while every = 0"),
        (["eval.every=3"], "eval: splits must name at least one split when every > 0"),
        (
            ["eval.every=3", "eval.splits=['a']", "eval.temperature=0.5"],
            "eval: temperature has no effect without mode 'sampled'",
        ),
        (["objective=empq"], "objective: no preset 'empq'; did you mean 'empg'?"),
        (["objective.modulator.empg.k=1"], "objective.modulator: unknown slot; did you mean 'modulators'?"),
        (["objective.modulators.emgp.k=1"], "objective.modulators: no entry 'emgp'; did you mean 'empg'?"),
        (["objective.modulators.empg.zta=1"], "objective.modulators.empg.zta: unknown setting; did you mean 'zeta'?"),
        (["objective.sampling.beam=3"], "objective.sampling.beam: unknown setting; known: none"),
        (["objective.loss.max_length=3"], "objective.loss: max_length goes with aggregation"),
        (
            ["objective=arpo", "objective.sampling.mode=released", "objective.sampling.threshold=0.4"],
            "objective.sampling: threshold has no effect with mode = 'released'",
        ),
        (["objective.modulators=empg"], "objective.modulators: a list of entries or a table by entry name, not 'empg'"),
        (["objective.modulators.empg=2"], "objective.modulators.empg: a table of settings, not 2"),
        (['objective.modulators=["empg", "empg"]'], "objective.modulators: an entry is named twice"),
        (["objective.rewards=[]"], "objective.rewards: at least one entry is needed"),
        (["objective.preset=3"], "objective.preset: the name of a preset, not 3"),
        (["objective=3"], "objective: the name of a preset or a table, not 3"),
        (["steps"], "--set steps: write a.b=value"),
        (["a b=1"], "--set a b=1: 'a b' is not a setting's path"),
        (["steps.more=1", "steps.more.most=1"], "--set steps.more: is 1, not a table"),
        (
            ["objective.loss.eps_low=0.1", "objective=arpo"],
            "--set objective=arpo: would undo --set objective.loss.eps_",
        ),
    ],
)
def test_errors_are_one_line_that_starts_with_the_path(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, [*BASE, *overrides])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, TurnwiseError)


def test_missing_settings_are_named() -> None:
    with pytest.raises(ConfigError, match=r"^model: required, but not set; env: required, but not set$"):
        load()


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^cannot read .*nothing\.toml: No such file or directory$"):
        load(tmp_path / "nothing.toml")
    with pytest.raises(ConfigError, match=r"run\.toml is not TOML: "):
        load(write(tmp_path, "steps ="))


def test_every_setting_is_described() -> None:
    def undescribed(model: type[BaseModel]) -> list[str]:
        bare = [f"{model.__name__}.{name}" for name, field in model.model_fields.items() if not field.description]
        for field in model.model_fields.values():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                bare += undescribed(field.annotation)
        return bare

    assert undescribed(TrainConfig) == []
