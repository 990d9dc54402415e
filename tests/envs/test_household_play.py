"""The household behind the protocol: episodes, options, junk, snapshots and forks, speed, and the page about it."""

import re
import time
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnwise_envs import Action, InvalidOptions, Observation, ToolCall, UnknownTask, load
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.household import Household

PAGE = Path(__file__).parents[2] / "docs" / "environments" / "household.md"


async def start(split: str = "train", index: int = 1, **options: object) -> LiveEpisode:
    return await LiveEpisode.start(Household, split, index, options=options)


async def say(episode: LiveEpisode, text: str) -> str:
    return (await episode.step(Action(text=text))).observation.text


def expert(episode: LiveEpisode) -> Action:
    action = episode.env.expert_action()
    assert action is not None
    return action


def test_it_is_found_by_its_id() -> None:
    assert load("household") is Household
    spec = Household.spec
    assert (spec.max_turns, spec.action_format, spec.tools) == (30, "text", [])
    assert {split.name: split.size for split in spec.splits} == {
        "train": 10_000,
        "valid_seen": 1_000,
        "valid_unseen": 1_000,
    }


@pytest.mark.parametrize(("split", "index"), [("train", 10_000), ("valid_unseen", 1_000), ("test", 0)])
def test_tasks_outside_the_splits_are_unknown(split: str, index: int) -> None:
    with pytest.raises(UnknownTask):
        Household.tasks.get(split, index)


async def test_solving_ends_the_episode_with_one() -> None:
    episode = await start()
    while not episode.done:
        result = await episode.step(expert(episode))
    assert (result.reward, result.terminated, result.truncated) == (1.0, True, False)
    assert (result.info.end, result.info.metrics) == ("solved", {"success": 1.0})
    assert sum(record.result.reward for record in episode.records) == 1.0


async def test_running_out_of_turns_is_worth_nothing() -> None:
    episode = await start(max_turns=2)
    await episode.step(Action(text="look"))
    result = await episode.step(Action(text="inventory"))
    assert result.observation.text == "You are not carrying anything."
    assert (result.reward, result.terminated, result.truncated) == (0.0, False, True)
    assert (result.info.end, result.info.metrics) == ("max_turns", {"success": 0.0})


async def test_solving_on_the_last_turn_counts() -> None:
    turns = Household.tasks.reference(Household.tasks.get("train", 1)).data["expert_turns"]
    episode = await start(max_turns=turns)
    while not episode.done:
        result = await episode.step(expert(episode))
    assert episode.turn == turns
    assert (result.reward, result.info.end) == (1.0, "solved")


async def test_finishing_from_outside_is_worth_nothing() -> None:
    episode = await start()
    result = await episode.finish("context_overflow")
    assert (result.reward, result.truncated) == (0.0, True)
    assert (result.info.end, result.info.metrics) == ("finished:context_overflow", {"success": 0.0})


@pytest.mark.parametrize(
    "text",
    [
        "go to fridge 1",
        "  Go  TO Fridge 1 \n",
        "<think>the fridge?\nlook</think>go to fridge 1",
        "<THINK>hm</THINK>\n\ngo to fridge 1\n\n",
        "thinking was opened in the prompt</think> go to fridge 1",
        "I will look into the fridge.\ngo to fridge 1",
        "<think>a</think>look<think>b</think>\ngo to fridge 1",
    ],
)
async def test_the_command_is_found_in_what_was_said(text: str) -> None:
    assert await say(await start(), text) == "You arrive at fridge 1. The fridge 1 is closed."


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n\t\n",
        "<think>go to fridge 1",
        "<think>go to fridge 1</think>",
        "go to fridge 1 please",
        "go to fridge 1\nthen open it",
        "go to fridge 99",
        "take from",
        "look\x00",
        "открой холодильник",
        "{" * 5000,
        "take " + " from " * 5000,
        "x" * 200_000,
    ],
)
async def test_junk_does_nothing(text: str) -> None:
    episode = await start()
    key = episode.observation.state_key
    result = await episode.step(Action(text=text))
    assert result.observation.text == "Nothing happens."
    assert (result.info.action_valid, result.info.action_effective, result.reward) == (False, False, 0.0)
    assert result.observation.state_key == key


async def test_valid_and_effective_are_different_things() -> None:
    episode = await start()

    async def flags(text: str) -> tuple[bool, bool]:
        info = (await episode.step(Action(text=text))).info
        return info.action_valid, info.action_effective

    assert await flags("go to fridge 1") == (True, True)
    assert await flags("go to fridge 1") == (True, False)  # here already
    assert await flags("open microwave 1") == (True, False)  # not here
    assert await flags("look") == (True, False)  # shows, changes nothing
    assert await flags("dance") == (False, False)


