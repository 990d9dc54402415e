"""The adapter ``textarena``: ``turnwise serve textarena:Wordle-v0`` serves a TextArena game to one player.

A task's index is the seed that TextArena gets. Its games draw from the global generators; each episode has its own. In a
game for two the other player is ours: it plays a random legal move, tried on a copy of the game before.
"""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from turnwise_envs.actions import without_thoughts
from turnwise_envs.adapters import adapter
from turnwise_envs.dice import Dice
from turnwise_envs.environment import Environment, SyncEnvironment, TaskSet, cut_short
from turnwise_envs.errors import UnknownEnvironment
from turnwise_envs.plugins.foreign import OwnChance, clipped, json_argument, refusal, seed_of, spec_id
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

#: Characters of an action that reach the game; some of them convert whatever digits they find.
MAX_ACTION = 2_000
#: Turns of a game that names no limit.
DEFAULT_TURNS = 50
#: Where games keep what is to be found.
_ANSWERS = ("game_number", "secret_code", "secret_word", "target_word", "target_number", "word", "solution")
#: Moves that a game offers: what is in brackets after such words.
_OFFER = re.compile(r"(?:available|legal|valid|possible)[^:\n]*:(.*)", re.IGNORECASE | re.DOTALL)
_BRACKETS = re.compile(r"\[[^\[\]\n]{1,40}\]")
#: Moves of games that do not list them.
_MOVES = {"ConnectFour": [f"[{column}]" for column in range(7)]}


@adapter
def textarena(game: str, *, make: str = "{}", moves: str = "", seat: int = 0, max_turns: int = 0) -> type[Environment]:
    """A TextArena game for one player or two, by its id, such as ``Wordle-v0``.

    ``make``: arguments of ``textarena.make`` in JSON. ``moves``: in a game for two that does not list its moves, those that
    the other player may try, with commas: ``[0],[1],[2]``. ``seat``: which of two players the policy is, 0 or 1.
    """
    found = _Game.of(game, json_argument("make", make), [m.strip() for m in moves.split(",") if m.strip()], seat)
    spec_ = EnvSpec(
        id=spec_id("textarena", game),
        description=f"The game {game} of TextArena"
        + (", against a player of random moves." if found.players == 2 else "."),
        max_turns=max_turns or found.limit,
        splits=[SplitSpec(name="train", size=10_000), SplitSpec(name="valid", size=1_000)],
        options_schema={
            "type": "object",
            "properties": {"max_turns": {"type": "integer", "minimum": 1, "maximum": 10_000}},
            "additionalProperties": False,
        },
    )

    class Played(TextArenaEpisode):
        spec = spec_
        tasks = GameTasks(spec_, found)

    Played.game = found
    return Played


@dataclass(frozen=True)
class _Game:
    """What all episodes of a made class share."""

    id: str
    arguments: JsonObject
    moves: tuple[str, ...]
    seat: int
    players: int
    limit: int

    @classmethod
    def of(cls, id: str, arguments: JsonObject, moves: list[str], seat: int) -> _Game:
        """Begins one game to look at it. Raises UnknownEnvironment."""
        from textarena.envs.registration import ENV_REGISTRY

        raw = id if id.endswith("-raw") or f"{id}-raw" not in ENV_REGISTRY else f"{id}-raw"
        if raw not in ENV_REGISTRY:
            from difflib import get_close_matches

            near = ", ".join(get_close_matches(id, ENV_REGISTRY, n=3)) or "Wordle-v0, Mastermind-v0, TicTacToe-v0"
            raise UnknownEnvironment(f"textarena has no game {id!r}; did you mean {near}?")
        known = next((m for name, m in _MOVES.items() if id.startswith(name)), [])
        for players in (1, 2):
            game = cls(raw, arguments, tuple(moves or known), seat, players, DEFAULT_TURNS)
            try:
                env = game.begin(0, OwnChance("textarena", id))
            except AssertionError:
                continue  # games assert the number of their players
            except Exception as error:
                raise UnknownEnvironment(f"textarena cannot begin {id}: {type(error).__name__}: {error}") from error
            if not 0 <= seat < players:
                raise UnknownEnvironment(f"--seat is below {players} in {id}, not {seat}")
            if players == 2 and not game.moves and not _offered(_peek(env, env.state.current_player_id)):
                raise UnknownEnvironment(f'{id} does not list its moves: name some, such as --moves "[0],[1],[2]"')
            turns = getattr(env.state, "max_turns", None)
            limit = 2 * int(turns) + 2 if turns else DEFAULT_TURNS  # theirs do not count a move that is taken back
            return cls(raw, arguments, game.moves, seat, players, limit)
        raise UnknownEnvironment(f"{id} is for more than two players")

    def begin(self, seed: int, chance: OwnChance) -> Any:
        """A game at its beginning."""
        import textarena as ta

        with chance:
            env = ta.make(self.id, **self.arguments)
            env.reset(num_players=self.players, seed=seed)
        return env


