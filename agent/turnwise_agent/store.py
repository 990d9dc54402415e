"""Trajectories in SQLite, for people and for later: open the file with ``sqlite-utils`` or Datasette.

Tables: ``runs``, ``groups`` (a task drawn once), ``episodes`` (paths) and ``turns`` (nodes: a shared turn is one row). The
view ``transcripts`` joins them to one readable row per episode and turn. Token ids and what belongs to them are JSON.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlite_utils

from turnwise_agent.errors import StoreError
from turnwise_agent.trajectory import Group

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, config TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS groups (
    id INTEGER PRIMARY KEY, run_id INTEGER NOT NULL REFERENCES runs(id), step INTEGER NOT NULL, phase TEXT NOT NULL,
    task_id TEXT NOT NULL, split TEXT NOT NULL, task_index INTEGER NOT NULL, seed INTEGER NOT NULL,
    instruction TEXT NOT NULL, initial TEXT NOT NULL, env_steps INTEGER NOT NULL, policy_tokens INTEGER NOT NULL,
    saved_env_steps INTEGER NOT NULL, saved_policy_tokens INTEGER NOT NULL, dropped INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS turns (
    group_id INTEGER NOT NULL REFERENCES groups(id), turn INTEGER NOT NULL, parent INTEGER, turn_index INTEGER NOT NULL,
    new_context INTEGER NOT NULL, action TEXT NOT NULL, observation TEXT NOT NULL, reward REAL NOT NULL,
    terminated INTEGER NOT NULL, truncated INTEGER NOT NULL, info TEXT NOT NULL, log_hash TEXT NOT NULL,
    prompt_ids TEXT NOT NULL, action_ids TEXT NOT NULL, logprobs TEXT NOT NULL, entropies TEXT NOT NULL,
    versions TEXT NOT NULL, answer_logprobs TEXT NOT NULL DEFAULT '[]', PRIMARY KEY (group_id, turn));
CREATE TABLE IF NOT EXISTS episodes (
    group_id INTEGER NOT NULL REFERENCES groups(id), member INTEGER NOT NULL, leaf INTEGER NOT NULL, turns INTEGER NOT NULL,
    stop TEXT NOT NULL, outcome REAL NOT NULL, solved INTEGER NOT NULL, final_reward REAL NOT NULL,
    forked_from INTEGER, forked_at INTEGER NOT NULL, log_hash TEXT NOT NULL, PRIMARY KEY (group_id, member));
CREATE INDEX IF NOT EXISTS groups_by_step ON groups(run_id, phase, step);
CREATE VIEW IF NOT EXISTS transcripts AS
    WITH RECURSIVE path(group_id, member, turn) AS (
        SELECT group_id, member, leaf FROM episodes
        UNION ALL
        SELECT path.group_id, path.member, turns.parent FROM path JOIN turns USING (group_id, turn)
        WHERE turns.parent IS NOT NULL)
    SELECT path.group_id, path.member, turns.turn_index, turns.action, turns.observation, turns.reward
    FROM path JOIN turns USING (group_id, turn) ORDER BY path.group_id, path.member, turns.turn_index;
"""


_TABLES = {"runs", "groups", "turns", "episodes"}


