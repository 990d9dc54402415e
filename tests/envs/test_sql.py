"""The ``sql`` environment through its public face: play, scoring, rewards, options, snapshots, determinism."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter

import pytest

pytest.importorskip("sqlite_utils")

from turnwise_envs import Action, ToolCall
from turnwise_envs.check import check_env
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.sql import Sql
from turnwise_envs.types import JsonObject, StepResult, Task

SPLITS = ("train", "valid", "valid_unseen")


def call(name: str, **arguments: object) -> Action:
    return Action(tool_calls=[ToolCall(id="c0_0", name=name, arguments=arguments)])


def gold(task: Task) -> str:
    return str(Sql.tasks.reference(task).data["sql"])


def a_task(split: str = "train", **wanted: object) -> Task:
    """The first task whose metadata are as wanted."""
    tasks = (Sql.tasks.get(split, index) for index in range(500))
    return next(task for task in tasks if all(task.metadata[name] == value for name, value in wanted.items()))


async def played(task: Task, *actions: Action, options: JsonObject | None = None) -> StepResult:
    episode = await LiveEpisode.start(Sql, task.split, task.index, 0, options)
    for action in actions:
        result = await episode.step(action)
    await episode.close()
    return result


async def expert_play(task: Task, options: JsonObject | None = None) -> tuple[StepResult, int]:
    episode = await LiveEpisode.start(Sql, task.split, task.index, 0, options)
    while not episode.done:
        action = episode.env.expert_action()
        assert action is not None
        result = await episode.step(action)
    await episode.close()
    return result, episode.turn


@pytest.mark.parametrize("form", ["tools", "tags"])
async def test_the_expert_solves_every_kind_of_task(form: str) -> None:
    for split in SPLITS:
        for index in range(0, 30, 3):
            result, turns = await expert_play(Sql.tasks.get(split, index), {"action_format": form})
            assert result.reward == 1.0, (split, index)
            assert result.info.end == "solved"
            assert turns <= 7


async def test_guessing_solves_few() -> None:
    """A policy that submits the gold of another task of the same database is right only where they ask the same."""
    rng, right = random.Random(0), 0
    for _ in range(30):
        task, other = (Sql.tasks.get("train", 30 * rng.randrange(16)) for _ in range(2))
        if task.index != other.index:
            right += (await played(task, call("submit", sql=gold(other)))).reward
    assert right <= 2


async def test_a_right_answer_for_one_database_only_is_wrong() -> None:
    """The result itself, written out as constants, passes on the database that was shown and nowhere else."""
    task = a_task(family="count")
    ((answer,),) = json.loads(Sql.tasks.reference(task).answers[0])
    lucky = call("submit", sql=f"SELECT {answer}")
    assert (await played(task, lucky)).reward == 0.0
    one = await played(task, lucky, options={"instances": 1})
    assert one.reward == 1.0
    assert (await played(task, lucky)).info.metrics["databases_right"] == pytest.approx(1 / 3)


async def test_order_counts_only_where_the_gold_orders() -> None:
    free, ordered = a_task(family="names"), a_task(family="top")
    assert (await played(free, call("submit", sql=f"{gold(free)} ORDER BY 1 DESC"))).reward == 1.0
    reversed_order = f"SELECT * FROM ({gold(ordered)}) ORDER BY 2, 1 DESC"
    if "DESC," not in gold(ordered):
        reversed_order = f"SELECT * FROM ({gold(ordered)}) ORDER BY 2 DESC, 1"
    assert (await played(ordered, call("submit", sql=reversed_order))).reward == 0.0


async def test_tasks_that_write() -> None:
    task = a_task(family="delete")
    table = gold(task).split()[2]
    right = await played(task, call("run", sql=f"DELETE FROM {table}"), call("submit", sql=gold(task)))
    assert right.reward == 1.0  # what was run before is on the private copy only
    assert (await played(task, call("submit", sql=f"DELETE FROM {table}"))).reward == 0.0
    assert (await played(task, call("submit", sql="SELECT 1"))).reward == 0.0
    changed = await played(task, call("run", sql=gold(task)))
    assert "changed, in your private copy" in changed.observation.text
    counted = f"SELECT COUNT(*) FROM {table}"
    fresh = await played(task, call("run", sql=counted))
    emptied = await played(task, call("run", sql=f"DELETE FROM {table}"), call("run", sql=counted))
    assert emptied.observation.text.splitlines()[1] == "0"
    assert fresh.observation.text.splitlines()[1] != "0"
    assert emptied.observation.state_key != fresh.observation.state_key


async def test_a_change_of_nothing_elsewhere_is_no_answer() -> None:
    """One statement writes one table, so all that a wrong one can leave right is another table than the gold's."""
    task = a_task(family="delete")
    table = gold(task).split()[2]
    listed = (await played(task, call("list_tables"))).observation.text.splitlines()
    other = next(line.split()[0] for line in listed if line.split()[0] != table)
    idle = await played(task, call("submit", sql=f"DELETE FROM {other} WHERE 1 = 0"))
    assert (idle.reward, idle.info.metrics["executable"]) == (0.0, 1.0)
    assert (await played(task, call("submit", sql=f"DELETE FROM {other}"))).reward == 0.0


