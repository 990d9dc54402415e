"""The one exception of this room: a request is refused for a reason that the protocol names."""

from __future__ import annotations

from turnwise_envs.wire import PROBLEMS


class Refusal(Exception):
    """``problem`` is a key of :data:`turnwise_envs.wire.PROBLEMS`; ``detail`` is one line for a person."""

    def __init__(self, problem: str, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.problem = problem
        self.detail = detail
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        return PROBLEMS[self.problem]
