"""Errors of the agent room, one tree below :class:`turnwise_envs.TurnwiseError`.

AgentError
├── ServerUnreachable      no server answered within the client's patience
├── IncompatibleServer     what answered is not a Turnwise server, or speaks another protocol version
├── BadToken               the token file or token cannot be used
├── TooManyMismatches      so many rebuilt sessions led to another history that going on makes no sense
└── ProtocolError          the server refused: ``.problem`` says why, ``.type`` is the short name of it
    ├── InvalidRequest     the request makes no sense (unknown environment or task, bad options, too large)
    ├── SessionGone        the session is unknown, expired, lost or deleted, and was not or could not be rebuilt
    ├── SessionDone        a step or finish after the end of the episode
    ├── TurnConflict       another action was already taken for this turn, or the turn lies ahead
    ├── StepIndeterminate  an unrepeatable step was begun before a crash and nobody knows whether it happened
    ├── ReplayMismatch     replaying the log led to another history (or the environment has another version)
    ├── NotForkable        the environment can neither be replayed nor copied
    ├── EnvFailed          the environment broke: drop the episode, there is no reward
    ├── Overloaded         the server had no room within the client's patience
    ├── Unauthorized       no token, or a wrong one
    └── Forbidden          the token lacks the scope for this

All are raised by the clients; the engines, the rollout engine and the stores add theirs below AgentError.
"""

from __future__ import annotations

from typing import ClassVar

from turnwise_envs.errors import TurnwiseError
from turnwise_envs.wire import PROBLEM_URN, Problem


class AgentError(TurnwiseError):
    """Base of all errors of the agent room."""


class ServerUnreachable(AgentError):
    """No server answered within the client's patience. Says where and what to do."""


class IncompatibleServer(AgentError):
    """What answers at this address is not a Turnwise server that this client can talk to."""


class BadToken(AgentError):
    """The token, or the file it should come from, cannot be used."""


class TooManyMismatches(AgentError):
    """More sessions than the client tolerates led to another history when they were rebuilt."""


class ProtocolError(AgentError):
    """The server refused a request.

    ``problem`` is the RFC 9457 answer; ``request`` names the call, ``POST /v1/sessions`` for instance.
    """

    hint: ClassVar[str] = ""

    def __init__(self, problem: Problem, request: str) -> None:
        super().__init__(problem, request)
        self.problem = problem
        self.request = request

    @property
    def type(self) -> str:
        """Short name of the problem, ``turn-conflict`` for instance (``turnwise_envs.wire.PROBLEMS`` lists them)."""
        return self.problem.type.removeprefix(PROBLEM_URN)

    def __str__(self) -> str:
        hint = f". {self.hint}" if self.hint else ""
        return f"{self.request}: {self.problem.detail.rstrip('.')} ({self.type}){hint}"


class InvalidRequest(ProtocolError):
    """Unknown environment or task, options that do not fit, or a body that is malformed or too large."""


class SessionGone(ProtocolError):
    """The session is unknown, expired, lost or deleted, and was not or could not be rebuilt."""


class SessionDone(ProtocolError):
    """A step or finish after the end of the episode."""


class TurnConflict(ProtocolError):
    """Another action was already taken for this turn, or the turn lies ahead of the session."""


class StepIndeterminate(ProtocolError):
    """An unrepeatable step was begun before a crash, and nobody knows whether it happened."""


class ReplayMismatch(ProtocolError):
    """Replaying the log led to another history, or the environment has another version now."""


class NotForkable(ProtocolError):
    """The environment can neither be replayed nor copied."""


class EnvFailed(ProtocolError):
    """The environment broke in this step: drop the episode. No reward was given, and none may be made up."""


class Overloaded(ProtocolError):
    """The server had no room within the client's patience."""

    hint = "Open fewer sessions at once, close finished ones, or add servers"


class Unauthorized(ProtocolError):
    """No token, or one that the server does not know."""

    hint = "Set TURNWISE_TOKEN_FILE, or pass token_file=; `turnwise serve` prints where its token file is"


class Forbidden(ProtocolError):
    """The token is known but lacks the scope for this."""

    hint = "Use a token with that scope; references need `trainer`"


class EngineError(AgentError):
    """An inference engine cannot do what was asked of it: unsupported model, full cache, prompt too long."""


class RendererError(AgentError):
    """The delimiters between turns cannot be derived from the tokenizer's chat template."""


class RolloutError(AgentError):
    """A group cannot be drawn: its prompt does not fit, or the environment keeps failing."""


class StoreError(AgentError):
    """The trajectory store cannot be opened or written."""
