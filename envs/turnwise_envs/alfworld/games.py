"""ALFWorld's data set on disk: which games a split has, and what is known about one without playing it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from turnwise_envs.alfworld.export import GAME_FILE, TRAJECTORY_FILE
from turnwise_envs.household.tables import FAMILIES
from turnwise_envs.types import JsonObject

SPLITS = ("train", "valid_seen", "valid_unseen")

_SOLVABLE = re.compile(rb'"solvable":\s*(true|false|null)')
_INSTRUCTION = re.compile(r'Your task is to: (.*?)"')


@dataclass(frozen=True)
class GameFiles:
    """One game of the data set: ``pick_and_place_simple-Mug-None-Desk-308/trial_T20190908_.../game.tw-pddl``."""

    path: Path

    @property
    def name(self) -> str:
        """Task and trial: ``pick_and_place_simple-Mug-None-Desk-308/trial_T20190908_...``."""
        return "/".join(self.path.parts[-3:-1])

    @property
    def family(self) -> str:
        return self._parts[0]

    @property
    def scene(self) -> str:
        """The simulator's floor plan."""
        return self._parts[-1]

    @cached_property
    def instruction(self) -> str:
        """The task in words, as the game tells it."""
        found = _INSTRUCTION.search(self._game["grammar"])
        return found[1] if found else self.name

    @property
    def walkthrough(self) -> list[str]:
        """Commands that win, as the data set gives them."""
        return self._game.get("walkthrough") or []

    @cached_property
    def goal(self) -> JsonObject:
        """The goal's types: ``object_target``, ``parent_target``, ``toggle_target``, ..."""
        goal: JsonObject = json.loads(self.path.with_name(TRAJECTORY_FILE).read_bytes())["pddl_params"]
        return goal

    @property
    def _parts(self) -> list[str]:
        return self.path.parts[-3].split("-")

    @cached_property
    def _game(self) -> JsonObject:
        game: JsonObject = json.loads(self.path.read_bytes())
        return game


def data_folder(given: str) -> Path:
    """The folder of the data set: the given one, else ``$ALFWORLD_DATA``, else ALFWorld's default."""
    return Path(given or os.environ.get("ALFWORLD_DATA") or "~/.cache/alfworld").expanduser()


def games_of(data: Path, split: str) -> list[GameFiles]:
    """The games of a split, by name: those that ALFWorld's loader plays.

    Like that loader it leaves out what is not one of the six families (movable receptacles, slices) and what is not
    known to be solvable.
    """
    return [GameFiles(path) for path in sorted(_candidates(data / "json_2.1.1" / split)) if _is_solvable(path)]


def _candidates(folder: Path) -> Iterator[Path]:
    for path in folder.glob(f"*/*/{GAME_FILE}"):
        task = path.parts[-3]
        if task.split("-")[0] in FAMILIES and "Sliced" not in task:
            yield path


def _is_solvable(path: Path) -> bool:
    """Read from the end of the file, where the data set has it: there are thousands of games."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        for start in (max(0, size - 16_384), 0):
            file.seek(start)
            found = _SOLVABLE.search(file.read())
            if found:
                return found[1] == b"true"
    return False
