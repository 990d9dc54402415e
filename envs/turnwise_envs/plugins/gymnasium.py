"""The adapter ``gymnasium``: ``turnwise serve gymnasium:FrozenLake-v1`` serves a Gymnasium environment as text.

Gymnasium says: ``reset(seed)`` fixes the world and all chance after it. Here the index fixes the world, and the seed what
is random afterwards: so ``reset`` gets the index as its seed, and right after it the generator is replaced by one made of
both. Episodes have their own global generators too. Text out: the picture that the environment draws for terminals,
without escape codes, or the values of its observation. Text in: the name of an action.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar

from turnwise_envs.adapters import adapter
from turnwise_envs.dice import stable_hash
from turnwise_envs.environment import Environment, FunctionTaskSet, SyncEnvironment, cut_short
from turnwise_envs.errors import UnknownEnvironment
from turnwise_envs.plugins.foreign import (
    OwnChance,
    clipped,
    json_argument,
    refusal,
    seed_of,
    short_key,
    spec_id,
)
from turnwise_envs.plugins.screen import plain
from turnwise_envs.plugins.spaces import ActionReader, words
from turnwise_envs.plugins.toy_text import Known, best_policy, known, table_of
from turnwise_envs.types import (
    Action,
    EnvSpec,
    JsonObject,
    Observation,
    SplitSpec,
    StepInfo,
    StepResult,
    Task,
)

#: Turns of an environment that names no limit.
DEFAULT_TURNS = 100
_PARTS = ("ansi", "values")


@adapter
def gymnasium(
    id: str,
    *,
    make: str = "{}",
    render: str = "auto",
    actions: str = "",
    instruction: str = "",
    max_turns: int = 0,
    deterministic: bool = True,
) -> type[Environment]:
    """A Gymnasium environment by its id, ``FrozenLake-v1`` or ``module:id``, with discrete or text actions.

    ``make``: arguments of ``gymnasium.make`` in JSON. ``render``: ``ansi`` (what it draws for a terminal), ``values`` (its
    observation in words), ``ansi,values``, or ``auto``: the first if it has it, else the second. ``actions``: names,
    with commas. ``instruction``: the prompt's first words. ``max_turns``: instead of the environment's own limit.
    """
    world = _World.of(id, json_argument("make", make), render, [a.strip() for a in actions.split(",") if a.strip()])
    limit = max_turns or world.limit
    about = instruction or (world.known.about if world.known else f"You play {id}.")
    spec_ = EnvSpec(
        id=spec_id("gymnasium", id),
        description=about.partition(". ")[0].rstrip(".") + ".",
        max_turns=limit,
        splits=[SplitSpec(name="train", size=10_000), SplitSpec(name="valid", size=1_000)],
        options_schema={
            "type": "object",
            "properties": {"max_turns": {"type": "integer", "minimum": 1, "maximum": 100_000}},
            "additionalProperties": False,
        },
        deterministic=deterministic,
    )

    class Played(GymnasiumEpisode):
        spec = spec_
        tasks = FunctionTaskSet(spec_, lambda split, index: f"{about}\n\n{world.reader.usage}")

    Played.world = world
    return Played


@dataclass(frozen=True)
class _World:
    """What all episodes of a made class share."""

    id: str
    arguments: JsonObject
    parts: tuple[str, ...]
    reader: ActionReader
    known: Known | None
    limit: int

    @classmethod
    def of(cls, id: str, arguments: JsonObject, render: str, names: list[str]) -> _World:
        """Looks at one instance. Raises UnknownEnvironment."""
        import gymnasium as gym

        try:
            spec = gym.spec(id.rpartition(":")[2]) if ":" not in id else gym.make(id, **arguments).spec
        except gym.error.Error as error:
            raise UnknownEnvironment(f"gymnasium: {error}") from error
        assert spec is not None
        about = known(id)
        instance = cls(id, arguments, (), ActionReader(gym.spaces.Discrete(1), ()), about, 1).make(0)
        try:
            modes = instance.metadata.get("render_modes", [])
            parts = ("ansi" if "ansi" in modes else "values",) if render == "auto" else tuple(render.split(","))
            if not parts or set(parts) - set(_PARTS):
                raise UnknownEnvironment(f"--render is auto, ansi, values, or ansi,values; not {render!r}")
            if "ansi" in parts and "ansi" not in modes:
                raise UnknownEnvironment(
                    f"{id} draws no text (it has {', '.join(modes) or 'nothing'}): --render values"
                )
            reader = ActionReader(instance.action_space, names or _names(instance, about))
        finally:
            instance.close()
        return cls(id, arguments, parts, reader, about, spec.max_episode_steps or DEFAULT_TURNS)

    def make(self, seed: int) -> Any:
        """A fresh instance without a limit of its own, for the world of ``seed``."""
        import gymnasium as gym

        arguments = dict(self.arguments)
        if "ansi" in self.parts:
            arguments["render_mode"] = "ansi"
        if "FrozenLake" in self.id and arguments.get("map_name", "") is None and arguments.get("desc") is None:
            from gymnasium.envs.toy_text.frozen_lake import generate_random_map

            arguments["desc"] = generate_random_map(seed=seed)  # Gymnasium would draw another one each time
        return gym.make(self.id, max_episode_steps=-1, disable_env_checker=True, **arguments)

    def solved(self, reward: float) -> bool:
        """What an end of itself means."""
        rule = self.known.end_is if self.known else "by reward"
        return rule == "solved" or (rule == "by reward" and reward > 0)


def _names(instance: Any, about: Known | None) -> tuple[str, ...]:
    """Known names, or those of an enumeration ``actions``, as MiniGrid has it; none otherwise."""
    if about is not None and len(about.actions) == getattr(instance.action_space, "n", 0):
        return about.actions
    members = getattr(getattr(instance.unwrapped, "actions", None), "__members__", {})
    return tuple(members) if len(members) == getattr(instance.action_space, "n", 0) else ()


class GymnasiumEpisode(SyncEnvironment):
    """One episode in a Gymnasium environment. :func:`gymnasium` sets ``world``."""

    world: ClassVar[_World]
    _env: Any = None

    def reset_sync(self, task: Task, seed: int, options: JsonObject) -> Observation:
        start = seed_of(task.split, task.index)
        self._chance = OwnChance("gymnasium", self.world.id, start)
        with self._chance:
            self._env = self.world.make(start)
            values, info = self._env.reset(seed=start)
        self._chance.seed("gymnasium", self.world.id, start, seed)
        self._env.unwrapped.np_random = _generator(start, seed)
        self._name = short_key(
            self.world.id, json.dumps(self.world.arguments, sort_keys=True), getattr(self._env.unwrapped, "desc", "")
        )
        self._return = 0.0
        self._seen = self._observe(values, info)
        return self._seen.model_copy(
            update={"messages": Observation.say(f"{task.instruction}\n\n{self._seen.text}").messages}
        )

    def step_sync(self, action: Action) -> StepResult:
        chosen = self.world.reader.read(action.text)
        if chosen is None:
            return refusal(f"{clipped(action.text)!r} is not an action. {self.world.reader.usage}", self._seen)
        before = self._seen.state_key
        with self._chance:
            values, reward, terminated, truncated, info = self._env.step(chosen)
        self._return += float(reward)
        self._seen = self._observe(values, info)
        solved = bool(terminated) and self.world.solved(float(reward))
        return StepResult(
            observation=self._seen,
            reward=float(reward),
            terminated=bool(terminated),
            truncated=bool(truncated) and not terminated,
            info=StepInfo(
                action_effective=before is None or before != self._seen.state_key,
                metrics=self._metrics(solved) if terminated or truncated else {},
                end=("solved" if solved else "failed") if terminated else "max_turns" if truncated else None,
            ),
        )

    def finish_sync(self, reason: str) -> StepResult:
        return cut_short(reason, metrics=self._metrics(False))

    def expert_action(self) -> Action | None:
        """The best action of a tabular world; other worlds have no expert."""
        table = table_of(self._env.unwrapped)
        if table is None:
            return None
        return Action(text=self.world.reader.write(best_policy(self._name, table)(int(self._env.unwrapped.s))))

    async def close(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None

    def _observe(self, values: Any, info: JsonObject) -> Observation:
        parts = []
        if "ansi" in self.world.parts:
            drawn = self._env.render()
            parts.append(plain(drawn if isinstance(drawn, str) else str(drawn)))
        if "values" in self.world.parts:
            say = self.world.known.values if self.world.known and self.world.known.values else words
            parts.append(say(values))
        table = table_of(self._env.unwrapped)
        return Observation.say(
            "\n".join(parts),
            state_key=None if table is None else short_key(self._name, self._env.unwrapped.s),
            admissible_actions=self.world.reader.allowed(info.get("action_mask")) if self.world.reader.names else None,
        )

    def _metrics(self, solved: bool) -> dict[str, float]:
        return {"success": float(solved), "return": self._return}


def _generator(start: int, seed: int) -> Any:
    import numpy

    return numpy.random.Generator(numpy.random.PCG64(stable_hash("gymnasium", start, seed)))