async def test_queries_cannot_write() -> None:
    task = a_task(writes=False)
    result = await played(task, call("run", sql="DELETE FROM sqlite_master"))
    assert result.observation.text.startswith("Error: ")
    assert not result.info.action_effective
    assert result.info.action_valid


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        # submission: right, wrong, not executable, nothing
        ("outcome", (1.0, 0.0, 0.0, 0.0)),
        ("seq2sql", (1.0, -1.0, -2.0, -2.0)),
        ("reex", (5.1, 2.1, 0.1, -1.9)),  # with one exploring query each: 1 + 1 + 3 + 0.1 and so on
    ],
)
async def test_reward_tables(table: str, expected: tuple[float, ...]) -> None:
    task, options = a_task(family="count"), {"reward": table}
    look = call("run", sql="SELECT 1")
    submissions = [gold(task), "SELECT 'something else'", "SELEC 1"]
    rewards = [(await played(task, look, call("submit", sql=sql), options=options)).reward for sql in submissions]
    episode = await LiveEpisode.start(Sql, task.split, task.index, 0, options)
    await episode.step(look)
    rewards.append((await episode.finish("gave_up")).reward)
    assert tuple(rewards) == pytest.approx(expected)


async def test_sparks_rewards_what_is_partly_right() -> None:
    pytest.importorskip("sqlglot")
    task, options = a_task(family="group_count"), {"reward": "sparks"}
    sql = gold(task)
    submissions = [sql, sql.lower() + " ;", sql + " ORDER BY 2", "SELECT 1", "not SQL at all ((("]
    full, same, other, poor, none = [
        (await played(task, call("submit", sql=each), options=options)).reward for each in submissions
    ]
    assert full == same == 1.0
    assert 1 / 3 + 0.2 < other < 2 / 3  # right, another text, most clauses
    assert 0.0 <= poor < 0.2
    assert none == 0.0


async def test_text_form() -> None:
    task, options = a_task(family="count"), {"action_format": "tags"}
    episode = await LiveEpisode.start(Sql, task.split, task.index, 0, options)
    assert "CREATE TABLE" in episode.initial.text
    thinking = await episode.step(Action(text="<think><sql>SELECT 1</sql></think> I wonder."))
    assert not thinking.info.action_valid
    fenced = await episode.step(Action(text="Let me see.\n```sql\nSELECT 41 + 1 AS x\n```"))
    assert fenced.observation.text == "<result>\nx\n42\n(1 row)\n</result>"
    two = await episode.step(Action(text="<sql>SELECT 1</sql><intermediate_sql>SELECT nope</intermediate_sql>"))
    assert two.observation.text.count("<result>") == 2
    assert "no such column: nope" in two.observation.text
    assert two.info.counters == {"tool_calls": 2, "queries": 1, "sql_errors": 1}
    tool = await episode.step(call("submit", sql=gold(task)))
    assert [message.role for message in tool.observation.messages] == ["tool", "user"]
    assert not tool.done
    last = await episode.step(Action(text=f"<answer>```sql\n{gold(task)}\n```</answer><sql>SELECT 2</sql>"))
    assert last.reward == 1.0
    assert last.info.metrics == {"success": 1.0, "executable": 1.0, "databases_right": 1.0}