class TrajectoryStore:
    """Groups of one or several runs in one file. Use one store object per file and thread.

    Raises:
        StoreError: the file cannot be opened, or is not a trajectory store.
    """

    def __init__(self, path: Path | str) -> None:
        try:
            connection = sqlite3.connect(path, check_same_thread=False)
        except sqlite3.Error as error:
            raise StoreError(f"cannot open trajectory store {path}: {error}") from error
        self.db = sqlite_utils.Database(connection)
        try:
            tables = set(self.db.table_names())
            if tables and not tables.issuperset(_TABLES):
                raise sqlite3.DatabaseError(f"it is something else, with the tables {', '.join(sorted(tables)[:4])}")
            self.db.enable_wal()
            connection.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
            if "answer_logprobs" not in self.db["turns"].columns_dict:  # a file of an earlier version
                self.db["turns"].add_column("answer_logprobs", str, not_null_default="[]")
        except sqlite3.Error as error:
            connection.close()
            raise StoreError(f"cannot open trajectory store {path}: {error}") from error

    def __enter__(self) -> TrajectoryStore:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        self.db.close()

    def run(self, name: str, config: str = "") -> int:
        """Id of the run with this name, made if need be."""
        self.db["runs"].insert({"name": name, "config": config}, ignore=True)
        self.db.conn.commit()
        return int(next(self.db.query("SELECT id FROM runs WHERE name = ?", [name]))["id"])

    def add(self, run_id: int, step: int, phase: str, groups: Sequence[Group]) -> None:
        """Write groups, all or none.

        Raises:
            StoreError: they cannot be written (disk full, file locked for long).
        """
        try:
            self._add(run_id, step, phase, groups)
        except sqlite3.Error as error:
            raise StoreError(f"cannot write step {step} to the trajectory store: {error}") from error

    def _add(self, run_id: int, step: int, phase: str, groups: Sequence[Group]) -> None:
        first = int(next(self.db.query("SELECT coalesce(max(id), 0) + 1 AS id FROM groups"))["id"])
        numbered = list(enumerate(groups, first))
        with self.db.atomic():
            self.db["groups"].insert_all(_group_row(i, run_id, step, phase, g) for i, g in numbered)
            self.db["turns"].insert_all(row for i, g in numbered for row in _turn_rows(i, g))
            self.db["episodes"].insert_all(row for i, g in numbered for row in _episode_rows(i, g))

    def forget_from(self, run_id: int, step: int) -> None:
        """Delete what a run drew in ``step`` and later: a resumed run draws it again."""
        doomed = "SELECT id FROM groups WHERE run_id = ? AND step >= ?"
        with self.db.atomic():
            for table in ("turns", "episodes"):
                self.db.conn.execute(f"DELETE FROM {table} WHERE group_id IN ({doomed})", [run_id, step])
            self.db.conn.execute("DELETE FROM groups WHERE run_id = ? AND step >= ?", [run_id, step])

    def transcript(self, group_id: int, member: int) -> list[dict[str, Any]]:
        """The turns of one episode as rows with ``action``, ``observation`` and ``reward``."""
        sql = "SELECT * FROM transcripts WHERE group_id = ? AND member = ? ORDER BY turn_index"
        return list(self.db.query(sql, [group_id, member]))


def _group_row(group_id: int, run_id: int, step: int, phase: str, group: Group) -> dict[str, Any]:
    return {
        "id": group_id,
        "run_id": run_id,
        "step": step,
        "phase": phase,
        "task_id": group.task.id,
        "split": group.task.split,
        "task_index": group.task.index,
        "seed": group.seed,
        "instruction": group.task.instruction,
        "initial": group.initial.text,
        "env_steps": group.env_steps,
        "policy_tokens": group.policy_tokens,
        "saved_env_steps": group.saved_env_steps,
        "saved_policy_tokens": group.saved_policy_tokens,
        "dropped": group.dropped,
    }


def _turn_rows(group_id: int, group: Group) -> Iterator[dict[str, Any]]:
    for turn in group.turns:
        yield {
            "group_id": group_id,
            "turn": turn.id,
            "parent": turn.parent,
            "turn_index": turn.index,
            "new_context": turn.new_context,
            "action": turn.action.text,
            "observation": turn.observation.text,
            "reward": turn.reward,
            "terminated": turn.terminated,
            "truncated": turn.truncated,
            "info": turn.info.model_dump_json(),
            "log_hash": turn.log_hash,
            "prompt_ids": json.dumps(turn.prompt_ids),
            "action_ids": json.dumps(turn.action_ids),
            "logprobs": json.dumps(turn.logprobs),
            "entropies": json.dumps(turn.entropies),
            "versions": json.dumps(turn.versions),
            "answer_logprobs": json.dumps(turn.answer_logprobs),
        }


def _episode_rows(group_id: int, group: Group) -> Iterator[dict[str, Any]]:
    for episode in group.episodes:
        yield {
            "group_id": group_id,
            "member": episode.member,
            "leaf": episode.leaf,
            "turns": len(group.path(episode)),
            "stop": episode.stop.value,
            "outcome": group.outcome(episode),
            "solved": episode.solved,
            "final_reward": episode.final_reward,
            "forked_from": episode.forked_from,
            "forked_at": episode.forked_at,
            "log_hash": episode.log_hash,
        }