class GameTasks(TaskSet):
    """Games by seed. The reference has what is hidden in them."""

    def __init__(self, spec: EnvSpec, game: _Game) -> None:
        super().__init__(spec)
        self._game = game

    def build(self, split: str, index: int) -> Task:
        return self.task(
            split,
            index,
            instruction=f"Play {self._game.id.removesuffix('-raw')}.",
        )

    def reference(self, task: Task) -> Reference:
        seed = seed_of(task.split, task.index)
        env = self._game.begin(seed, OwnChance("textarena", self._game.id, seed))
        state = json.loads(json.dumps(_plain(env.state.game_state)))
        hidden = [state[name] for name in _ANSWERS if isinstance(state.get(name), str | int | list)]
        answers = [" ".join(map(str, one)) if isinstance(one, list) else str(one) for one in hidden]
        return Reference(answers=answers, data={"game_state": state})


class TextArenaEpisode(SyncEnvironment):
    """One game. :func:`textarena` sets ``game``."""

    game: ClassVar[_Game]

    def reset_sync(self, task: Task, seed: int, options: JsonObject) -> Observation:
        start = seed_of(task.split, task.index)
        self._chance = OwnChance("textarena", self.game.id, start)
        self._env = self.game.begin(start, self._chance)
        self._chance.seed("textarena", self.game.id, start, seed)
        self._dice = Dice("textarena opponent", self.game.id, start, seed)
        self._others()
        return Observation.say(self._news() or task.instruction)

    def step_sync(self, action: Action) -> StepResult:
        said = without_thoughts(action.text).strip()[:MAX_ACTION]
        if not said:
            return refusal("Nothing was said. Write your move, in brackets.")
        if "[" not in said and "]" not in said:
            said = f"[{said}]"  # as TextArena's own wrapper for models does
        try:
            self._play(said)
        except Exception as error:  # games are not written for every text
            return refusal(f"The game cannot take {clipped(said)!r} ({type(error).__name__}).")
        self._others()
        state = self._env.state
        wrong = getattr(state, "error_count", 0) > 0  # the game waits for another move
        if not state.done:
            return StepResult(
                observation=Observation.say(self._news() or "Go on."),
                info=StepInfo(action_valid=not wrong, action_effective=not wrong),
            )
        reward = float((state.rewards or {}).get(self.game.seat, 0.0))
        facts = state.game_info[self.game.seat]
        solved = reward >= 1.0
        return StepResult(
            observation=Observation.say("\n".join(filter(None, (self._news(), facts.get("reason"))))),
            reward=reward,
            terminated=True,
            info=StepInfo(
                action_valid=not facts.get("invalid_move"),
                metrics={"success": float(solved)},
                end="solved" if solved else "failed",
            ),
        )

    def finish_sync(self, reason: str) -> StepResult:
        return cut_short(reason, metrics={"success": 0.0})

    def _play(self, said: str) -> None:
        with self._chance:
            self._env.step(action=said)

    def _others(self) -> None:
        """The other player moves until it is the policy's turn."""
        while not self._env.state.done and self._env.state.current_player_id != self.game.seat:
            self._play(self._legal_move())

    def _legal_move(self) -> str:
        """A random one of the moves that the game offers or accepts."""
        player = self._env.state.current_player_id
        moves = self._dice.shuffled(_offered(_peek(self._env, player)) or list(self.game.moves) or ["[pass]"])
        for move in moves:
            trial = copy.deepcopy(self._env)
            with OwnChance("textarena trial", move):
                trial.step(action=move)
            if trial.state.error_count == 0 and not trial.state.game_info[player].get("invalid_move"):
                return move
        return moves[0]

    def _news(self) -> str:
        """What was said to the policy since its last turn, except by itself."""
        seat = self.game.seat
        heard = self._env.state.observations.get(seat, [])
        self._env.state.observations[seat] = []
        roles = self._env.state.role_mapping
        told = [
            str(message).strip() if sender < 0 else f"{roles.get(sender, f'Player {sender}')}: {str(message).strip()}"
            for sender, message, _ in heard
            if sender != seat
        ]
        return "\n".join(filter(None, told))


def _peek(env: Any, player: int) -> list[str]:
    """What a player was told and has not looked at, left where it is."""
    return [str(message) for _, message, _ in env.state.observations.get(player, [])]


def _offered(messages: list[str]) -> list[str]:
    """The moves that the last message with an offer lists."""
    for message in reversed(messages):
        offer = _OFFER.search(message)
        if offer and (moves := _BRACKETS.findall(offer[1])):
            return list(dict.fromkeys(moves))
    return []


def _plain(value: Any) -> Any:
    """As JSON has it; what JSON has not, in words."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return value if value is None or isinstance(value, str | int | float | bool) else type(value).__name__
