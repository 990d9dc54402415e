"""The journal: what was acknowledged is there after a kill, and a file is only used if it is a sound journal of ours."""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from toy_environments import Crashing, Guess, Liar, Live, Slow
from typer.testing import CliRunner
from waiting import PATIENCE, eventually

from turnwise_envs import Action, Observation, StepResult
from turnwise_envs.episode import LiveEpisode
from turnwise_server.journal import schema
from turnwise_server.journal.commands import app as commands
from turnwise_server.journal.journal import Journal
from turnwise_server.journal.schema import JournalRefused


def after_kill(directory: Path) -> Path:
    """A directory with just what a kill at this moment would leave: the file and its log, and no lock."""
    copy = directory.with_name(directory.name + "'")
    copy.mkdir()
    for path in (*directory.glob("*.sqlite"), *directory.glob("*.sqlite-wal")):
        shutil.copy(path, copy)
    return copy


def only_journal(directory: Path) -> Path:
    (path,) = directory.glob("*.sqlite")
    return path


@contextmanager
def full_disk(directory: Path) -> Iterator[None]:
    """No file of this process can grow beyond what the journal's log has now."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = only_journal(directory).with_name(only_journal(directory).name + "-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Dice(Live):
    """Not deterministic, but it has snapshots."""

    spec = Live.spec.model_copy(update={"id": "dice", "snapshot": True})

    async def reset(self, task, seed, options) -> Observation:
        self.thrown = 0
        return await super().reset(task, seed, options)

    async def step(self, action: Action) -> StepResult:
        self.thrown += 1
        result = await super().step(action)
        return result.model_copy(update={"reward": float(self.thrown)})

    def snapshot(self) -> bytes:
        return str(self.thrown).encode()

    def restore(self, snapshot: bytes) -> None:
        self.thrown = int(snapshot)


class SlowLive(Slow):
    spec = Slow.spec.model_copy(update={"id": "slow-live", "deterministic": False})


class Guess2(Guess):
    spec = Guess.spec.model_copy(update={"version": "2"})


async def test_a_restarted_server_answers_as_before(serve, tmp_path, refusal, as_user):
    before = await serve(journal=tmp_path / "j", snapshot_every=2)
    sid = await before.open(index=42, seed=5, key="k", options={"note": [1.0, -0.0, {"é": None}]})
    action = {"text": "", "tool_calls": [{"id": "c", "name": "n", "arguments": {"b": 1.0, "a": [-0.0, 1e300]}}]}
    first = await before.http.post(f"/v1/sessions/{sid}/step", json={"turn": 0, "action": action})
    for turn in (1, 2):
        await before.step(sid, turn, str(turn))
    forked = await before.fork(sid, key="f", at_turn=1, count=2)
    ended, deleted, anns = await before.open(), await before.open(), await before.open(headers=as_user("ann"))
    await before.finish(ended, 0, "because")
    await before.delete(deleted)
    broken = await before.open("crashing")
    await before.step(broken, 0, "crash")
    seen = {
        path: (await before.http.get(path)).content
        for path in (
            f"/v1/sessions/{sid}",
            f"/v1/sessions/{sid}/history",
            f"/v1/sessions/{ended}/history",
            "/v1/sessions",
        )
    }

    after = await serve(journal=after_kill(tmp_path / "j"))
    for path, content in seen.items():
        assert (await after.http.get(path)).content == content
    again = await after.http.post(f"/v1/sessions/{sid}/step", json={"turn": 0, "action": action})
    assert again.content == first.content
    refusal(await after.step(sid, 1, "other"), "turn-conflict")
    refusal(await after.step(sid, 4, "4"), "turn-ahead")
    undisturbed = await LiveEpisode.start(Guess, "train", 42, 5, {"note": [1.0, -0.0, {"é": None}]})
    for one in (Action.model_validate(action), *(Action(text=text) for text in "123")):
        await undisturbed.step(one)
    assert (await after.step(sid, 3, "3")).json()["log_hash"] == undisturbed.log_hash
    assert (
        await after.create(index=42, seed=5, key="k", options={"note": [1.0, -0.0, {"é": None}]})
    ).status_code == 200
    refusal(await after.create(index=43, key="k"), "invalid-request")
    assert (await after.fork(sid, key="f", at_turn=1, count=2)).json() == forked.json()
    refusal(await after.step(ended, 0, "x"), "session-done")
    assert (await after.finish(ended, 0, "because")).status_code == 200
    refusal(await after.get(deleted), "session-deleted")
    refusal(await after.get(anns, headers=as_user("bob")), "not-found")
    assert (await after.get(anns, headers=as_user("ann"))).status_code == 200
    refusal(await after.step(broken, 0, "x"), "env-failed")
    assert (await after.get(broken)).json()["status"] == "failed"


async def test_listing_is_that_of_memory(serve, tmp_path, as_user):
    api = await serve(journal=tmp_path / "j")
    sids = [await api.open(index=1) for _ in range(4)]
    await api.step(sids[1], 0, "1")
    await api.delete(sids[2])
    await api.open(headers=as_user("ann"))
    page = (await api.http.get("/v1/sessions")).json()
    assert [item["session_id"] for item in page["items"]] == [sids[0], sids[1], sids[3]]
    expected = {"session_id": sids[1], "env": "guess", "task_id": "guess/train/1", "turn": 1, "status": "done"}
    assert page["items"][1] == expected
    live = (await api.http.get("/v1/sessions?status=live&offset=1&limit=5")).json()
    assert ([item["session_id"] for item in live["items"]], live["total"]) == ([sids[3]], 2)
    everybody = await api.http.get("/v1/sessions", headers=as_user("root"))
    assert everybody.json()["total"] == 4


async def test_an_effect_without_a_result_is_indeterminate(serve, tmp_path, refusal, gate):
    """Killed in the middle of a step that cannot be repeated: nobody is told that it did or did not happen."""
    before = await serve([SlowLive], journal=tmp_path / "j")
    sid = await before.open("slow-live")
    await before.step(sid, 0, "a")
    step = asyncio.create_task(before.step(sid, 1, gate.text))
    await eventually(lambda: Slow.steps[gate.text])
    after = await serve([SlowLive], journal=after_kill(tmp_path / "j"))
    refusal(await after.step(sid, 1, gate.text), "session-lost")  # it has no snapshots: not even turn 1 can be had back
    assert [entry["turn"] for entry in (await after.get(sid, "/history")).json()["steps"]] == [1]
    assert (await after.get(sid)).json()["status"] == "failed"
    assert (await after.step(sid, 0, "a")).status_code == 200
    gate.open()
    assert (await step).status_code == 200


async def test_what_is_not_deterministic_comes_back_by_snapshot(serve, tmp_path, refusal):
    before = await serve([Dice], journal=tmp_path / "j")
    fresh, sid = await before.open("dice"), await before.open("dice")
    for turn in (0, 1):
        await before.step(sid, turn, "a")
    branch = (await before.fork(sid, at_turn=1)).json()["sessions"][0]["session_id"]
    after = await serve([Dice], journal=after_kill(tmp_path / "j"))
    assert (await after.step(sid, 2, "a")).json()["reward"] == 3.0
    assert (await after.step(branch, 1, "b")).json()["reward"] == 2.0
    assert (await after.step(fresh, 0, "a")).json()["reward"] == 1.0


async def test_an_intent_of_what_has_snapshots_is_indeterminate(serve, tmp_path, refusal):
    began, go_on = asyncio.Event(), asyncio.Event()

    class SlowDice(Dice):
        spec = Dice.spec.model_copy(update={"id": "slow-dice"})

        async def step(self, action: Action) -> StepResult:
            if action.text == "b":
                began.set()
                await go_on.wait()
            return await super().step(action)

    before = await serve([SlowDice], journal=tmp_path / "j")
    sid = await before.open("slow-dice")
    await before.step(sid, 0, "a")
    step = asyncio.create_task(before.step(sid, 1, "b"))
    await began.wait()
    after = await serve([SlowDice], journal=after_kill(tmp_path / "j"))
    refusal(await after.step(sid, 1, "b"), "step-indeterminate")
    refusal(await after.finish(sid, 1), "step-indeterminate")
    branch = (await after.fork(sid)).json()["sessions"][0]["session_id"]  # what was before it is known
    go_on.set()
    assert (await after.step(branch, 1, "b")).json()["reward"] == 2.0
    await step


async def test_a_liar_is_lost(serve, tmp_path, refusal):
    before = await serve([Liar], journal=tmp_path / "j")
    sid = await before.open("liar")
    await before.step(sid, 0, "a")
    after = await serve([Liar], journal=after_kill(tmp_path / "j"))
    refusal(await after.fork(sid), "not-forkable")
    refusal(await after.step(sid, 1, "b"), "session-lost")
    assert (await after.get(sid, "/history")).status_code == 200


async def test_another_version_reads_and_does_not_go_on(serve, tmp_path, refusal):
    before = await serve([Guess], journal=tmp_path / "j")
    sid = await before.open()
    await before.step(sid, 0, "1")
    after = await serve([Guess2], journal=after_kill(tmp_path / "j"))
    assert (await after.step(sid, 0, "1")).status_code == 200
    assert (await after.get(sid)).json()["env_version"] == "1"
    assert "version 1, and this is version 2" in refusal(await after.step(sid, 1, "2"), "version-mismatch")
    refusal(await after.fork(sid), "version-mismatch")


async def test_nothing_is_acknowledged_before_it_is_written(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "BUSY_S", PATIENCE)
    api = await serve(journal=tmp_path / "j")
    sid, other = await api.open(), await api.open()
    with closing(sqlite3.connect(only_journal(tmp_path / "j"), isolation_level=None)) as somebody:
        somebody.execute("BEGIN IMMEDIATE")  # the writer has to wait
        waiting = [
            asyncio.create_task(call)
            for call in (api.step(sid, 0, "x"), api.create(key="k"), api.fork(other), api.delete(other))
        ]
        done, _ = await asyncio.wait(waiting, timeout=0.3)
        assert not done
        assert (await api.get(sid)).json()["turn"] == 0
        after = await serve(journal=after_kill(tmp_path / "j"))
        assert (await after.http.get("/v1/sessions")).json()["total"] == 2
        somebody.execute("ROLLBACK")
    assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200, 201, 201, 204]


async def test_a_full_disk_takes_no_new_work_and_loses_none(serve, tmp_path, refusal):
    Guess.steps.clear()
    api = await serve(journal=tmp_path / "j")
    sid = await api.open(index=42)
    await api.step(sid, 0, "a")
    with full_disk(tmp_path / "j"):
        answer = await api.step(sid, 1, "b")
        refusal(answer, "journal-full")
        assert "retry-after" in answer.headers
        refusal(await api.create(key="k"), "journal-full")
        refusal(await api.fork(sid), "journal-full")
        refusal(await api.delete(sid), "journal-full")
        assert (await api.step(sid, 0, "a")).status_code == 200
        assert (await api.get(sid)).json()["turn"] == 1  # nobody hears of turn 2 before it is safe
    refusal(await api.step(sid, 1, "c"), "turn-conflict")  # it happened, once, and is now written down
    assert (await api.step(sid, 1, "b")).json()["turn"] == 2
    assert Guess.steps["b"] == 1
    assert (await api.create(key="k")).status_code == 201
    after = await serve(journal=after_kill(tmp_path / "j"))
    assert (await after.get(sid)).json()["turn"] == 2


async def test_one_row_that_cannot_be_written_harms_no_other(tmp_path):
    journal = Journal.open(tmp_path, ["guess"], "normal")
    episode = await LiveEpisode.start(Guess, "train", 0)
    from turnwise_server.hosts import Beginning
    from turnwise_server.journal.journal import Birth
    from turnwise_server.log import Log

    begin = Beginning(episode.task, 0, {}, episode.initial, episode.initial_hash)
    births = [Birth(sid, "", Log("guess", "1", begin)) for sid in ("a", "a", "b")]
    durable = [journal.begin([birth], None)[1] for birth in births]
    outcomes = await asyncio.gather(*durable, return_exceptions=True)
    assert [type(outcome).__name__ for outcome in outcomes] == ["NoneType", "Refusal", "NoneType"]
    assert await journal.find("b") is not None
    await journal.close()


async def test_many_rows_are_one_commit(serve, tmp_path, monkeypatch):
    """What piles up while the file is held is written at once."""
    monkeypatch.setattr(schema, "BUSY_S", PATIENCE)
    api = await serve(journal=tmp_path / "j")
    sids = [await api.open() for _ in range(50)]
    figures = api.app.state.store.journal.figures
    before = figures.commits
    with closing(sqlite3.connect(only_journal(tmp_path / "j"), isolation_level=None)) as somebody:
        somebody.execute("BEGIN IMMEDIATE")
        steps = [asyncio.create_task(api.step(sid, 0, "x")) for sid in sids]
        await eventually(lambda: figures.waiting == 50)
        somebody.execute("ROLLBACK")
    await asyncio.gather(*steps)
    assert figures.commits - before <= 2  # the first to come was on its way
    assert figures.waiting == 0


async def test_a_file_that_somebody_holds_is_waited_for_once(serve, tmp_path, monkeypatch, refusal):
    """And not once for each of those who wait."""
    monkeypatch.setattr(schema, "BUSY_S", 1.0)
    api = await serve(journal=tmp_path / "j")
    sids = [await api.open() for _ in range(20)]
    figures = api.app.state.store.journal.figures
    with closing(sqlite3.connect(only_journal(tmp_path / "j"), isolation_level=None)) as somebody:
        somebody.execute("BEGIN IMMEDIATE")
        answers = await asyncio.gather(*(api.step(sid, 0, "x") for sid in sids))
        assert figures.failures <= 2  # the first to come was on its way
        somebody.execute("ROLLBACK")
    for answer in answers:
        refusal(answer, "journal-full")
    assert {(await api.step(sid, 0, "x")).status_code for sid in sids} == {200}


async def test_a_log_that_goes_while_a_directory_is_looked_at(tmp_path, monkeypatch):
    """Another server stops at that moment."""
    journal = Journal.open(tmp_path, ["guess"], "normal")
    await journal.close()
    stat = Path.stat

    def vanishing(path, **arguments):
        if path.name.endswith("-wal"):
            raise FileNotFoundError(path)
        return stat(path, **arguments)

    monkeypatch.setattr(Path, "stat", vanishing)
    monkeypatch.setattr(Path, "exists", lambda path: True)
    again = Journal.open(tmp_path, ["guess"], "normal")
    assert again.path == journal.path
    await again.close()


async def test_servers_share_a_directory_and_adopt_what_is_abandoned(serve, tmp_path):
    first = await serve([Guess], journal=tmp_path)
    second = await serve([Guess], journal=tmp_path)
    paths = [each.app.state.store.journal.path for each in (first, second)]
    assert len(set(paths)) == 2
    sid = await second.open()
    await second.app.state.store.close()
    other = await serve([Slow], journal=tmp_path)  # does not serve what is in there
    assert other.app.state.store.journal.path not in paths
    third = await serve([Slow, Guess], journal=tmp_path)
    assert third.app.state.store.journal.path == paths[1]
    assert (await third.get(sid)).status_code == 200


def a_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE passwords (word)")


def a_newer_journal(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def a_torn_journal(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[5000:9000] = b"\xff" * 4000
    path.write_bytes(content)


def a_cut_journal(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:4096])


def a_text(path: Path) -> None:
    path.write_text("Dear diary,\n")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (a_database, "is a database, but not a journal"),
        (a_text, "is not a journal"),
        (a_newer_journal, "journal format 99"),
        (a_torn_journal, "is damaged"),
        (a_cut_journal, "is damaged"),
    ],
)
async def test_damaged_and_foreign_files_are_refused_and_left_alone(tmp_path, damage, complaint):
    journal = Journal.open(tmp_path, ["guess"], "normal")
    await journal.close()
    if damage is a_database:
        journal.path.unlink()
    damage(journal.path)
    content = journal.path.read_bytes()
    with pytest.raises(JournalRefused, match=complaint) as refused:
        Journal.open(tmp_path, ["guess"], "normal")
    assert str(journal.path) in str(refused.value)
    assert journal.path.read_bytes() == content
    shown = CliRunner().invoke(commands, ["info", str(tmp_path)])
    assert (shown.exit_code, str(journal.path) in shown.output) == (1, True)
    fine = tmp_path / "journal-zz.sqlite"
    schema.create(fine)
    pruned = CliRunner().invoke(commands, ["prune", str(tmp_path)])
    assert (pruned.exit_code, str(journal.path) in pruned.output, fine.name in pruned.output) == (1, True, True)
    assert journal.path.read_bytes() == content


async def test_a_directory_that_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalRefused, match="choose another with --journal"):
        Journal.open(tmp_path / "file", ["guess"], "normal")


async def test_retention(serve, tmp_path, refusal):
    """Answers of an ended session are kept for a time, its name for as long again; what is gone is emptied at once."""
    api = await serve(journal=tmp_path / "j")
    journal = api.app.state.store.journal
    ended, deleted, live = await api.open(key="e"), await api.open(), await api.open()
    for sid in (ended, deleted, live):
        await api.step(sid, 0, "x")
    await api.finish(ended, 1)
    await api.delete(deleted)
    await journal.tidy(3600, 2**40)
    assert rows(tmp_path / "j") == {"sessions": 3, "steps": 3, "gone": 1, "keys": 1}
    assert (await api.get(ended)).status_code == 200
    await journal.tidy(0, 2**40)  # both times are over
    assert rows(tmp_path / "j") == {"sessions": 1, "steps": 1, "gone": 0, "keys": 0}
    after = await serve(journal=after_kill(tmp_path / "j"))
    refusal(await after.get(ended), "not-found")
    assert (await after.step(live, 1, "y")).status_code == 200


async def test_a_journal_over_its_budget_gives_up_the_oldest_that_ended(serve, tmp_path, refusal):
    api = await serve(journal=tmp_path / "j")
    sids = [await api.open(options={"note": "x" * 20_000, "max_turns": 1}) for _ in range(60)]
    for sid in sids[:-1]:
        await api.step(sid, 0, "y" * 20_000)
    await api.app.state.store.journal.tidy(3600, 2_000_000)
    after = await serve(journal=after_kill(tmp_path / "j"))
    refusal(await after.get(sids[0]), "session-expired")
    assert (await after.get(sids[-2])).status_code == 200
    assert (await after.get(sids[-1])).json()["status"] == "live"


async def test_info_and_prune(serve, tmp_path):
    api = await serve([Guess, Crashing], journal=tmp_path / "j")
    done, live, failed = await api.open(), await api.open(), await api.open("crashing")
    await api.finish(done, 0)
    await api.step(live, 0, "x")
    await api.step(failed, 0, "crash")
    runner = CliRunner()
    (figures,) = json.loads(runner.invoke(commands, ["info", str(tmp_path / "j"), "--json"]).output)
    wanted = {"in_use": True, "live": 1, "done": 1, "failed": 1, "gone": 0, "steps": 2, "envs": ["crashing", "guess"]}
    assert {name: figures[name] for name in wanted} == wanted
    shown = runner.invoke(commands, ["info", str(tmp_path / "j")], env={"COLUMNS": "200"}).output
    assert "in use" in shown
    assert "crashing, guess" in shown
    narrow = runner.invoke(commands, ["info", str(tmp_path / "j")], env={"COLUMNS": "80"}).output
    row = narrow[narrow.index("journal-") :].splitlines()
    assert "".join(line[: row[0].index("in use")].strip() for line in row) == figures["file"]  # folded, not cut
    assert "…" not in narrow
    assert "in use" in runner.invoke(commands, ["prune", str(tmp_path / "j")]).output
    await api.app.state.store.close()
    assert "0 sessions forgotten" in runner.invoke(commands, ["prune", str(tmp_path / "j")]).output
    assert "2 sessions forgotten" in runner.invoke(commands, ["prune", str(tmp_path / "j"), "--retain", "0"]).output
    assert runner.invoke(commands, ["prune", str(tmp_path / "j"), "--retain", "soon"]).exit_code == 2
    after = await serve([Guess, Crashing], journal=tmp_path / "j")
    assert (await after.step(live, 1, "y")).status_code == 200


def rows(directory: Path) -> dict[str, int]:
    with closing(sqlite3.connect(only_journal(directory))) as connection:
        return {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("sessions", "steps", "gone", "keys")
        }
