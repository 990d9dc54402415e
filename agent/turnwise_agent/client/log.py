"""What a session must remember to be rebuilt elsewhere. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from turnwise_envs.types import Action
from turnwise_envs.wire import StepView


@dataclass
class ActionLog:
    """The acknowledged actions of an episode and the hashes that a replay of them must reach.

    ``live_hash`` is the hash after the last action; ``finish`` is the reason and hash of a finish that the
    client asked for after it, None if it asked for none. ``answers`` are what the last ``len(answers)`` actions were
    answered with: all of them, unless the episode began with actions that somebody else had taken.
    """

    live_hash: str
    actions: list[Action] = field(default_factory=list)
    finish: tuple[str, str] | None = None
    answers: list[StepView] = field(default_factory=list)

    @property
    def turn(self) -> int:
        """Number of actions taken."""
        return len(self.actions)

    @property
    def log_hash(self) -> str:
        """Hash of the whole history, a finish included."""
        return self.finish[1] if self.finish else self.live_hash

    def acted(self, action: Action, answer: StepView) -> None:
        """The server acknowledged ``action``."""
        self.actions.append(action)
        self.answers.append(answer)
        self.live_hash = answer.log_hash

    def finished(self, reason: str, log_hash: str) -> None:
        """The server acknowledged a finish."""
        self.finish = (reason, log_hash)

    def branch(self, turn: int, log_hash: str) -> ActionLog:
        """The log of a fork at ``turn`` whose server-side hash is ``log_hash``."""
        known = max(0, len(self.answers) - (self.turn - turn))
        if self.finish and log_hash == self.finish[1]:
            return ActionLog(self.live_hash, list(self.actions), self.finish, self.answers[:known])
        return ActionLog(log_hash, self.actions[:turn], answers=self.answers[:known])
