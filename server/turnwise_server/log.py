"""The log of a session: what was asked and answered, kept as the bytes that were sent.

An entry is written once, when its turn is acknowledged, and read for retries, histories, forks and replays. As bytes
it is a few times smaller than as models, and the answer to a retried step is the first answer by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from turnwise_envs.canonical import canonical
from turnwise_envs.episode import Record
from turnwise_envs.types import Action, StepResult
from turnwise_server.hosts import Beginning
from turnwise_server.refusal import Refusal


class Intent(NamedTuple):
    """What a client wants to happen at ``turn``: an action, or (``action`` is None) a finish for ``reason``.

    ``canonical`` decides whether two intents are the same; ``json`` is the action as it was sent, which need not be
    canonical: a tool may tell 1.0 from 1.
    """

    turn: int
    action: Action | None
    reason: str
    canonical: bytes
    json: bytes | None

    @classmethod
    def step(cls, turn: int, action: Action) -> Intent:
        """Raises Refusal ``invalid-request`` for an action that has no canonical bytes."""
        try:
            encoded = canonical(action)
        except ValueError as error:
            raise Refusal("invalid-request", f"action: {error}") from error
        return cls(turn, action, "", encoded, action_json(action) if action.tool_calls else encoded)

    @classmethod
    def finish(cls, turn: int, reason: str) -> Intent:
        """Raises Refusal ``invalid-request`` for a reason that has no canonical bytes."""
        try:
            return cls(turn, None, reason, b"finish " + canonical(reason), None)
        except ValueError as error:
            raise Refusal("invalid-request", f"reason: {error}") from error

    def same_as(self, other: Intent) -> bool:
        return self.turn == other.turn and self.canonical == other.canonical

    def matches(self, entry: Entry) -> bool:
        """``entry`` is what this intent left behind when it was carried out."""
        if self.json is None or entry.action is None:
            return self.json is entry.action and entry.reason == self.reason
        if self.json == entry.action:
            return True
        return canonical(Action.model_validate_json(entry.action)) == self.canonical


class Entry(NamedTuple):
    """One acknowledged turn. ``action`` is an Action in JSON, None for a finish; ``result`` a StepResult, canonical."""

    action: bytes | None
    result: bytes
    log_hash: str
    done: bool

    @classmethod
    def of(cls, record: Record, action: bytes | None) -> Entry:
        result, text = record.result, record.text
        written = canonical(result) if text is None else text.encode()
        return cls(action, written, record.log_hash, result.terminated or result.truncated)

    @property
    def reason(self) -> str:
        """Why a finish ended the episode."""
        end = StepResult.model_validate_json(self.result).info.end
        return (end or "").removeprefix("finished:")


@dataclass(slots=True)
class Log:
    """The whole history of a session: how it began, and its entries."""

    env: str
    env_version: str
    begin: Beginning
    entries: list[Entry] = field(default_factory=list)
    size: int = field(init=False)  # bytes of the entries

    def __post_init__(self) -> None:
        self.size = sum(map(_size, self.entries))

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.size += _size(entry)

    @property
    def turn(self) -> int:
        """Number of actions taken."""
        entries = self.entries
        return len(entries) - (1 if entries and entries[-1].action is None else 0)  # a finish can only come last

    @property
    def done(self) -> bool:
        return bool(self.entries) and self.entries[-1].done

    @property
    def log_hash(self) -> str:
        return self.entries[-1].log_hash if self.entries else self.begin.initial_hash

    def until(self, turn: int) -> Log:
        """The log at the moment when ``turn`` actions had been taken: now, a finish included, if that is the turn."""
        entries = self.entries if turn == self.turn else self.entries[:turn]
        return Log(self.env, self.env_version, self.begin, list(entries))


def answer(session_id: str, position: int, entry: Entry) -> bytes:
    """A :class:`~turnwise_envs.wire.StepView` in JSON: what ``entry`` was, or is about to be, acknowledged with."""
    return b"{" + _fields(session_id, position, entry) + b"}"


def history(session_id: str, initial: bytes, entries: Sequence[Entry]) -> bytes:
    """A :class:`~turnwise_envs.wire.HistoryView` in JSON; ``initial`` is its SessionView in JSON."""
    steps = b",".join(
        b'{%b,"action":%b}' % (_fields(session_id, position, entry), entry.action or b"null")
        for position, entry in enumerate(entries)
    )
    return b'{"initial":%b,"steps":[%b]}' % (initial, steps)


def action_json(action: Action) -> bytes:
    return action.model_dump_json().encode()


def _size(entry: Entry) -> int:
    return len(entry.result) + len(entry.action or b"")


def _fields(session_id: str, position: int, entry: Entry) -> bytes:
    return b'"session_id":"%b","turn":%d,%b,"status":"%b","log_hash":"%b"' % (
        session_id.encode(),
        position + (entry.action is not None),
        entry.result[1:-1],
        b"done" if entry.done else b"live",
        entry.log_hash.encode(),
    )
