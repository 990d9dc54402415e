"""Wrappers: what each does, and that an episode stays a function of its actions with all of them on."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise_envs import (
    Action,
    Environment,
    EnvironmentFault,
    EnvSpec,
    FunctionTaskSet,
    InvalidOptions,
    Message,
    Observation,
    SplitSpec,
    StepInfo,
    StepResult,
    SyncEnvironment,
    ToolCall,
    ToolSpec,
    UnknownEnvironment,
    registry,
)
from turnwise_envs.check import check_env
from turnwise_envs.dice import Dice
from turnwise_envs.episode import LiveEpisode, check_options
from turnwise_envs.household import Household
from turnwise_envs.wrappers import KINDS, wrap
from turnwise_envs.wrappers.course import strength
from turnwise_envs.wrappers.noise import concealed, garbled
from turnwise_envs.wrappers.settings import Drift

EVERYTHING: dict[str, Any] = {
    "sticky_actions": {"probability": 0.3},
    "failing_actions": {"probability": 0.2},
    "random_actions": {"probability": 0.2},
    "interference": {"probability": 0.2},
    "noisy_observations": {"probability": 0.2},
    "missing_observations": {"probability": 0.2, "unit": "word"},
    "drift": {"turns": 2, "mode": "gradual"},
    "turn_budget": {"turns": 14},
    "cost_budget": {"limit": 11.5, "per_turn": 1.0, "weight": 0.01},
    "help": {"cost": 0.25, "limit": 2},
}


class Echo(Environment):
    """Says what was done, in words or by calls; everything it was told is its state."""

    spec = EnvSpec(
        id="echo",
        action_format="tools",
        max_turns=1000,
        tools=[ToolSpec(name="say", description="Say it.", parameters={"type": "object", "properties": {}})],
        splits=[SplitSpec(name="train", size=10)],
    )
    tasks: ClassVar[FunctionTaskSet] = FunctionTaskSet(spec, lambda split, index: "Speak.")

    async def reset(self, task, seed, options):
        self.heard: list[str] = []
        return Observation.say("Speak.", state_key="0", admissible_actions=["north", "south"])

    async def step(self, action):
        return self.answer(action)

    def answer(self, action):
        done = ["+".join([action.text, *(call.name for call in action.tool_calls)])]
        self.heard += done
        messages = [Message(role="tool", content=f"said {c.id}", tool_call_id=c.id) for c in action.tool_calls]
        return StepResult(
            observation=Observation(
                messages=messages or [Message(content=f"You did {done[0]}.")],
                state_key=str(len(self.heard)),
                admissible_actions=["north", "south"],
            ),
            reward=0.5,
        )

    async def finish(self, reason):
        result = await super().finish(reason)
        return result.model_copy(update={"reward": 10.0, "info": StepInfo(metrics={"heard": float(len(self.heard))})})

    def expert_action(self):
        return Action(text="north", tool_calls=[ToolCall(id="x", name="say", arguments={"loud": True})])


class Blocking(SyncEnvironment):
    """The same, the blocking way, with the default score."""

    spec = Echo.spec.model_copy(update={"id": "blocking"})
    tasks: ClassVar[FunctionTaskSet] = FunctionTaskSet(spec, lambda split, index: "Speak.")
    answer = Echo.answer

    def reset_sync(self, task, seed, options):
        self.heard: list[str] = []
        return Observation.say("Speak.", admissible_actions=["north", "south"])

    def step_sync(self, action):
        return self.answer(action)


class Mute(Echo):
    spec = Echo.spec.model_copy(update={"id": "mute"})
    tasks: ClassVar[FunctionTaskSet] = FunctionTaskSet(spec, lambda split, index: "Speak.")

    async def reset(self, task, seed, options):
        return Observation.say("Speak.")


def calls(*ids: str) -> Action:
    return Action(tool_calls=[ToolCall(id=name, name="say", arguments={}) for name in ids])


async def played(
    env_class: type[Environment], wrappers: dict[str, Any], actions: list[Action], seed: int = 0
) -> LiveEpisode:
    episode = await LiveEpisode.start(wrap(env_class), "train", 0, seed, {"wrappers": wrappers})
    for action in actions:
        if not episode.done:
            await episode.step(action)
    return episode


def words(*texts: str) -> list[Action]:
    return [Action(text=text) for text in texts]


# What holds for all of them.


@given(
    index=st.integers(0, 30),
    seed=st.integers(0, 1000),
    choices=st.lists(st.one_of(st.integers(0, 50), st.sampled_from(["hint", "nonsense", "expert"])), max_size=16),
    cut=st.integers(0, 16),
)
def test_replay_and_fork_are_the_live_episode_with_everything_on(
    index: int, seed: int, choices: list[int | str], cut: int
) -> None:
    async def run() -> None:
        options = {"wrappers": EVERYTHING, "max_turns": 15}
        live = await LiveEpisode.start(wrap(Household), "train", index, seed, options)
        branch, at = await live.fork(), 0
        for turn, choice in enumerate(choices):
            if live.done:
                break
            if turn == cut:
                branch, at = await live.fork(), turn  # by snapshot: it is now
                assert branch.env is not live.env
            await live.step(chosen(live, choice))
        actions = [record.action for record in live.records if record.action is not None]
        replayed = await LiveEpisode.replay(wrap(Household), "train", index, seed, options, actions)
        earlier = await live.fork(at)  # by replay, if it is not now
        for copy in (branch, earlier):
            for action in actions[at:]:
                await copy.step(action)
        assert live.log_hash == replayed.log_hash == branch.log_hash == earlier.log_hash

    asyncio.run(run())


def chosen(episode: LiveEpisode, choice: int | str) -> Action:
    if choice == "expert":
        return episode.env.expert_action() or Action(text="look")
    if isinstance(choice, str):
        return Action(text=choice)
    admissible = episode.observation.admissible_actions or ["look"]
    return Action(text=admissible[choice % len(admissible)])


async def test_without_the_option_it_is_what_it_was() -> None:
    plain = await LiveEpisode.start(Household, "train", 5)
    wrapped = await LiveEpisode.start(wrap(Household), "train", 5)
    assert wrapped.initial == plain.initial
    while not plain.done:
        action = plain.env.expert_action() or Action()
        assert wrapped.env.expert_action() == action
        assert await wrapped.step(action) == await plain.step(action)
    assert wrapped.task.id == "wrapped:household/train/5"
    assert wrapped.task.instruction == plain.task.instruction
    assert wrap(Household).tasks.reference(wrapped.task) == Household.tasks.reference(plain.task)


async def test_other_options_reach_the_environment() -> None:
    episode = await LiveEpisode.start(wrap(Household), "train", 5, 0, {"show_admissible": True, "max_turns": 2})
    assert "Admissible actions:" in episode.initial.text
    assert episode.max_turns == 2


async def test_other_seeds_and_other_tasks_disturb_otherwise() -> None:
    async def disturbed(index: int, seed: int) -> list[bool]:
        options = {"wrappers": {"failing_actions": {"probability": 0.5}}}
        episode = await LiveEpisode.start(wrap(Echo), "train", index, seed, options)
        return ["failed" in (await episode.step(Action(text="go"))).observation.text for _ in range(40)]

    first = await disturbed(0, 0)
    assert first == await disturbed(0, 0)
    assert first != await disturbed(0, 1)
    assert first != await disturbed(1, 0)
    assert 10 <= sum(first) <= 30


@pytest.mark.parametrize("name", ["household", "examples.guess:Guess"])
def test_wrapped_environments_pass_the_checks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(__file__.rpartition("/tests/")[0])
    monkeypatch.syspath_prepend(".")
    wrapped = registry.load(f"wrapped:{name}")
    assert wrapped is registry.load(f"wrapped:{name}")
    report = check_env(wrapped, episodes=1)
    assert report.ok, report
    assert {one.check: one.status for one in report.findings}["fresh-process"] == "ok"


def test_classes_wrapped_in_code_are_found_by_other_processes_too() -> None:
    report = check_env(wrap(Blocking), episodes=1)
    assert report.ok, report
    assert {one.check: one.status for one in report.findings}["fresh-process"] == "ok"
    assert wrap(Blocking) is wrap(Blocking)
    assert issubclass(wrap(Blocking), SyncEnvironment)
    assert not issubclass(wrap(Echo), SyncEnvironment)


def test_what_does_not_fit_is_refused() -> None:
    wrapped = wrap(Household)
    for options, told in [
        ({"stickiness": {}}, "stickiness"),
        ({"sticky_actions": {"probability": 2}}, "sticky_actions/probability"),
        ({"turn_budget": {}}, "turns"),
        ({"drift": {}}, "drift"),
    ]:
        with pytest.raises(InvalidOptions, match=told):
            check_options(wrapped, {"wrappers": options})
    check_options(wrapped, {"wrappers": EVERYTHING})
    check_options(wrapped, {"wrappers": {name: {} for name in KINDS if "budget" not in name}})
    with pytest.raises(InvalidOptions, match="wrappers"):
        check_options(Household, {"wrappers": {}})
    with pytest.raises(UnknownEnvironment, match="has an option 'wrappers' already"):
        registry.load("wrapped:wrapped:household")


async def test_choosing_needs_something_to_choose_from() -> None:
    with pytest.raises(EnvironmentFault, match="wrappers/interference chooses among the admissible actions"):
        await played(Mute, {"interference": {}}, [])


# What each of them does.


async def test_a_failing_action_is_not_taken_and_the_policy_is_told() -> None:
    episode = await played(Echo, {"failing_actions": {"probability": 1}}, [Action(text="go"), calls("a", "b")])
    assert episode.env._inner.heard == []  # type: ignore[attr-defined]
    first, second = (record.result for record in episode.records)
    assert first.observation.text == "The action failed; nothing happened."
    assert first.observation.state_key == "0"
    assert first.observation.admissible_actions == ["north", "south"]
    assert (first.reward, first.info.action_valid, first.info.action_effective) == (0.0, True, False)
    assert [(m.role, m.tool_call_id) for m in second.observation.messages] == [("tool", "a"), ("tool", "b")]
    assert second.info.counters == {"disturbances": 2}


async def test_sticky_actions_repeat_the_last_one_taken() -> None:
    episode = await played(Echo, {"sticky_actions": {"probability": 1}}, words("a", "b", "c"))
    assert episode.env._inner.heard == ["a", "a", "a"]  # type: ignore[attr-defined]
    assert episode.records[-1].result.info.counters == {"disturbances": 2}
    assert episode.observation.text == "You did a."


async def test_every_call_is_answered_also_when_another_action_was_taken() -> None:
    """Two calls stick while one, three and none are made."""
    episode = await played(
        Echo, {"sticky_actions": {"probability": 1}}, [calls("a", "b"), calls("c"), calls("d", "e", "f"), *words("g")]
    )
    seen = [[(m.role, m.content, m.tool_call_id) for m in r.result.observation.messages] for r in episode.records]
    assert seen[1:] == [
        [("tool", "said a\nsaid b", "c")],
        [("tool", "said a", "d"), ("tool", "said b", "e"), ("tool", "No result.", "f")],
        [("user", "said a", None), ("user", "said b", None)],
    ]


async def test_random_actions_are_admissible_ones() -> None:
    episode = await played(Echo, {"random_actions": {"probability": 1}}, words(*["jump"] * 30))
    heard = episode.env._inner.heard  # type: ignore[attr-defined]
    assert set(heard) == {"north", "south"}


async def test_interference_is_not_seen_but_acts() -> None:
    episode = await played(Echo, {"interference": {"probability": 1}}, words("jump"))
    jumped, unseen = episode.env._inner.heard  # type: ignore[attr-defined]
    assert jumped == "jump"
    assert unseen in {"north", "south"}
    result = episode.records[0].result
    assert result.observation.text == "You did jump."
    assert result.observation.state_key == "2"
    assert result.reward == 1.0


def test_drift_has_them_come_and_go() -> None:
    assert strength(None, 7) == 1.0
    assert [strength(Drift(turns=2, mode="sudden"), turn) for turn in range(6)] == [0, 0, 1, 1, 1, 1]
    assert [strength(Drift(turns=2, mode="cyclic"), turn) for turn in range(8)] == [0, 0, 1, 1, 0, 0, 1, 1]
    assert [strength(Drift(turns=4, mode="gradual"), turn) for turn in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]


async def test_drift_in_an_episode() -> None:
    wrappers = {"failing_actions": {"probability": 1}, "drift": {"turns": 2, "mode": "cyclic"}}
    episode = await played(Echo, wrappers, words(*"abcdef"))
    assert episode.env._inner.heard == ["a", "b", "e", "f"]  # type: ignore[attr-defined]


def test_garbled_words_keep_their_shape() -> None:
    text = "Take mug 1,\n  from -- Desk 22."
    assert garbled(text, 0.0, Dice("x")) == text
    for number in range(20):
        wrong = garbled(text, 1.0, Dice(number))
        assert len(wrong) == len(text)
        differing = [(a, b) for a, b in zip(text, wrong, strict=True) if a != b]
        assert len(differing) == 6  # every word but "--"
        assert all((a.isdigit(), a.islower()) == (b.isdigit(), b.islower()) for a, b in differing)
    assert concealed(text, 1.0, Dice("x")) == "… … …\n  … … … …"


async def test_noise_spares_the_prompt_and_blurs_what_follows() -> None:
    noisy = await played(Echo, {"noisy_observations": {"probability": 1}}, words("jump"))
    assert noisy.initial.text == "Speak."
    assert noisy.observation.text != "You did jump."
    assert len(noisy.observation.text) == len("You did jump.")
    assert noisy.observation.admissible_actions == ["north", "south"]
    missing = await played(Echo, {"missing_observations": {"probability": 1}}, [calls("a", "b")])
    assert [m.content for m in missing.observation.messages] == ["You cannot make out anything."] * 2
    assert [m.tool_call_id for m in missing.observation.messages] == ["a", "b"]


async def test_a_turn_budget_scores_what_there_is() -> None:
    episode = await played(Echo, {"turn_budget": {"turns": 2}}, words("a", "b", "c"))
    assert "[turns left: 2]" in episode.initial.text
    assert "[turns left: 1]" in episode.records[0].result.observation.text
    last = episode.records[-1].result
    assert episode.turn == 2
    assert (last.reward, last.truncated, last.info.end, last.info.metrics) == (10.5, True, "max_turns", {"heard": 2.0})
    assert last.observation.text == "You did b."


async def test_a_cost_budget_adds_up_prices() -> None:
    wrappers = {"cost_budget": {"limit": 6, "per_turn": 0.5, "per_tool_call": 1, "tools": {"ask": 3}, "weight": 0.1}}
    ask = Action(tool_calls=[ToolCall(id="q", name="ask", arguments={})])
    episode = await played(Echo, wrappers, [Action(text="a"), calls("x", "y"), ask, Action(text="late")])
    assert "Your budget is 6: a turn costs 0.5, a tool call costs 1, ask costs 3." in episode.initial.text
    assert "[spent: 0.5 of 6]" in episode.records[0].result.observation.text
    spent = [record.result.info.metrics["spent"] for record in episode.records]
    assert spent == [0.5, 3.0, 6.5]
    rewards = [record.result.reward for record in episode.records]
    assert rewards == pytest.approx([0.5 - 0.05, 0.5 - 0.25, 0.5 - 0.35 + 10])
    last = episode.records[-1].result
    assert (last.truncated, last.info.end, last.info.metrics["heard"]) == (True, "finished:cost_budget", 3.0)


async def test_calls_in_tags_cost_what_the_environment_counts() -> None:
    class Tagged(Echo):
        async def step(self, action: Action) -> StepResult:
            result = await super().step(action)
            counted = result.info.model_copy(update={"counters": {"tool_calls": action.text.count("<q>")}})
            return result.model_copy(update={"info": counted})

    wrappers = {"cost_budget": {"limit": 5, "per_turn": 0.5, "per_tool_call": 2, "tools": {"q": 9}}}
    episode = await played(Tagged, wrappers, words("<q>", "no call", "<q> <q>", "late"))
    assert [record.result.info.metrics["spent"] for record in episode.records] == [2.5, 3.0, 7.5]
    assert episode.records[-1].result.info.end == "finished:cost_budget"


async def test_a_hidden_budget_says_nothing() -> None:
    wrappers = {"cost_budget": {"limit": 6, "show": False}, "turn_budget": {"turns": 3, "show": False}}
    episode = await played(Echo, wrappers, words("a"))
    assert episode.initial.text == "Speak."
    assert episode.observation.text == "You did a."


async def test_hints_are_the_experts_and_cost() -> None:
    spent = {"help": {"cost": 0.25, "limit": 1}}
    ask = Action(tool_calls=[ToolCall(id="h", name="hint", arguments={})])
    episode = await played(Echo, spent, [Action(text="<think>stuck</think>\nHint"), ask, Action(text="hint hint")])
    assert 'The action "hint"' in episode.initial.text
    assert episode.initial.admissible_actions == ["north", "south", "hint"]
    first, second, third = (record.result for record in episode.records)
    assert first.observation.text == 'An expert would do this:\nnorth\nsay {"loud": true}'
    assert (first.reward, first.info.counters, first.observation.state_key) == (-0.25, {"hints": 1}, "0")
    assert second.observation.messages[0].tool_call_id == "h"
    assert second.observation.text == "There are no hints left."
    assert (second.reward, second.info.counters) == (0.0, {"hints": 1})
    assert third.observation.text == "You did hint hint."


async def test_without_an_expert_a_hint_is_free() -> None:
    episode = await played(Blocking, {"help": {}}, words("hint"))
    assert episode.records[0].result.reward == 0.0
    assert "no expert" in episode.observation.text


async def test_blocking_environments_are_driven_the_same_way() -> None:
    wrappers = {"turn_budget": {"turns": 2}, "interference": {"probability": 1}}
    episode = await played(Blocking, wrappers, words("a", "b"))
    assert len(episode.env._inner.heard) == 4  # type: ignore[attr-defined]
    assert episode.records[-1].result.info.end == "max_turns"
    ended = await played(Blocking, {"help": {}}, [])
    assert (await ended.finish("enough")).info.end == "finished:enough"
