"""Trajectories on disk: as they were, readable by other tools, all of a step or nothing of it."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest
from sample_group import PATHS, forest

from turnwise_agent.errors import StoreError
from turnwise_agent.store import TrajectoryStore


@pytest.fixture
def file(tmp_path):
    return tmp_path / "runs.db"


@pytest.fixture
def store(file):
    with TrajectoryStore(file) as store:
        yield store


def counts(store):
    return {table: store.db[table].count for table in ("runs", "groups", "turns", "episodes")}


def test_round_trip(file):
    group = forest()
    with TrajectoryStore(file) as store:
        run = store.run("first", 'lr = "1e-3"')
        store.add(run, 7, "train", [group])
    with TrajectoryStore(file) as store:
        assert store.run("first") == run
        assert list(store.db["runs"].rows) == [{"id": run, "name": "first", "config": 'lr = "1e-3"'}]
        (row,) = store.db["groups"].rows
        turns = list(store.db["turns"].rows)
        episodes = list(store.db["episodes"].rows)
    assert row == {
        "id": 1,
        "run_id": run,
        "step": 7,
        "phase": "train",
        "task_id": "toy/train/4",
        "split": "train",
        "task_index": 4,
        "seed": 9,
        "instruction": "do it",
        "initial": "Begin.",
        "env_steps": 7,
        "policy_tokens": 28,
        "saved_env_steps": 3,
        "saved_policy_tokens": 4,
        "dropped": 1,
    }
    for turn, kept in zip(group.turns, turns, strict=True):
        assert (kept["turn"], kept["parent"], kept["turn_index"]) == (turn.id, turn.parent, turn.index)
        assert (kept["action"], kept["observation"], kept["reward"]) == (
            f"act {turn.id}",
            f"seen {turn.id}",
            turn.reward,
        )
        assert [bool(kept[name]) for name in ("new_context", "terminated", "truncated")] == [
            turn.new_context,
            turn.terminated,
            turn.truncated,
        ]
        for name in ("prompt_ids", "action_ids", "logprobs", "entropies", "versions", "answer_logprobs"):
            assert tuple(json.loads(kept[name])) == getattr(turn, name)
        assert json.loads(kept["info"])["counters"] == {"looks": turn.id}
        assert kept["log_hash"] == turn.log_hash
    assert [row["outcome"] for row in episodes] == pytest.approx([0.3, 0.4, 0.9, 3.1])
    assert [row["turns"] for row in episodes] == [3, 3, 3, 1]
    assert [row["stop"] for row in episodes] == ["terminated", "max_turns", "terminated", "context_overflow"]
    assert [row["solved"] for row in episodes] == [1, 0, 0, 0]
    assert [(row["forked_from"], row["forked_at"]) for row in episodes] == [(None, 0), (0, 2), (0, 1), (None, 0)]


def test_a_file_of_a_version_without_probes(file):
    with TrajectoryStore(file) as store:
        store.add(store.run("old"), 0, "train", [forest()])
        store.db.conn.execute("ALTER TABLE turns DROP COLUMN answer_logprobs")
    probed = replace(forest(), turns=[replace(turn, answer_logprobs=(-1.5, -0.5)) for turn in forest().turns])
    with TrajectoryStore(file) as store:
        store.add(store.run("old"), 1, "train", [probed])
        kept = [row["answer_logprobs"] for row in store.db["turns"].rows]
    assert kept == ["[]"] * 7 + ["[-1.5, -0.5]"] * 7


def test_a_shared_turn_is_one_row_and_in_every_transcript(store):
    store.add(store.run("r"), 0, "train", [forest(), forest(5)])
    assert counts(store) == {"runs": 1, "groups": 2, "turns": 14, "episodes": 8}
    for group_id in (1, 2):
        for member, path in enumerate(PATHS):
            rows = store.transcript(group_id, member)
            assert [row["action"] for row in rows] == [f"act {turn}" for turn in path]
            assert [row["observation"] for row in rows] == [f"seen {turn}" for turn in path]
            assert [row["turn_index"] for row in rows] == list(range(len(path)))
    assert store.transcript(3, 0) == []
    assert store.db["transcripts"].count == 2 * sum(map(len, PATHS))


def test_runs_are_apart_and_a_step_can_be_forgotten(store):
    one, two = store.run("one"), store.run("two")
    assert one != two
    for step in range(3):
        store.add(one, step, "train", [forest()])
        store.add(two, step, "train", [forest(), forest()])
    store.forget_from(one, 1)
    assert counts(store) == {"runs": 2, "groups": 7, "turns": 49, "episodes": 28}
    assert [(row["run_id"], row["step"]) for row in store.db["groups"].rows_where("run_id = ?", [one])] == [(one, 0)]
    store.forget_from(two, 0)
    assert counts(store) == {"runs": 2, "groups": 1, "turns": 7, "episodes": 4}
    store.add(one, 1, "train", [forest()])
    assert [row["action"] for row in store.transcript(2, 3)] == ["act 6"]


def test_a_step_is_written_as_a_whole_or_not_at_all(store):
    run = store.run("r")
    twice = forest()
    broken = replace(twice, episodes=(twice.episodes[0], twice.episodes[0]))
    with pytest.raises(StoreError, match="cannot write step 0 to the trajectory store: UNIQUE constraint failed"):
        store.add(run, 0, "train", [forest(), broken])
    assert counts(store) == {"runs": 1, "groups": 0, "turns": 0, "episodes": 0}
    store.add(run, 0, "train", [])
    store.add(run, 0, "train", [forest()])
    assert counts(store)["episodes"] == 4


def test_what_is_written_is_on_disk_before_the_store_is_closed(store, file):
    store.add(store.run("r"), 0, "train", [forest()])
    with sqlite3.connect(file) as other:
        assert other.execute("SELECT count(*) FROM turns").fetchone() == (7,)
    other.close()


class TestFilesThatAreNone:
    def test_damaged(self, file):
        with TrajectoryStore(file) as store:
            store.add(store.run("r"), 0, "train", [forest()])
        file.write_bytes(b"not a database, " * 64)
        with pytest.raises(StoreError, match=r"cannot open trajectory store .*runs\.db: file is not a database"):
            TrajectoryStore(file)

    def test_another_application(self, file):
        with sqlite3.connect(file) as other:
            other.execute("CREATE TABLE invoices (id INTEGER)")
        other.close()
        before = file.read_bytes()
        with pytest.raises(StoreError, match="it is something else, with the tables invoices"):
            TrajectoryStore(file)
        assert file.read_bytes() == before

    def test_tables_of_the_same_names(self, file):
        with sqlite3.connect(file) as other:
            for table in ("runs", "groups", "turns", "episodes"):
                other.execute(f"CREATE TABLE {table} (id INTEGER)")
        other.close()
        with pytest.raises(StoreError, match="cannot open trajectory store"):
            TrajectoryStore(file)

    def test_nowhere(self, tmp_path):
        with pytest.raises(StoreError, match="unable to open database file"):
            TrajectoryStore(tmp_path / "none" / "runs.db")


def test_sqlite_utils_reads_it(store, file):
    store.add(store.run("r"), 0, "train", [forest()])

    def ask(*arguments):
        command = [sys.executable, "-m", "sqlite_utils", *arguments]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    rows = ask("rows", str(file), "transcripts", "--where", "member = 1")
    assert [row["action"] for row in rows] == ["act 0", "act 1", "act 3"]
    assert ask("query", str(file), "SELECT max(outcome) AS best FROM episodes") == [{"best": pytest.approx(3.1)}]
