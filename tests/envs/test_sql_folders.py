"""Spider and BIRD folders in the benchmarks' own format, made small here."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from turnwise_envs import Action, ToolCall, UnknownEnvironment, UnknownTask, registry
from turnwise_envs.check import check_env
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.plugins.sql import sql as adapter
from turnwise_envs.sql import Sql
from turnwise_envs.types import StepResult

SINGERS = [(1, "Joe", "France", 25), (2, "Rose", "France", 41), (3, "Tribal", "Spain", 32)]
OTHERS = [(1, "Ann", "Spain", 60), (2, "Bo", "Italy", 19)]


def database(path: Path, rows: list[tuple[int, str, str, int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE singer (Singer_ID int primary key, Name text, Country text, Age int)")
    connection.executemany("INSERT INTO singer VALUES (?, ?, ?, ?)", rows)
    connection.execute("INSERT INTO singer VALUES (9, CAST(x'4aff' AS TEXT), NULL, NULL)")  # not UTF-8, as in the wild
    connection.commit()
    connection.close()


@pytest.fixture
def spider(tmp_path: Path) -> Path:
    root = tmp_path / "spider"
    database(root / "database/concert_singer/concert_singer.sqlite", SINGERS)
    database(root / "database/concert_singer/concert_singer_fuzz_1.sqlite", OTHERS)
    questions = [
        {"db_id": "concert_singer", "question": "How many singers are there?", "query": "SELECT count(*) FROM singer"},
        {
            "db_id": "concert_singer",
            "question": "Names and ages from oldest to youngest?",
            "query": "SELECT name, age FROM singer WHERE age > 0 ORDER BY age DESC",
            "query_toks": [],
        },
    ]
    (root / "dev.json").write_text(json.dumps(questions))
    (root / "train_spider.json").write_text(json.dumps(questions[:1]))
    (root / "train_others.json").write_text(json.dumps(questions[1:] * 2))
    return root


@pytest.fixture
def bird(tmp_path: Path) -> Path:
    root = tmp_path / "bird"
    home = root / "dev_20240627"
    database(home / "dev_databases/music/music.sqlite", SINGERS)
    notes = home / "dev_databases/music/database_description/Singer.csv"
    notes.parent.mkdir()
    notes.write_text(
        "original_column_name,column_name,column_description,data_format,value_description\n"
        "Age,,age in years,integer,commonsense: over 40 is old\n",
        encoding="utf-8-sig",
    )
    question = {
        "question_id": 0,
        "db_id": "music",
        "question": "Which countries have old singers?",
        "evidence": "old refers to Age > 40",
        "SQL": "SELECT Country FROM singer WHERE Age > 20",
        "difficulty": "moderate",
    }
    (home / "dev.json").write_text(json.dumps([question]))
    return root


def contents(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def call(name: str, **arguments: object) -> Action:
    return Action(tool_calls=[ToolCall(id="c0_0", name=name, arguments=arguments)])


async def played(env: type, index: int, *actions: Action, split: str = "dev", **options: object) -> StepResult:
    episode = await LiveEpisode.start(env, split, index, 0, options)
    for action in actions:
        result = await episode.step(action)
    await episode.close()
    return result


async def test_spider(spider: Path) -> None:
    env = registry.load("sql", {"spider": str(spider)})
    assert env.spec.id == "sql:spider"
    assert {split.name: split.size for split in env.spec.splits} == {"train": 3, "dev": 2}
    task = env.tasks.get("dev", 1)
    assert task.instruction == "Names and ages from oldest to youngest?"
    assert env.tasks.reference(task).answers == ['[["Rose", 41], ["Tribal", 32], ["Joe", 25]]']
    assert (await played(env, 0, call("submit", sql="SELECT COUNT(*) FROM singer"))).reward == 1.0
    lucky = await played(env, 0, call("submit", sql="SELECT 4"))
    assert lucky.reward == 0.0  # the second file of the test suite has three singers
    assert lucky.info.metrics["databases_right"] == 0.5
    flipped = call("submit", sql="SELECT age, name FROM singer WHERE age > 0 ORDER BY age DESC")
    assert (await played(env, 1, flipped)).reward == 1.0
    assert (await played(env, 1, flipped, compare="turnwise")).reward == 0.0
    unordered = call("submit", sql="SELECT name, age FROM singer WHERE age > 0 ORDER BY age")
    assert (await played(env, 1, unordered)).reward == 0.0


async def test_bird(bird: Path) -> None:
    env = registry.load("sql", {"bird": str(bird)})
    assert env.spec.id == "sql:bird"
    assert env.tasks.get("dev", 0).difficulty == 0.4
    episode = await LiveEpisode.start(env, "dev", 0)
    assert "Hint: old refers to Age > 40" in episode.initial.text
    described = (await episode.step(call("describe", table="singer"))).observation.text
    assert "age: int, may be null, [age in years; commonsense: over 40 is old]" in described.lower()
    everything = (await episode.step(call("run", sql="SELECT Name FROM singer"))).observation.text
    assert "'J\ufffd'" in everything
    await episode.close()
    distinct = call("submit", sql="SELECT DISTINCT Country FROM singer WHERE Age > 20")
    assert (await played(env, 0, distinct)).reward == 1.0  # sets of rows
    assert (await played(env, 0, distinct, compare="spider")).reward == 0.0
    assert (await played(env, 0, call("submit", sql="SELECT Country FROM singer"))).reward == 0.0


async def test_the_files_stay_as_they_are(spider: Path) -> None:
    before = contents(spider)
    env = adapter(spider=str(spider))
    for sql in ("DELETE FROM singer", "VACUUM", "CREATE TABLE x (a)", "SELECT count(*) FROM singer"):
        await played(env, 0, call("run", sql=sql), call("submit", sql=sql))
    assert contents(spider) == before


def test_the_contract_holds_on_folders(spider: Path) -> None:
    report = check_env(adapter(spider=str(spider)), episodes=2)
    assert report.ok, report


def test_what_is_no_such_folder(tmp_path: Path, spider: Path) -> None:
    with pytest.raises(UnknownEnvironment, match=r"no folder of bird: it has none of train.json, dev.json, test.json"):
        adapter(bird=str(spider / "database"))
    with pytest.raises(UnknownEnvironment, match="not both"):
        adapter(spider=str(spider), bird=str(spider))
    (tmp_path / "dev.json").write_text('[{"db_id": "x", "question": "?"}]')
    with pytest.raises(UnknownEnvironment, match="entry 0 needs db_id, question and query, and lacks 'query'"):
        adapter(spider=str(tmp_path))
    (tmp_path / "dev.json").write_text('[{"db_id": "../x", "question": "?", "query": "SELECT 1"}]')
    with pytest.raises(UnknownEnvironment, match=r"database '\.\./x' of split 'dev' is missing"):
        adapter(spider=str(tmp_path))
    (tmp_path / "dev.json").write_text("{")
    with pytest.raises(UnknownEnvironment, match="cannot be read"):
        adapter(spider=str(tmp_path), bird=None)
    with pytest.raises(UnknownTask):
        adapter(spider=str(spider)).tasks.get("dev", 2)


def test_without_a_folder_it_is_our_own() -> None:
    assert registry.load("sql") is Sql
