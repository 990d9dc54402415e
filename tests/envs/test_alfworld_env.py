"""The environment ``alfworld``: its engine on games that the household exports, its data folder, its contract."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from turnwise_envs import Action, ToolCall, UnknownEnvironment, load
from turnwise_envs.adapters import made_by
from turnwise_envs.environment import Environment
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.household import Household
from turnwise_envs.household.generate import scene

pytest.importorskip("alfworld", reason="needs turnwise[alfworld]")
pytest.importorskip("fast_downward", reason="needs turnwise[alfworld]")

from turnwise_envs.alfworld import write_game

PAGE = Path(__file__).parents[2] / "docs" / "environments" / "alfworld.md"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alfworld")
    for split, index in [("train", 1), ("train", 2), ("train", 3), ("valid_seen", 0), ("valid_unseen", 0)]:
        write_game(scene(split, index).world, folder)
    return folder


@pytest.fixture(scope="module")
def env_class(data: Path) -> type[Environment]:
    return load("alfworld", {"data": str(data)})


def index_of(env_class: type[Environment], trial: str) -> int:
    """Where an exported world stands in its split: games are numbered by name."""
    tasks = [env_class.tasks.get("train", index) for index in range(3)]
    return next(task.index for task in tasks if task.metadata["game"].endswith(trial))


def test_splits_are_what_the_folder_has(env_class: type[Environment]) -> None:
    assert {split.name: split.size for split in env_class.spec.splits} == {
        "train": 3,
        "valid_seen": 1,
        "valid_unseen": 1,
    }
    assert (env_class.spec.id, env_class.spec.deterministic, env_class.spec.snapshot) == ("alfworld", True, False)


def test_a_task_says_what_its_files_say(env_class: type[Environment]) -> None:
    index = index_of(env_class, "trial_00001")
    task = env_class.tasks.get("train", index)
    ours = Household.tasks.get("train", 1)
    assert task.instruction == ours.instruction
    assert task.metadata["family"] == ours.metadata["family"]
    reference = env_class.tasks.reference(task).data
    assert reference["goal"]["object_target"] == "cup"
    assert reference["walkthrough"][-1] == "move cup 1 to microwave 1"


@pytest.mark.slow
async def test_an_episode_as_the_household_plays_it(env_class: type[Environment]) -> None:
    """Our expert's commands: the same rewards and ends, through the protocol, in both."""
    ours = await LiveEpisode.start(Household, "train", 1)
    theirs = await LiveEpisode.start(env_class, "train", index_of(env_class, "trial_00001"))
    assert theirs.initial.text.startswith("-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room.")
    while not ours.done:
        action = ours.env.expert_action()
        assert action is not None
        assert theirs.observation.admissible_actions == ours.observation.admissible_actions
        mine, other = await ours.step(action), await theirs.step(action)
        assert (other.reward, other.done, other.info) == (mine.reward, mine.done, mine.info)
    assert theirs.done
    await theirs.env.close()


@pytest.mark.slow
async def test_their_planner_is_the_expert(env_class: type[Environment]) -> None:
    episode = await LiveEpisode.start(env_class, "valid_seen", 0)
    while not episode.done:
        action = episode.env.expert_action()
        assert action is not None
        result = await episode.step(action)
    assert (result.reward, result.info.end, result.info.metrics) == (1.0, "solved", {"success": 1.0})
    assert episode.turn < 20
    await episode.env.close()


async def test_mistakes_are_observations(env_class: type[Environment]) -> None:
    episode = await LiveEpisode.start(env_class, "train", index_of(env_class, "trial_00001"), options={"max_turns": 7})
    key = episode.observation.state_key

    async def flags(text: str) -> tuple[str, bool, bool]:
        result = await episode.step(Action(text=text))
        return result.observation.text, result.info.action_valid, result.info.action_effective

    assert await flags("dance") == ("Nothing happens.", False, False)
    assert await flags("open microwave 1") == ("Nothing happens.", True, False)
    middle = "You are in the middle of a room. Looking quickly around you, you see nothing."
    assert await flags("look") == (middle, True, False)
    assert episode.observation.state_key == key
    assert await flags("<think>hm</think>\n Go to  FRIDGE 1") == (
        "You arrive at fridge 1. The fridge 1 is closed.",
        True,
        True,
    )
    assert episode.observation.state_key != key
    assert await flags("examine fridge 1") == ("The fridge 1 is closed.", True, False)
    call = ToolCall(id="c0", name="open", arguments={})
    said = await episode.step(Action(text="open fridge 1", tool_calls=[call]))
    assert said.observation.text.endswith(". Tool calls have no effect here: write a command.")
    last = await episode.step(Action(text="look"))
    assert (last.reward, last.truncated, last.info.end, last.info.metrics) == (0.0, True, "max_turns", {"success": 0.0})
    await episode.env.close()