async def test_tool_calls_have_no_effect_and_are_told_so() -> None:
    call = ToolCall(id="c0_0", name="open", arguments={"what": "fridge 1"})
    result = await (await start()).step(Action(text="", tool_calls=[call]))
    assert result.observation.text == "Nothing happens. Tool calls have no effect here: write a command."
    assert not result.info.action_valid
    result = await (await start()).step(Action(text="go to fridge 1", tool_calls=[call]))
    assert result.observation.text.startswith("You arrive at fridge 1. The fridge 1 is closed. Tool calls")


async def test_admissible_actions_are_data_unless_asked_for() -> None:
    plain, shown = await start(), await start(show_admissible=True)
    admissible = plain.observation.admissible_actions
    assert admissible is not None
    assert admissible == sorted(admissible)
    assert shown.observation.admissible_actions == admissible
    assert "help" not in plain.observation.text
    assert shown.observation.text == f"{plain.observation.text}\n\nAdmissible actions: {', '.join(admissible)}"
    copy = await shown.fork()
    assert (await say(copy, "look")).endswith(", ".join(admissible))


@pytest.mark.parametrize(
    "options", [{"max_turns": 0}, {"max_turns": 201}, {"show_admissible": "yes"}, {"admissible": True}]
)
async def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidOptions):
        await start(**options)


async def test_state_keys_name_states_not_histories() -> None:
    """The same place by two ways is one state; another place, another room, another object state is not."""
    direct, around, other = await start(), await start(), await start(index=2)
    await say(direct, "go to fridge 1")
    await say(around, "go to countertop 1")
    await say(around, "nonsense")
    assert direct.observation.state_key != around.observation.state_key
    await say(around, "go to fridge 1")
    assert direct.observation.state_key == around.observation.state_key
    assert other.initial.state_key != direct.initial.state_key
    await say(around, "open fridge 1")
    await say(around, "close fridge 1")
    assert direct.observation.state_key == around.observation.state_key


async def test_the_seed_changes_nothing() -> None:
    seen = [await LiveEpisode.start(Household, "train", 5, seed=seed) for seed in (0, 1, 2**40)]
    assert len({episode.initial.text for episode in seen}) == 1


choices = st.one_of(st.integers(0, 10**6), st.sampled_from(["", "look", "open fridge 1", "<think>go", "take it"]))


def to_action(choice: int | str, observation: Observation) -> Action:
    """A number picks one of the admissible actions; text is said as it is."""
    admissible = observation.admissible_actions or []
    return Action(text=choice if isinstance(choice, str) else admissible[choice % len(admissible)])


