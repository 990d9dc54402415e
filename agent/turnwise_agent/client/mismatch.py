"""Rebuilt episodes that turned out another way: both transcripts are kept, and beyond a rate nobody goes on.

A replay that leads elsewhere means that an environment is not as deterministic as it says, or that servers run different
versions of it. One such episode is dropped and drawn again; many mean that the run trains on something broken.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from pathlib import Path

from pydantic import BaseModel

from turnwise_agent.errors import TooManyMismatches
from turnwise_envs.types import Action
from turnwise_envs.wire import CreateRequest, StepView

logger = logging.getLogger("turnwise.client")

#: Mismatches that are let pass whatever the rate: a rate of two sessions means nothing.
_FREE = 2
#: Mismatches whose transcripts stay in memory.
_KEPT = 100


class Told(BaseModel):
    """One turn of a transcript: an action (None: a finish) and what a server answered."""

    action: Action | None
    answer: StepView


class Mismatch(BaseModel):
    """An episode that led to one history on the first server (``ours``) and another where it was rebuilt (``theirs``).

    Both begin with turn 0, except for an episode that was itself opened with actions: then ``ours`` begins after those.
    ``theirs`` ends where the replay could not go on.
    """

    session: CreateRequest
    detail: str
    ours: list[Told]
    theirs: list[Told]

    @property
    def turn(self) -> int | None:
        """The first turn that went another way; None if the two do not show it (the first observation did, say)."""
        theirs = {told.answer.turn: told.answer for told in self.theirs}
        for told in self.ours:
            other = theirs.get(told.answer.turn)
            if other is None or other.log_hash != told.answer.log_hash:
                return told.answer.turn - (told.action is not None)
        return None


class Mismatches:
    """All of a client. ``rate`` is the share of sessions up to which they are tolerated; files go to ``directory``."""

    def __init__(self, rate: float, directory: Path | None) -> None:
        self.count = 0
        self.kept: deque[Mismatch] = deque(maxlen=_KEPT)
        self._rate = rate
        self._directory = directory

    def add(self, mismatch: Mismatch, sessions: int) -> None:
        """Keep ``mismatch``, one of so far ``sessions`` sessions. Raises TooManyMismatches."""
        self.count += 1
        self.kept.append(mismatch)
        where = "" if self._directory is None else f"; both transcripts are in {self._write(mismatch, self._directory)}"
        logger.warning("%s%s", mismatch.detail, where)
        if self.count > max(_FREE, self._rate * sessions):
            raise TooManyMismatches(
                f"{self.count} of {sessions} sessions led to another history when they were rebuilt, which is more than "
                f"mismatch_rate={self._rate:g} allows; the last one: {mismatch.detail}"
            )

    def _write(self, mismatch: Mismatch, directory: Path) -> Path:
        session = mismatch.session
        name = re.sub(r"[^\w.-]+", "-", f"{session.env}-{session.split}-{session.index}")
        path = directory / f"mismatch-{self.count:04}-{name}.json"
        directory.mkdir(parents=True, exist_ok=True)
        path.write_text(mismatch.model_dump_json(indent=2), encoding="utf-8")
        return path
