"""ALFWorld itself behind the protocol: its engine, its data set, its texts."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

from turnwise_envs.adapters import adapter
from turnwise_envs.alfworld.engine import Game
from turnwise_envs.alfworld.games import SPLITS, data_folder, games_of
from turnwise_envs.alfworld.package import package_folder
from turnwise_envs.alfworld.tasks import AlfworldTasks
from turnwise_envs.environment import Environment, SyncEnvironment
from turnwise_envs.errors import UnknownEnvironment
from turnwise_envs.household.env import command_line
from turnwise_envs.household.text import NO_TOOLS
from turnwise_envs.types import Action, EnvSpec, JsonObject, Observation, SplitSpec, StepInfo, StepResult, Task

OPTIONS: JsonObject = {
    "type": "object",
    "properties": {
        "max_turns": {"type": "integer", "minimum": 1, "maximum": 200},
        "show_admissible": {
            "type": "boolean",
            "description": "Append the admissible actions to the text of every observation.",
        },
    },
    "additionalProperties": False,
}


def alfworld(data: str = "") -> type[Environment]:
    """ALFWorld's games in ``data``, else in ``$ALFWORLD_DATA``, else where ``alfworld-download`` puts them.

    Raises ImportError without the package, UnknownEnvironment where there are no games.
    """
    return games_in(str(data_folder(data).resolve()))  # a worker that makes the class again may not have the variable


@adapter
def games_in(data: str) -> type[Environment]:
    """The environment of the games in this folder."""
    package_folder()
    folder = Path(data)
    found = {split: games_of(folder, split) for split in SPLITS}
    games = {split: of_split for split, of_split in found.items() if of_split}
    if not games:
        raise UnknownEnvironment(
            f"alfworld: no games in {folder}/json_2.1.1; run `alfworld-download`, or set ALFWORLD_DATA or --data"
        )
    made = EnvSpec(
        id="alfworld",
        version="1",
        description="ALFWorld (Shridhar et al. 2021) in its own engine, with the games of its data set.",
        action_format="text",
        max_turns=50,
        splits=[SplitSpec(name=split, size=len(of_split)) for split, of_split in games.items()],
        options_schema=OPTIONS,
        deterministic=True,
    )

    class Alfworld(AlfworldEnvironment):
        spec = made
        tasks = AlfworldTasks(made, games)

    return Alfworld


class AlfworldEnvironment(SyncEnvironment):
    """One game. ``action.text`` is a command such as ``take mug 1 from desk 2``, read as in the household."""

    tasks: ClassVar[AlfworldTasks]

    _game: Game | None = None
    _show_admissible: bool

    def reset_sync(self, task: Task, seed: int, options: JsonObject) -> Observation:
        """Begin the game of ``task``. Nothing is random in it, so ``seed`` makes no difference."""
        self._show_admissible = bool(options.get("show_admissible", False))
        self._game = Game(self.tasks.game(task).path)
        return self._observe(self._game.turn.feedback)

    def step_sync(self, action: Action) -> StepResult:
        """Give the command in ``action`` to the engine."""
        game = self._playing
        line = command_line(action.text)
        before = game.turn
        turn = game.step(line)
        return StepResult(
            observation=self._observe(f"{turn.feedback} {NO_TOOLS}" if action.tool_calls else turn.feedback),
            reward=1.0 if turn.won else 0.0,
            terminated=turn.won,
            info=StepInfo(
                action_valid=line in before.admissible or game.understands(line),
                action_effective=turn.facts != before.facts,
                metrics={"success": 1.0} if turn.won else {},
                end="solved" if turn.won else None,
            ),
        )

    async def finish(self, reason: str) -> StepResult:
        """An unfinished game is worth nothing."""
        result = await super().finish(reason)
        info = result.info.model_copy(update={"metrics": {"success": 0.0}})
        return result.model_copy(update={"info": info})

    def expert_action(self) -> Action | None:
        """The next command of the engine's planner, which sees everything; None when it finds no way."""
        plan = self._playing.plan()
        return Action(text=plan[0]) if plan else None

    async def close(self) -> None:
        if self._game is not None:
            self._game.close()
            self._game = None

    @property
    def _playing(self) -> Game:
        assert self._game is not None  # reset comes first
        return self._game

    def _observe(self, said: str) -> Observation:
        game = self._playing
        admissible = list(game.turn.admissible)
        if self._show_admissible:
            said = f"{said}\n\nAdmissible actions: {', '.join(admissible)}"
        key = hashlib.sha256("\n".join(sorted(game.turn.facts)).encode()).hexdigest()[:16]
        return Observation.say(said, state_key=key, admissible_actions=admissible)
