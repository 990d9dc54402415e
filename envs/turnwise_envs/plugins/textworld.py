"""The adapter ``textworld``: games that TextWorld generates, and game files of TextWorld or for the Z-machine (Jericho).

``turnwise serve textworld --rooms 3`` generates: each index is a game of its own, made when it is first asked for and kept
in the user's cache. ``turnwise serve textworld:games`` serves the files of a folder, ``textworld:zork1.z5`` one file. A
generated game knows which commands are possible and how it is won from here: so there are admissible actions and an
expert. Of a Z-machine game that Jericho knows there is its walkthrough; of any other only the text.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import unicodedata
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from turnwise_envs.actions import last_line
from turnwise_envs.adapters import adapter
from turnwise_envs.environment import Environment, SyncEnvironment, TaskSet, cut_short
from turnwise_envs.errors import UnknownEnvironment
from turnwise_envs.plugins.foreign import seed_of, short_key, spec_id
from turnwise_envs.types import (
    Action,
    EnvSpec,
    JsonObject,
    Observation,
    Reference,
    SplitSpec,
    StepInfo,
    StepResult,
    Task,
)

#: Characters of a command that reach the interpreter; its buffer holds 198 and their end.
MAX_COMMAND = 190
#: Interpreters show the room and the score in a last line of their own, far to the right.
_STATUS_LINE = re.compile(r"\n>[^\n]*\Z| {20,}-=[^\n]*\Z")
_GAMES = (".z3", ".z5", ".z8", ".ulx")
HOW = "Each turn, write one command on the last line, such as: look, inventory, go north, take lamp, open box."


@dataclass(frozen=True)
class _Options:
    """What games are generated with."""

    rooms: int
    objects: int
    quest_length: int
    quests: int


@adapter
def textworld(
    path: str = "", *, rooms: int = 3, objects: int = 6, quest_length: int = 4, quests: int = 1, max_turns: int = 50
) -> type[Environment]:
    """TextWorld games: generated ones (without ``path``), or the game files in a folder, or one file.

    ``rooms``, ``objects``: of a generated world. ``quest_length``: commands that its quest takes, at least; ``quests``: how
    many quests there are.
    """
    import textworld as package  # noqa: F401  a missing package is said here, not in the first reset

    games: _Games = _Folder(path) if path else _Generated(_Options(rooms, objects, quest_length, quests))
    spec_ = EnvSpec(
        id=spec_id("textworld", Path(path).stem if path else ""),
        description=games.about,
        max_turns=max_turns,
        splits=games.splits,
        options_schema={
            "type": "object",
            "properties": {"max_turns": {"type": "integer", "minimum": 1, "maximum": 10_000}},
            "additionalProperties": False,
        },
    )

    class Played(TextWorldEpisode):
        spec = spec_
        tasks = GameTasks(spec_, games)

    return Played


class _Games(ABC):
    """Game files by split and index."""

    about: str
    splits: list[SplitSpec]

    @abstractmethod
    def file(self, split: str, index: int) -> Path:
        """The file of a game, made if there is none yet."""


class _Folder(_Games):
    def __init__(self, path: str) -> None:
        place = Path(path)
        found = sorted(p for p in place.iterdir() if p.suffix in _GAMES) if place.is_dir() else [place]
        if not found or not all(p.is_file() for p in found):
            raise UnknownEnvironment(f"there is no game at {path} (games are files {', '.join(_GAMES)}, and .json)")
        if not place.is_dir() and place.suffix not in (*_GAMES, ".json"):
            raise UnknownEnvironment(f"{path} is no game: games are files {', '.join(_GAMES)}, and .json")
        self._files = found
        self.about = f"The text game {place.stem}." if len(found) == 1 else f"{len(found)} text games of {place.stem}."
        self.splits = [SplitSpec(name="train", size=len(found))]

    def file(self, split: str, index: int) -> Path:
        found = self._files[index]
        if found.suffix != ".json":
            return found
        beside = [p for suffix in (".z8", ".ulx") if (p := found.with_suffix(suffix)).is_file()]
        return beside[0] if beside else _compiled_from(found)


class _Generated(_Games):
    def __init__(self, options: _Options) -> None:
        self._options = options
        self.about = f"Text games that TextWorld generates: {options.rooms} rooms, {options.objects} objects."
        self.splits = [SplitSpec(name="train", size=10_000), SplitSpec(name="valid", size=1_000)]

    def file(self, split: str, index: int) -> Path:
        import textworld as package

        seed = seed_of(split, index)
        folder = _cache(json.dumps([package.__version__, asdict(self._options)]))
        return _kept(folder / f"{seed}.z8", lambda made: self._generate(seed, made))

    def _generate(self, seed: int, made: Path) -> None:
        import textworld as package

        options = package.GameOptions()
        options.seeds = seed
        options.nb_rooms, options.nb_objects = self._options.rooms, self._options.objects
        options.quest_length, options.quest_breadth = self._options.quest_length, 1
        options.nb_parallel_quests = self._options.quests
        options.path = str(made)
        package.make(options)


def _compiled_from(game: Path) -> Path:
    import textworld as package
    from textworld.generator import compile_game

    def compile_to(made: Path) -> None:
        options = package.GameOptions()
        options.path = str(made)
        compile_game(package.Game.load(str(game)), options)

    return _kept(_cache(hashlib.sha256(game.read_bytes()).hexdigest()) / f"{game.stem}.z8", compile_to)


def _cache(what: str) -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "turnwise" / "textworld" / short_key(what)


def _kept(game: Path, make: Any) -> Path:
    """``game``, made by ``make(path)`` unless it is there. Whoever is first puts it there whole."""
    if not game.is_file():
        game.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=game.parent) as place:
            made = Path(place) / game.name
            make(made)
            for suffix in (".json", ".z8"):  # the game last: it says that all is there
                shutil.move(made.with_suffix(suffix), game.with_suffix(suffix))
    return game


class GameTasks(TaskSet):
    """Games by index. The reference of a game has its walkthrough."""

    def __init__(self, spec: EnvSpec, games: _Games) -> None:
        super().__init__(spec)
        self.games = games

    def build(self, split: str, index: int) -> Task:
        return self.task(
            split,
            index,
            instruction="Play the text game and win it.",
        )

    def reference(self, task: Task) -> Reference:
        return Reference(data={"walkthrough": _walkthrough(self.games.file(task.split, task.index))})


class TextWorldEpisode(SyncEnvironment):
    """One game in an interpreter of its own."""

    tasks: ClassVar[GameTasks]
    _env: Any = None

    def reset_sync(self, task: Task, seed: int, options: JsonObject) -> Observation:
        """Generated games have no chance in them; those that have get ``seed`` for it."""
        import textworld as package

        self._file = self.tasks.games.file(task.split, task.index)
        self._env = package.start(
            str(self._file),
            package.EnvInfos(
                admissible_commands=True,
                policy_commands=True,
                objective=True,
                won=True,
                lost=True,
                score=True,
                max_score=True,
                facts=self._file.with_suffix(".json").is_file(),
            ),
        )
        self._env.seed(seed % 2**31)
        self._state = self._env.reset()
        self._score, self._taken = self._points(), list[str]()
        opening, objective = _clean(self._state.feedback), (self._state.objective or "").strip()
        if objective and objective in opening:
            opening = opening[opening.index(objective) :]  # what is before it is TextWorld's banner
        return self._observe(f"{opening}\n\n{HOW}")

    def step_sync(self, action: Action) -> StepResult:
        command = _typed(last_line(action.text)) or "wait"
        before, possible = self._key(), self._state.admissible_commands
        self._state, _, done = self._env.step(command)
        self._taken.append(command)
        gained, self._score = self._points() - self._score, self._points()
        won = bool(self._state.won)
        ended = bool(done) or won or bool(self._state.lost)
        after = self._key()
        return StepResult(
            observation=self._observe(_clean(self._state.feedback)),
            reward=round(gained, 6),
            terminated=ended,
            info=StepInfo(
                action_valid=not possible or command.lower() in map(str.lower, possible),
                action_effective=before is None or before != after,
                metrics=self._metrics(won) if ended else {},
                end=("solved" if won else "failed") if ended else None,
            ),
        )

    def finish_sync(self, reason: str) -> StepResult:
        return cut_short(reason, metrics=self._metrics(False))

    def expert_action(self) -> Action | None:
        """How the game is won from here; of a game that does not know it, its walkthrough as long as it was followed."""
        if self._state.policy_commands is not None:
            return Action(text=self._state.policy_commands[0]) if self._state.policy_commands else None
        path, done = _walkthrough(self._file), len(self._taken)
        return Action(text=path[done]) if self._taken == path[:done] and done < len(path) else None

    async def close(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None

    def _observe(self, said: str) -> Observation:
        possible = self._state.admissible_commands
        return Observation.say(said, state_key=self._key(), admissible_actions=sorted(possible) if possible else None)

    def _points(self) -> float:
        """Share of the points: 0 to 1 (a game may also take points away)."""
        return float(self._state.score or 0) / max(1, int(self._state.max_score or 1))

    def _metrics(self, won: bool) -> dict[str, float]:
        return {"score": self._score, "success": float(won)}

    def _key(self) -> str | None:
        """The facts of a generated game."""
        facts = self._state.facts
        return None if facts is None else short_key(self._file.stem, *sorted(map(str, facts)))


def _walkthrough(game: Path) -> list[str]:
    """Commands that win the game; none if nobody knows them."""
    beside = game.with_suffix(".json")
    if beside.is_file():
        metadata = json.loads(beside.read_text(encoding="utf-8")).get("metadata", {})
        return [str(command) for command in metadata.get("walkthrough") or []]
    if not game.suffix.startswith(".z"):
        return []
    import jericho

    interpreter = jericho.FrotzEnv(str(game))
    try:
        return [str(c) for c in interpreter.get_walkthrough()] if interpreter.is_fully_supported else []
    finally:
        interpreter.close()


def _typed(said: str) -> str:
    """What can be typed to a Z-machine: ASCII without control characters, accents dropped.

    Jericho's interpreter waits for ever after a null character, and it takes other control characters as keys.
    """
    plain = unicodedata.normalize("NFKD", said[: 2 * MAX_COMMAND]).encode("ascii", "ignore").decode()
    return "".join(sign for sign in plain if sign.isprintable())[:MAX_COMMAND].strip()


def _clean(said: str | None) -> str:
    """Without the prompt, the status line and what centres a line; one empty line at most between paragraphs."""
    text = _STATUS_LINE.sub("", said or "").strip()
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"^ {20,}", "", text, flags=re.MULTILINE))