async def test_tools_teach() -> None:
    task = a_task(family="count")
    tables = await played(task, call("list_tables"))
    assert "rows)" in tables.observation.text
    first = tables.observation.text.split()[0]
    described = await played(task, call("describe", table=first.upper()))
    assert "primary key" in described.observation.text
    assert "such as" in described.observation.text
    wrong = await played(task, call("describe", table="nothing"))
    assert f"Tables: {first}" in wrong.observation.text
    assert "submit(sql: string)" in (await played(task, Action(text="SELECT 1"))).observation.text
    many = await played(task, call("run", sql=f"SELECT * FROM {first}"), options={"rows_shown": 2})
    assert many.observation.text.count("\n") == 3


async def test_equal_submissions_share_a_state_key() -> None:
    """For votes over results (CSC-SQL): the key of the last observation stands for the result."""
    task = a_task(family="count")
    one = await played(task, call("submit", sql=gold(task)))
    same = await played(task, call("list_tables"), call("submit", sql=f"SELECT * FROM ({gold(task)})"))
    other = await played(task, call("submit", sql="SELECT -1"))
    assert one.observation.state_key == same.observation.state_key != other.observation.state_key


async def test_a_snapshot_goes_on_where_the_episode_was() -> None:
    task = a_task(family="delete")
    table = gold(task).split()[2]
    episode = await LiveEpisode.start(Sql, task.split, task.index, 0, {"reward": "reex"})
    for sql in (f"DELETE FROM {table}", "SELECT 2", "SELECT broken"):
        await episode.step(call("run", sql=sql))
    fork = await episode.fork()
    assert len(episode.env.snapshot()) < 1000
    for action in (
        call("list_tables"),
        call("run", sql=f"SELECT COUNT(*) FROM {table}"),
        call("submit", sql=gold(task)),
    ):
        assert await episode.step(action) == await fork.step(action)
    assert episode.log_hash == fork.log_hash
    await episode.close()
    await fork.close()


def test_tasks_are_graded_and_varied() -> None:
    tasks = [Sql.tasks.get("train", index) for index in range(150)]
    families = Counter(task.metadata["family"] for task in tasks)
    levels = Counter(task.metadata["level"] for task in tasks)
    assert len(families) >= 25
    assert max(families.values()) < 25
    assert set(levels) == {"easy", "medium", "hard", "extra"}
    assert min(levels.values()) >= 8
    assert len({task.instruction for task in tasks}) >= 135
    assert {task.metadata["database"] for task in tasks} == {"shop", "university", "clinic", "company", "airline"}
    unseen = {Sql.tasks.get("valid_unseen", index).metadata["database"] for index in range(10)}
    assert unseen == {"library", "festival"}


@pytest.mark.slow
def test_the_environment_keeps_the_contract() -> None:
    report = check_env(Sql)
    assert report.ok, report


def test_steps_are_fast_enough() -> None:
    """A guard far below the measured figure (docs/environments/sql.md), since test machines are shared."""

    async def play() -> int:
        return sum([(await expert_play(Sql.tasks.get("train", index)))[1] for index in range(30)])

    asyncio.run(play())
    begun = time.process_time()
    steps = asyncio.run(play())
    assert steps / (time.process_time() - begun) > 20
