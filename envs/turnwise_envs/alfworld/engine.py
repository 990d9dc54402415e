"""One ALFWorld game in ALFWorld's own engine: TextWorld's PDDL environment under ALFWorld's names.

The engine's translator lives in module globals (it even writes ``sys.argv`` and ``sys.stdout``), so games are begun one
at a time in a process. After that each has an engine of its own, with its own copy of the planner's library, and games
do not disturb each other. An engine whose game is closed waits for the next game: the library cannot be unloaded (the
process crashes when it is loaded again), and one that is never unloaded must be used again, or memory runs out.

Most of a beginning is the translation of rules and game for the planner, which the engine makes four times: two different
ones, when it loads a game and again when it resets it. Here the last ones are kept, so that a game is translated twice and,
for the other members of a group, not at all.
"""

from __future__ import annotations

import re
import sys
import threading
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from turnwise_envs.alfworld.package import package_folder

_BEGINNING = threading.Lock()
_idle: list[Any] = []
#: What only the engine keeps track of: memories of looking, and helper facts of its translation.
_NOT_WORLD = ("checked", "examined", "new-axiom@")
#: Translations that a process keeps, two a game.
_TRANSLATIONS = 16


@dataclass(frozen=True)
class Turn:
    """What the engine says after a command: its words as they are, and how things stand.

    ``admissible`` are the commands that it accepts now, sorted; ``facts`` what holds in the world, in its own
    identifiers: ``"inreceptacle(mug_bar_00: object, desk_bar_01: receptacle)"``.
    """

    feedback: str
    admissible: tuple[str, ...]
    won: bool
    facts: frozenset[str]


class Game:
    """A game being played. ``Game(path)`` begins it (seconds), ``turn`` is what the engine said last.

    Raises ImportError without the ``alfworld`` package, ValueError for a game that the engine cannot use.
    """

    turn: Turn

    def __init__(self, file: Path) -> None:
        package_folder()
        with _BEGINNING:
            arguments = sys.argv
            _keep_translations()
            try:
                self._begin(file)
            except SystemExit as error:  # so the translator ends for a problem that it cannot use
                raise ValueError(f"ALFWorld's engine cannot use {file}: translator exit {error.code}") from error
            finally:
                sys.argv = arguments

    def step(self, command: str) -> Turn:
        """Say ``command``; what the engine does not accept now is answered with "Nothing happens."."""
        state, _, _ = self._env.step(command)
        return self._heard(state)

    def plan(self) -> list[str]:
        """Commands by which the engine's planner would win from here; it sees everything. Empty: it finds no way."""
        return [" ".join(line.split()) for line in self._pddl._pddl_state.replan(self._pddl._entity_infos)]

    def understands(self, command: str) -> bool:
        """Whether ``command`` is about things that exist here, possible now or not."""
        return any(pattern.fullmatch(command) for pattern in self._patterns)

    def close(self) -> None:
        """Leave the engine to another game."""
        _idle.append(self._pddl)

    def _begin(self, file: Path) -> None:
        from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
        from textworld import EnvInfos
        from textworld.envs import PddlEnv

        self._pddl: Any = _idle.pop() if _idle else PddlEnv(EnvInfos(admissible_commands=True, won=True))
        self._env: Any = AlfredDemangler(self._pddl, shuffle=False)
        self._env.load(str(file))
        state = self._env.reset()
        self._patterns = _patterns(state["command_templates"], self._pddl._entity_infos.values())
        self._heard(state)

    def _heard(self, state: Any) -> Turn:
        self.turn = Turn(
            feedback=state["feedback"],
            admissible=tuple(state["admissible_commands"]),
            won=bool(state["won"]),
            facts=frozenset(str(fact) for fact in state["_facts"] if not fact.name.startswith(_NOT_WORLD)),
        )
        return self.turn


@cache
def _keep_translations() -> None:
    """The translator is a function of its texts, and the engine only reads what it gives."""
    import fast_downward

    fast_downward.pddl2sas = lru_cache(_TRANSLATIONS)(fast_downward.pddl2sas)


def _patterns(templates: list[str], entities: Any) -> list[re.Pattern[str]]:
    """``take {o} from {r}`` with the names of this game in place of ``{o}`` and ``{r}``."""
    things = sorted({info.name.strip() for info in entities if info.type in ("object", "receptacle")})
    name = f"(?:{'|'.join(map(re.escape, things))})"
    slots = re.compile(r"\[\{.*?\}\]|\{.*?\}")  # the list form is how ALFWorld's grammar names where to go
    return [re.compile(name.join(map(re.escape, slots.split(template)))) for template in templates]
