"""The household as an environment: commands in, sentences out, 1.0 when the goal holds."""

from __future__ import annotations

import hashlib
import json
import re
from typing import NamedTuple

from turnwise_envs.dice import Dice
from turnwise_envs.environment import Environment
from turnwise_envs.household import text
from turnwise_envs.household.expert import expert_command, expert_thought
from turnwise_envs.household.plans import SPLIT_SIZES
from turnwise_envs.household.rules import Command, commands, is_understood
from turnwise_envs.household.tasks import HouseholdTasks, scene_of
from turnwise_envs.household.world import State, World, goal_holds
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

SPEC = EnvSpec(
    id="household",
    version="2",
    description="Household chores in text, with ALFWorld's commands, sentences and six task families.",
    action_format="text",
    max_turns=30,
    splits=[SplitSpec(name=name, size=size) for name, size in SPLIT_SIZES.items()],
    options_schema={
        "type": "object",
        "properties": {
            "max_turns": {"type": "integer", "minimum": 1, "maximum": 200},
            "show_admissible": {
                "type": "boolean",
                "description": "Append the admissible actions to the text of every observation.",
            },
            "repeat_task": {
                "type": "boolean",
                "description": "Begin the text of every observation with the task, so that it is near where the policy acts.",
            },
            "careless_expert": {
                "type": "number",
                "minimum": 0,
                "maximum": 1,
                "description": "Share of the tasks in which the expert forgets to clean, heat or cool.",
            },
            "orderly_expert": {
                "type": "boolean",
                "description": "The expert searches receptacles in the order of the listing, not the likely ones first.",
            },
            "thinking_expert": {
                "type": "boolean",
                "description": "The expert thinks aloud, a line before each command: what it is after, and which one it sees.",
            },
        },
        "additionalProperties": False,
    },
    deterministic=True,
    snapshot=True,
)

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)


class _Switches(NamedTuple):
    """The options of an episode, as they stand in its snapshots."""

    show_admissible: bool
    repeat_task: bool
    careless: bool
    orderly: bool
    thinking: bool


class Household(Environment):
    """One room, one chore. ``action.text`` is a command such as ``take mug 1 from desk 2``."""

    spec = SPEC
    tasks = HouseholdTasks(SPEC)

    _world: World
    _state: State
    _commands: dict[str, Command]
    _admissible: list[str]
    _key: str
    _switches: _Switches

    async def reset(self, task: Task, seed: int, options: JsonObject) -> Observation:
        """Begin ``task``. Nothing is random after that, so ``seed`` makes no difference."""
        world = scene_of(task.split, task.index).world
        self._become(
            world,
            world.initial(),
            _Switches(
                show_admissible=bool(options.get("show_admissible", False)),
                repeat_task=bool(options.get("repeat_task", False)),
                careless=Dice("careless", task.id).chance(float(options.get("careless_expert", 0.0))),
                orderly=bool(options.get("orderly_expert", False)),
                thinking=bool(options.get("thinking_expert", False)),
            ),
        )
        return self._observe(text.opening(world))

    async def step(self, action: Action) -> StepResult:
        """Run the command in ``action``; what cannot be done now says "Nothing happens."."""
        line = command_line(action.text)
        command = self._commands.get(line)
        before = self._state
        after, said = (before, text.NOTHING_HAPPENS) if command is None else command.run(self._world, before)
        changed = after != before
        solved = changed and goal_holds(self._world, after)
        if changed:
            self._enter(after)
        if action.tool_calls:
            said = f"{said} {text.NO_TOOLS}"
        if self._switches.repeat_task:
            said = f"{text.task_line(self._world)}\n{said}"
        return StepResult(
            observation=self._observe(said),
            reward=1.0 if solved else 0.0,
            terminated=solved,
            info=StepInfo(
                action_valid=command is not None or is_understood(self._world, line),
                action_effective=changed,
                metrics={"success": 1.0} if solved else {},
                end="solved" if solved else None,
            ),
        )

    async def finish(self, reason: str) -> StepResult:
        """An unfinished chore is worth nothing."""
        result = await super().finish(reason)
        info = result.info.model_copy(update={"metrics": {"success": 0.0}})
        return result.model_copy(update={"info": info})

    def snapshot(self) -> bytes:
        world = self._world
        return json.dumps([world.split, world.index, *self._switches, self._state], separators=(",", ":")).encode()

    def restore(self, snapshot: bytes) -> None:
        split, index, *switches, (where, *rest) = json.loads(snapshot)
        self._become(scene_of(split, index).world, State(tuple(where), *rest), _Switches(*switches))

    def expert_action(self) -> Action | None:
        """What an agent would do that knows only what this episode has shown; None when it believes to be done."""
        command = expert_command(self._world, self._state, self._switches.careless, self._switches.orderly)
        if command is None:
            return None
        return Action(
            text=f"{expert_thought(self._world, self._state)}\n{command}" if self._switches.thinking else command
        )

    def _become(self, world: World, state: State, switches: _Switches) -> None:
        self._world, self._switches = world, switches
        self._enter(state)

    def _enter(self, state: State) -> None:
        """Everything that the state alone decides: an action that changes nothing costs nothing of this."""
        self._state = state
        self._commands = commands(self._world, state)
        self._admissible = sorted(self._commands)
        # The world and its state; what the agent has looked into is knowledge and stays out.
        plain = f"{self._world.task_id}{state[:-1]}"
        self._key = hashlib.sha256(plain.encode()).hexdigest()[:16]

    def _observe(self, said: str) -> Observation:
        if self._switches.show_admissible:
            said = f"{said}\n\nAdmissible actions: {', '.join(self._admissible)}"
        return Observation.say(said, state_key=self._key, admissible_actions=self._admissible)


def command_line(said: str) -> str:
    """The command in what the policy said: thoughts dropped, last line that is not empty, lower case."""
    if "<" in said:
        _, _, said = _THOUGHT.sub("", said).rpartition("</think>")
    lines = said.strip().splitlines()
    return " ".join(lines[-1].lower().split()) if lines else ""
