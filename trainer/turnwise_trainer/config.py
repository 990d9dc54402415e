"""The configuration of a run: one TOML file, plus ``--set a.b=c`` overrides, validated as a whole.

A setting that does not exist or that nothing would read is an error. ``dump`` writes everything, defaults included, so
that the file in a run's directory says exactly what ran.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Field, PlainSerializer, PlainValidator, model_validator

from turnwise_trainer.errors import ConfigError
from turnwise_trainer.settings import Settings, plain, validate
from turnwise_trainer.slots import LIST_SLOTS
from turnwise_trainer.spec import ObjectiveSpec

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class EnvConfig(Settings):
    """Where episodes come from."""

    id: str = Field(description="Environment id, as served.")
    urls: tuple[str, ...] = Field(
        default=("http://127.0.0.1:8000",), min_length=1, description="Base URLs of servers (replicas) that serve it."
    )
    split: str = Field(default="train", description="Split of tasks to train on.")
    where: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="Only tasks whose public metadata has one of these values, in training and in evaluation: "
        '{family = ["look_at_obj_in_light"]}.',
    )
    max_tasks: Positive | None = Field(
        default=None, description="Train on the first so many tasks of the split (that match where); none: on all."
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Environment options, checked by the environment's own schema."
    )
    seed: int = Field(
        default=0, ge=0, description="Seed of what is random in the environment after the start of an episode."
    )


class RolloutConfig(Settings):
    """How groups of episodes are drawn."""

    groups_per_step: Positive = Field(default=16, description="Tasks per training step, each with one group.")
    group_size: Positive = Field(default=8, description="Episodes per group, branches included.")
    temperature: float = Field(default=1.0, gt=0.0, description="Sampling temperature; the loss uses it too.")
    max_action_tokens: Positive = Field(default=32, description="Most tokens of one action, the stop token included.")
    max_context_tokens: Positive = Field(
        default=2048, description="Most tokens of a context; an episode that would exceed it is finished."
    )
    max_concurrent_groups: Positive = Field(default=16, description="Most groups that are drawn at the same time.")
    deterministic: bool = Field(
        default=False, description="Same tokens whatever else is in the batch: fixed decode shapes, slower."
    )
    cache_tokens: Positive = Field(
        default=262144, description="Budget of the key-value cache; paths that do not fit are prefilled again."
    )

    @model_validator(mode="after")
    def _action_fits_context(self) -> RolloutConfig:
        if self.max_action_tokens >= self.max_context_tokens:
            raise ValueError("max_action_tokens must be less than max_context_tokens, or no action could be taken")
        return self


class OptimizerConfig(Settings):
    """AdamW, and how a batch is cut."""

    lr: float = Field(default=1e-5, gt=0.0, description="Peak learning rate.")
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="AdamW's running-average coefficients.")
    eps: float = Field(default=1e-8, gt=0.0, description="AdamW's term in the denominator.")
    weight_decay: float = Field(default=0.0, ge=0.0, description="AdamW's decoupled weight decay.")
    grad_clip: float = Field(
        default=1.0, gt=0.0, description="Largest gradient norm; longer gradients are scaled down to it."
    )
    warmup_steps: Count = Field(default=0, description="Training steps over which the rate rises linearly from 0.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant",
        description="What the rate does after the warm-up; linear and cosine reach 0 at the last step.",
    )
    minibatches: Positive = Field(
        default=1, description="Optimizer steps per epoch: the kept groups are split into so many."
    )
    epochs: Positive = Field(default=1, description="Passes over each batch.")
    microbatch_tokens: Positive = Field(
        default=16384,
        description="Most tokens (context included) in one forward pass; a group that is larger goes alone.",
    )

    @model_validator(mode="after")
    def _betas_below_one(self) -> OptimizerConfig:
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError("betas must be at least 0 and less than 1")
        return self


class EvalConfig(Settings):
    """Evaluation during training."""

    every: Count = Field(default=0, description="Training steps between evaluations; 0: never.")
    splits: tuple[str, ...] = Field(default=(), description="Splits to evaluate on.")
    episodes: Positive = Field(
        default=64,
        description="Tasks per split, always the same: the first that `env.where` lets through. One episode of each in "
        "every mode, so that the standard error of `success` is at most 0.5 / sqrt(episodes), 0.06 for 64.",
    )
    modes: tuple[Literal["greedy", "sampled"], ...] = Field(
        default=("greedy",), min_length=1, description="How to decode."
    )
    temperature: float = Field(default=1.0, gt=0.0, description="Temperature of mode sampled.")

    @model_validator(mode="after")
    def _all_of_it_is_used(self) -> EvalConfig:
        fields = type(self).model_fields
        changed = [name for name in fields if getattr(self, name) != fields[name].get_default()]
        if self.every == 0 and changed:
            raise ValueError(f"{', '.join(changed)} would have no effect while every = 0")
        if self.every and not self.splits:
            raise ValueError("splits must name at least one split when every > 0")
        if "temperature" in changed and "sampled" not in self.modes:
            raise ValueError("temperature has no effect without mode 'sampled'")
        return self


class CheckpointConfig(Settings):
    """What a run keeps on disk."""

    every: Positive = Field(default=10, description="Training steps between checkpoints; the last step always has one.")
    keep: Positive = Field(default=2, description="How many of the newest checkpoints are kept.")


class TrainConfig(Settings):
    """Everything that decides a training run."""

    model: str = Field(description="Directory of a Hugging Face checkpoint with its tokenizer.")
    run: str = Field(description="The run's directory; not set: runs/<environment id>.")
    seed: Count = Field(default=0, description="Seed of task order and sampling.")
    steps: Positive = Field(default=100, description="Training steps.")
    env: EnvConfig = Field(description="Where episodes come from.")
    objective: Annotated[ObjectiveSpec, PlainValidator(ObjectiveSpec.parse), PlainSerializer(ObjectiveSpec.table)] = (
        Field(default_factory=lambda: ObjectiveSpec.parse("grpo"), description="A preset, or a table of slots.")
    )
    rollout: RolloutConfig = Field(default=RolloutConfig(), description="How groups of episodes are drawn.")
    optimizer: OptimizerConfig = Field(default=OptimizerConfig(), description="AdamW, and how a batch is cut.")
    eval: EvalConfig = Field(default=EvalConfig(), description="Evaluation during training.")
    checkpoint: CheckpointConfig = Field(default=CheckpointConfig(), description="What a run keeps on disk.")

    @model_validator(mode="before")
    @classmethod
    def _run_by_environment(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "run" not in data:
            env = data.get("env")
            name = env.get("id") if isinstance(env, Mapping) else getattr(env, "id", None)
            # An import path ("package.module:Class") is not a file name everywhere.
            return {**data, "run": f"runs/{str(name).replace(':', '.')}"}
        return data

    @model_validator(mode="after")
    def _parts_fit(self) -> TrainConfig:
        if self.optimizer.minibatches > self.rollout.groups_per_step:
            raise ValueError(
                f"optimizer.minibatches: {self.optimizer.minibatches} minibatches cannot be made of whole groups "
                f"when rollout.groups_per_step = {self.rollout.groups_per_step}"
            )
        if self.optimizer.warmup_steps > self.steps:
            raise ValueError(f"optimizer.warmup_steps: more than steps = {self.steps}")
        return self


def load(path: Path | str | None = None, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a TOML file, apply ``a.b=c`` overrides in order, and validate.

    An override's value is TOML (``0.1``, ``true``, ``["a"]``, ``"1.0"``); what is not TOML is taken as a string.

    Raises:
        ConfigError: one line that starts with the path of what is wrong.
    """
    table: dict[str, Any] = {}
    if path is not None:
        try:
            table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not TOML: {error}") from error
    done: dict[tuple[str, ...], str] = {}
    for override in overrides:
        path_set = tuple(_override(table, override))
        for earlier, text in done.items():
            if len(earlier) > len(path_set) and earlier[: len(path_set)] == path_set:
                raise ConfigError(f"--set {override}: would undo --set {text}; write it before that one")
        done[path_set] = override
    return validate(TrainConfig, table)


