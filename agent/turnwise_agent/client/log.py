"""What a session must remember to be rebuilt elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from turnwise_envs.types import Action
from turnwise_envs.wire import StepView


@dataclass
class ActionLog:
    """The acknowledged actions of an episode and the hashes that a replay of them must reach.

    ``live_hash`` is the hash after the last action; ``finish`` is the reason and hash of a finish that the
    client asked for after it, None if it asked for none.

    Actions and answers are kept as JSON. They are hardly ever needed again, and as models the turns of a thousand
    episodes are a million objects, through which Python's garbage collector would go every other second.
    """

    live_hash: str
    finish: tuple[str, str] | None = None
    _actions: list[str] = field(default_factory=list)
    _answers: list[str] = field(default_factory=list)

    @classmethod
    def begun(cls, live_hash: str, actions: Sequence[Action]) -> Self:
        """The log of an episode that begins with ``actions`` that somebody else has taken."""
        return cls(live_hash, _actions=[action.model_dump_json() for action in actions])

    @property
    def turn(self) -> int:
        """Number of actions taken."""
        return len(self._actions)

    @property
    def log_hash(self) -> str:
        """Hash of the whole history, a finish included."""
        return self.finish[1] if self.finish else self.live_hash

    @property
    def actions(self) -> list[Action]:
        """All actions taken."""
        return [Action.model_validate_json(action) for action in self._actions]

    @property
    def answers(self) -> list[StepView]:
        """What the last ``len(answers)`` actions were answered with: all of them, but for those that it began with."""
        return [StepView.model_validate_json(answer) for answer in self._answers]

    def acted(self, action: Action, answer: StepView) -> None:
        """The server acknowledged ``action``."""
        self._actions.append(action.model_dump_json())
        self._answers.append(answer.model_dump_json())
        self.live_hash = answer.log_hash

    def finished(self, reason: str, log_hash: str) -> None:
        """The server acknowledged a finish."""
        self.finish = (reason, log_hash)

    def branch(self, turn: int, log_hash: str) -> ActionLog:
        """The log of a fork at ``turn`` whose server-side hash is ``log_hash``."""
        known = max(0, len(self._answers) - (self.turn - turn))
        if self.finish and log_hash == self.finish[1]:
            return ActionLog(self.live_hash, self.finish, list(self._actions), self._answers[:known])
        return ActionLog(log_hash, None, self._actions[:turn], self._answers[:known])