@pytest.mark.slow
async def test_two_games_at_once_do_not_disturb_each_other(env_class: type[Environment]) -> None:
    first = await LiveEpisode.start(env_class, "train", 0, options={"show_admissible": True})
    second = await LiveEpisode.start(env_class, "train", 1)
    place = next(line for line in first.observation.admissible_actions or [] if line.startswith("go to"))
    before = second.observation.admissible_actions
    moved = await first.step(Action(text=place))
    assert moved.observation.text.endswith(", ".join(moved.observation.admissible_actions or []))
    stayed = await second.step(Action(text="look"))
    assert stayed.observation.admissible_actions == before
    await first.env.close()
    assert (await second.step(Action(text="inventory"))).observation.text == "You are not carrying anything."
    await second.env.close()


def test_games_that_alfworld_leaves_out_are_left_out(data: Path, tmp_path: Path) -> None:
    (game,) = (data / "json_2.1.1" / "valid_seen").glob("*/*/game.tw-pddl")
    content = json.loads(game.read_text())

    def put(task: str, **changes: object) -> None:
        folder = tmp_path / "json_2.1.1" / "valid_seen" / task / "trial_0"
        folder.mkdir(parents=True)
        (folder / "game.tw-pddl").write_text(json.dumps({**content, **changes}))
        (folder / "traj_data.json").write_text(game.with_name("traj_data.json").read_text())

    put("pick_and_place_simple-Mug-None-Desk-308")
    put("pick_and_place_simple-Mug-None-Desk-307", walkthrough=["look"] * 4000)  # "solvable" stands far from the end
    put("pick_and_place_simple-Mug-None-Desk-309", solvable=False)
    put("pick_and_place_with_movable_recep-Mug-Pot-Desk-308")
    put("pick_clean_then_place_in_recep-AppleSliced-None-Fridge-1")
    found = load("alfworld", {"data": str(tmp_path)})
    assert [(split.name, split.size) for split in found.spec.splits] == [("valid_seen", 2)]
    games = [found.tasks.get("valid_seen", index).metadata["game"] for index in range(2)]
    assert games == [f"pick_and_place_simple-Mug-None-Desk-{number}/trial_0" for number in (307, 308)]


def test_without_games_it_says_where_they_should_be(tmp_path: Path) -> None:
    with pytest.raises(
        UnknownEnvironment, match=r"no games in .*json_2\.1\.1; run `alfworld-download`, or set ALFWORLD"
    ):
        load("alfworld", {"data": str(tmp_path)})


def test_another_process_makes_it_again_without_the_variable(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALFWORLD_DATA", str(data))
    origin = made_by(load("alfworld"))
    assert origin is not None
    assert origin.arguments == {"data": str(data.resolve())}


PLAY = """
import asyncio, os
from turnwise_envs import Action, load
from turnwise_envs.episode import LiveEpisode

async def main():
    episode = await LiveEpisode.start(load("alfworld"), "valid_unseen", 0)
    while not episode.done:
        await episode.step(episode.env.expert_action())
    print(episode.log_hash)

asyncio.run(main())
"""


@pytest.mark.slow
def test_it_is_the_same_in_every_process_and_found_by_the_environment_variable(data: Path) -> None:
    prints = {
        subprocess.run(
            [sys.executable, "-c", PLAY],
            env={**os.environ, "PYTHONHASHSEED": seed, "ALFWORLD_DATA": str(data)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "7")
    }
    assert len(prints) == 1


def test_alfworlds_own_loader_takes_our_export(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alfworld.agents.environment.alfred_tw_env import AlfredTWEnv

    config = {
        "env": {"goal_desc_human_anns_prob": 0, "task_types": [1, 2, 3, 4, 5, 6]},
        "dataset": {"data_path": str(data / "json_2.1.1" / "train"), "num_train_games": 0},
    }
    assert AlfredTWEnv(config, train_eval="train").num_games == 3


def blocks(language: str) -> list[str]:
    """The fenced blocks of the documentation page in a language."""
    parts = PAGE.read_text().split("```")[1::2]
    return [part.removeprefix(language + "\n") for part in parts if part.startswith(language + "\n")]


async def test_the_transcript_on_the_page_is_what_the_engine_says(env_class: type[Environment]) -> None:
    (transcript,) = blocks("text")
    opening, *turns = transcript.strip().split("\n\n> ")
    episode = await LiveEpisode.start(env_class, "train", index_of(env_class, "trial_00001"))
    assert episode.initial.text == opening
    for turn in turns:
        command, _, said = turn.partition("\n")
        assert (await episode.step(Action(text=command))).observation.text == said
    assert (episode.done, episode.records[-1].result.reward) == (True, 1.0)
    await episode.env.close()


def test_the_code_on_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    exec(compile(code, str(PAGE), "exec"), {"__name__": "page"})
    assert capsys.readouterr().out == "[{'name': 'train', 'size': 3}]\n"