@settings(max_examples=40, deadline=None)
@given(index=st.integers(0, 99), before=st.lists(choices, max_size=12), after=st.lists(choices, max_size=6))
async def test_snapshots_replays_and_the_original_agree(
    index: int, before: list[int | str], after: list[int | str]
) -> None:
    original = await start("train", index)
    for choice in before:
        if not original.done:
            await original.step(to_action(choice, original.observation))
    branched = await original.fork()
    actions = [record.action for record in original.records if record.action is not None]
    replayed = await LiveEpisode.replay(Household, "train", index, 0, {}, actions)
    halfway = await original.fork(at_turn=len(actions) // 2)
    assert halfway.turn == len(actions) // 2
    for choice in after:
        if not original.done:
            action = to_action(choice, original.observation)
            assert len({episode.env.snapshot() for episode in (original, branched, replayed)}) == 1
            for episode in (original, branched, replayed):
                await episode.step(action)
    assert original.log_hash == branched.log_hash == replayed.log_hash


async def test_a_branch_does_not_disturb_its_parent() -> None:
    parent = await start()
    await say(parent, "go to fridge 1")
    before = parent.env.snapshot()
    child = await parent.fork()
    await say(child, "open fridge 1")
    assert parent.env.snapshot() == before
    assert len(before) < 200


async def test_the_reference_stays_out_of_the_task() -> None:
    task = Household.tasks.get("train", 1)
    assert set(task.metadata) == {"family", "room", "plan", "receptacles"}
    data = Household.tasks.reference(task).data
    assert data["objects"]["cup 1"] == "cabinet 1"
    assert data["goal"] == {
        "family": "pick_clean_then_place_in_recep",
        "object": "cup",
        "receptacle": "microwave",
        "lamp": "",
    }
    assert 0 <= task.difficulty <= 1


def blocks(language: str) -> list[str]:
    """The fenced blocks of the documentation page in a language."""
    parts = PAGE.read_text().split("```")[1::2]
    return [part.removeprefix(language + "\n") for part in parts if part.startswith(language + "\n")]


async def test_the_transcript_on_the_page_is_what_happens() -> None:
    (transcript,) = blocks("text")
    opening, *turns = transcript.strip().split("\n\n> ")
    episode = await start()
    assert episode.initial.text == opening
    for turn in turns:
        command, _, said = turn.partition("\n")
        assert await say(episode, command) == said
    assert episode.done
    assert episode.records[-1].result.reward == 1.0


def test_the_code_on_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    exec(compile(code, str(PAGE), "exec"), {"__name__": "page"})
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("You arrive at ")
    assert printed[-1] == "1.0"


@pytest.mark.parametrize("kind", ["clean", "heat", "cool"])
async def test_a_careless_expert_puts_the_thing_away_as_it_is_and_stops(kind) -> None:
    """It plays like the careful one, except that it forgets the treatment; then it has nothing more to do."""
    index = next(i for i in count() if kind in Household.tasks.get("train", i).metadata["family"])
    careful = await expert_play(index, {})
    careless = await expert_play(index, {"careless_expert": 1.0})
    assert any(text.startswith(kind) for text in careful[0])
    assert not any(text.startswith(kind) for text in careless[0])
    assert careless[0][-1] == careful[0][-1]
    assert careless[0][-1].startswith("move ")
    assert (careful[1], careless[1]) == (1.0, 0.0)


async def test_the_careless_share_is_a_share_of_tasks() -> None:
    family = "pick_heat_then_place_in_recep"
    indices = [i for i in range(400) if Household.tasks.get("train", i).metadata["family"] == family]
    wins = [(await expert_play(index, {"careless_expert": 0.5}))[1] for index in indices]
    assert 0.3 < sum(wins) / len(wins) < 0.7
    again = [(await expert_play(index, {"careless_expert": 0.5}))[1] for index in indices[:10]]
    assert again == wins[:10]


async def test_an_orderly_expert_looks_into_what_is_listed_one_after_the_other() -> None:
    """It comes to every receptacle in turn, opens what is shut, passes none by, and solves the task as well."""
    for index in range(40):
        said, reward = await expert_play(index, {"orderly_expert": True})
        assert reward == 1.0
        episode = await LiveEpisode.start(Household, "train", index)
        listed = re.findall(r"\ban? ([a-z]+ \d+)", episode.initial.text.splitlines()[0])
        taken = next(turn for turn, text in enumerate(said) if text.startswith("take "))
        visited = [text.removeprefix("go to ") for text in said[:taken] if text.startswith("go to ")]
        assert visited == listed[: len(visited)]
        assert {text.split()[0] for text in said[:taken]} <= {"go", "open"}


async def test_a_thinking_expert_names_what_it_is_after_and_which_one_it_sees() -> None:
    """Its commands are the same; the number stands there exactly when the last observation shows or hands it over."""
    for index in range(40):
        silent, _ = await expert_play(index, {})
        thinking, reward = await expert_play(index, {"thinking_expert": True})
        assert [text.splitlines()[1] for text in thinking] == silent
        assert reward == 1.0
        kind = thinking[0].splitlines()[0].removeprefix("think: ")
        took = next(turn for turn, text in enumerate(silent) if text.startswith("take "))
        assert kind == silent[took].split()[1]
        assert all(text.splitlines()[0] == f"think: {kind}" for text in thinking[:took])
        name = " ".join(silent[took].split()[1:3])
        assert thinking[took].startswith(f"think: {name}\n")
        assert thinking[took + 1].startswith(f"think: {name}\n")


async def expert_play(index: int, options: dict[str, object]) -> tuple[list[str], float]:
    """What the expert says in a task, and the reward of its last turn."""
    episode = await LiveEpisode.start(Household, "train", index, options=options)
    while not episode.done and (action := episode.env.expert_action()) is not None:
        await episode.step(action)
    texts = [record.action.text for record in episode.records if record.action is not None]
    return texts, episode.records[-1].result.reward


async def test_a_repeated_task_begins_every_observation() -> None:
    episode = await LiveEpisode.start(Household, "train", 0, options={"repeat_task": True})
    task = episode.observation.text.splitlines()[-1]
    assert task.startswith("Your task is to: ")
    await episode.step(Action(text="look"))
    assert episode.observation.text.splitlines()[0] == task
    assert len(episode.observation.text.splitlines()) == 2


async def test_speed() -> None:
    """Printed, not asserted: run with ``-s``."""
    steps, spent = 0, 0.0
    for index in range(100):
        env = Household()
        await env.reset(Household.tasks.get("train", index), 0, {})
        done = False
        while not done:
            action = env.expert_action()
            began = time.perf_counter()
            done = (await env.step(action)).done
            spent += time.perf_counter() - began
            steps += 1
    print(f"\nhousehold: {steps / spent:,.0f} steps/s, {spent / steps * 1e6:.0f} µs a step")
    assert steps > 600