def dump(config: TrainConfig) -> str:
    """TOML text with every setting, defaults included; ``load`` reads it back to an equal configuration."""
    return tomli_w.dumps(plain(config))


def _override(table: dict[str, Any], override: str) -> list[str]:
    """Change the table; returns the path that was set."""
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"--set {override}: write a.b=value")
    path = _key_path(key)
    if path is None:
        raise ConfigError(f"--set {override}: {key!r} is not a setting's path such as optimizer.lr")
    level: Any = table
    for depth, part in enumerate(path[:-1]):
        level = _opened(level, part, path[: depth + 1])
    if isinstance(level, list):
        raise ConfigError(f"--set {override}: the entries are a list; set {key}.SETTING, or the whole list")
    level[path[-1]] = _value(text)
    return path


def _key_path(key: str) -> list[str] | None:
    """``a.b."c.d"`` as TOML reads it, or None."""
    try:
        nested: Any = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        return None
    path = []
    while isinstance(nested, dict):
        if len(nested) != 1:
            return None
        ((part, nested),) = nested.items()
        path.append(part)
    return path


def _value(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return table["value"] if len(table) == 1 else text


def _opened(level: Any, part: str, path: list[str]) -> Any:
    """The table at ``path``, made if there is none; a name is opened up into a table that says the same.

    ``objective = "empg"`` becomes ``{preset = "empg"}``, ``objective.loss = "clip"`` becomes ``{name = "clip"}``. A list of
    entries stays a list (it replaces the preset's), and an entry in it becomes a table with a name.
    """
    if isinstance(level, list):
        return _item(level, part)
    value = level.setdefault(part, {})
    if path == ["objective"] and isinstance(value, str):
        value = level[part] = {"preset": value}
    elif path[0] == "objective" and len(path) == 2 and isinstance(value, str) and part not in LIST_SLOTS:
        value = level[part] = {"name": value}
    is_list_slot = path[0] == "objective" and len(path) == 2 and part in LIST_SLOTS
    if not (isinstance(value, dict) or (is_list_slot and isinstance(value, list))):
        raise ConfigError(f"--set {'.'.join(path)}: is {value!r}, not a table")
    return value


def _item(items: list[Any], name: str) -> dict[str, Any]:
    """The table of an entry in a list of entries, added if it is not there."""
    for position, item in enumerate(items):
        if item == name:
            items[position] = {"name": name}
        named = items[position]
        if isinstance(named, dict) and named.get("name") == name:
            return named
    items.append({"name": name})
    added: dict[str, Any] = items[-1]
    return added
