"""LiveEpisode: turn limit, finish, fork and the faults of an environment."""

import json
import math

import pytest
from pydantic import ValidationError

from turnwise_envs import (
    Action,
    Environment,
    EnvironmentFault,
    EnvSpec,
    EpisodeDone,
    FunctionTaskSet,
    InvalidOptions,
    Message,
    Observation,
    SplitSpec,
    StepInfo,
    StepResult,
    UnknownTask,
)
from turnwise_envs.episode import LiveEpisode


class Count(Environment):
    """Counts turns; ``done`` ends it. The score at the end is the number of turns taken."""

    spec = EnvSpec(
        id="count",
        max_turns=3,
        splits=[SplitSpec(name="train", size=2), SplitSpec(name="all")],
        options_schema={
            "type": "object",
            "properties": {"max_turns": {"type": "integer", "minimum": 1}},
            "additionalProperties": False,
        },
    )
    tasks = FunctionTaskSet(spec, lambda split, index: f"Count from {index}.")
    closed = 0

    async def reset(self, task, seed, options):
        self.count, self.start = 0, task.index
        return Observation.say(task.instruction)

    async def step(self, action):
        if action.text == "raise":
            raise RuntimeError("boom")
        if action.text == "none":
            return None
        if action.text == "nan":
            return StepResult(observation=Observation.say(".")).model_copy(update={"reward": math.nan})
        self.count += 1
        valid = action.text != "junk"
        return StepResult(
            observation=Observation.say(str(self.start + self.count)),
            reward=0.25,
            terminated=action.text == "done",
            info=StepInfo(action_valid=valid, error=None if valid else "junk", counters={"steps": self.count}),
        )

    async def finish(self, reason):
        score = StepResult(observation=Observation.say(reason), reward=float(self.count), truncated=True)
        return score.model_copy(update={"info": StepInfo(metrics={"count": self.count})})

    async def close(self):
        type(self).closed += 1


class Saved(Count):
    spec = Count.spec.model_copy(update={"snapshot": True})
    resets = 0

    async def reset(self, task, seed, options):
        type(self).resets += 1
        return await super().reset(task, seed, options)

    def snapshot(self):
        return json.dumps([self.count, self.start]).encode()

    def restore(self, snapshot):
        self.count, self.start = json.loads(snapshot)


SAY = Action(text="go")


async def test_the_last_turn_shows_the_step_and_carries_the_final_score() -> None:
    episode = await LiveEpisode.start(Count, "train", 1)
    assert [(await episode.step(SAY)).reward for _ in range(2)] == [0.25, 0.25]
    last = await episode.step(Action(text="junk"))
    assert last.observation.text == "4"
    assert last.reward == 0.25 + 3.0
    assert (last.terminated, last.truncated) == (False, True)
    assert last.info.end == "max_turns"
    assert (last.info.action_valid, last.info.error) == (False, "junk")
    assert last.info.metrics == {"count": 3}
    assert episode.done
    assert episode.turn == 3


async def test_an_end_on_the_last_turn_is_not_scored_twice() -> None:
    episode = await LiveEpisode.start(Count, "train", 0, options={"max_turns": 1})
    assert episode.max_turns == 1
    last = await episode.step(Action(text="done"))
    assert (last.reward, last.terminated, last.truncated) == (0.25, True, False)


async def test_finish_scores_the_state_as_it_is() -> None:
    episode = await LiveEpisode.start(Count, "train", 0)
    await episode.step(SAY)
    before = episode.log_hash
    last = await episode.finish("context_overflow")
    assert (last.reward, last.truncated, last.info.end) == (1.0, True, "finished:context_overflow")
    assert episode.turn == 1
    assert episode.log_hash != before
    for again in (episode.finish("x"), episode.step(SAY)):
        with pytest.raises(EpisodeDone, match="count/train/0 ended at turn 1"):
            await again


@pytest.mark.parametrize(
    ("text", "words"),
    [("raise", "RuntimeError: boom"), ("none", "NoneType, not a StepResult"), ("nan", "finite number")],
)
async def test_a_fault_takes_no_turn(text: str, words: str) -> None:
    episode = await LiveEpisode.start(Count, "train", 0)
    await episode.step(SAY)
    before = episode.log_hash
    with pytest.raises(EnvironmentFault, match=f"(?s)step 1 of count/train/0 failed.*{words}"):
        await episode.step(Action(text=text))
    assert (episode.turn, episode.log_hash, episode.done) == (1, before, False)


async def test_a_reset_that_fails_is_closed() -> None:
    class Broken(Count):
        async def reset(self, task, seed, options):
            raise OSError("no disk")

    with pytest.raises(EnvironmentFault, match="reset of count/train/0 failed: OSError: no disk"):
        await LiveEpisode.start(Broken, "train", 0)
    assert Broken.closed == 1


@pytest.mark.parametrize("env_class", [Count, Saved])
@pytest.mark.parametrize("at_turn", [0, 1, 2, None])
async def test_a_fork_is_independent_and_equal(env_class: type[Environment], at_turn: int | None) -> None:
    parent = await LiveEpisode.start(env_class, "train", 1, options={"max_turns": 5})
    hashes = [parent.log_hash]
    for _ in range(2):
        await parent.step(SAY)
        hashes.append(parent.log_hash)
    child = await parent.fork(at_turn)
    turn = 2 if at_turn is None else at_turn
    assert (child.turn, child.log_hash, child.max_turns) == (turn, hashes[turn], 5)
    await child.step(Action(text="elsewhere"))
    await child.close()
    assert parent.log_hash == hashes[2]
    assert (await parent.step(SAY)).observation.text == "4"
    assert child.turn == turn + 1


async def test_a_fork_of_now_uses_the_snapshot_and_an_earlier_one_replays() -> None:
    parent = await LiveEpisode.start(Saved, "train", 0)
    await parent.step(SAY)
    resets = Saved.resets
    await parent.fork()
    assert Saved.resets == resets
    await parent.fork(0)
    assert Saved.resets == resets + 1


@pytest.mark.parametrize("env_class", [Count, Saved])
async def test_a_finished_parent_forks_to_its_end_or_to_an_earlier_turn(env_class: type[Environment]) -> None:
    parent = await LiveEpisode.start(env_class, "train", 0)
    await parent.step(SAY)
    await parent.finish("quit")
    end = await parent.fork()
    assert end.done
    assert end.log_hash == parent.log_hash
    earlier = await parent.fork(0)
    assert not earlier.done
    assert earlier.turn == 0


async def test_a_fork_that_cannot_be_trusted_is_a_fault() -> None:
    class Drift(Count):
        total = 0

        async def step(self, action):
            type(self).total += 1
            return StepResult(observation=Observation.say(str(self.total)))

    parent = await LiveEpisode.start(Drift, "train", 0)
    await parent.step(SAY)
    with pytest.raises(EnvironmentFault, match="not deterministic"):
        await parent.fork()


async def test_replay_reaches_the_same_hash_and_every_input_changes_it() -> None:
    actions = [SAY, Action(text="on")]
    first = await LiveEpisode.replay(Count, "train", 0, 0, {}, actions)
    again = await LiveEpisode.replay(Count, "train", 0, 0, {}, actions)
    assert first.log_hash == again.log_hash
    variants = [
        await LiveEpisode.replay(Count, "train", 1, 0, {}, actions),
        await LiveEpisode.replay(Count, "all", 0, 0, {}, actions),
        await LiveEpisode.replay(Count, "train", 0, 1, {}, actions),
        await LiveEpisode.replay(Count, "train", 0, 0, {"max_turns": 9}, actions),
        await LiveEpisode.replay(Count, "train", 0, 0, {}, [SAY, SAY]),
        await LiveEpisode.replay(Count, "train", 0, 0, {}, actions[:1]),
    ]
    assert len({first.log_hash, *(episode.log_hash for episode in variants)}) == 7


async def test_options_and_tasks_are_checked_before_anything_runs() -> None:
    with pytest.raises(InvalidOptions, match=r"options of 'count': .*'surprise' was unexpected"):
        await LiveEpisode.start(Count, "train", 0, options={"surprise": 1})
    with pytest.raises(InvalidOptions, match="max_turns: 0 is less than the minimum"):
        await LiveEpisode.start(Count, "train", 0, options={"max_turns": 0})
    with pytest.raises(UnknownTask, match="tasks 0 to 1, not 2"):
        await LiveEpisode.start(Count, "train", 2)
    with pytest.raises(UnknownTask, match="no split 'valid'; it has: train, all"):
        await LiveEpisode.start(Count, "valid", 0)
    assert (await LiveEpisode.start(Count, "all", 10**9)).task.index == 10**9


USUAL = StepResult(
    observation=Observation(
        messages=[Message(content="a"), Message(role="tool", content="b", tool_call_id="c")],
        state_key="k",
        admissible_actions=["x", "y"],
    ),
    reward=0.5,
    info=StepInfo(error="e", counters={"n": 2}, metrics={"m": 0.25}, end="solved"),
)


def with_info(**fields: object) -> StepResult:
    return USUAL.model_copy(update={"info": USUAL.info.model_copy(update=fields)})


def with_seen(**fields: object) -> StepResult:
    return USUAL.model_copy(update={"observation": USUAL.observation.model_copy(update=fields)})


@pytest.mark.parametrize(
    "result",
    [
        USUAL,
        StepResult(observation=Observation.say("x")),
        *(USUAL.model_copy(update={"reward": reward}) for reward in (1, True, "1.5", "x", math.inf, math.nan, None)),
        *(USUAL.model_copy(update={"terminated": done}) for done in (1, "yes", None, 7)),
        *(USUAL.model_copy(update={"truncated": done}) for done in (0, [])),
        *(with_info(action_valid=value) for value in (1, None)),
        *(with_info(action_effective=value) for value in ("false", 2)),
        *(with_info(error=value) for value in (1, b"bytes", None)),
        *(with_info(end=value) for value in (1, None)),
        *(with_info(counters=value) for value in ({"n": 2.0}, {"n": 2.5}, {1: 2}, {"n": True}, {}, [], None)),
        *(
            with_info(metrics=value)
            for value in ({"m": 2}, {"m": math.nan}, {"m": -math.inf}, {1: 0.5}, {"m": "x"}, {})
        ),
        *(
            with_seen(messages=value)
            for value in ([], None, ("x",), ["x"], [{"content": "x"}], (Message(content="x"),))
        ),
        *(with_seen(messages=[Message.model_construct(role=role, content="x")]) for role in ("oracle", 1, "system")),
        with_seen(messages=[Message.model_construct(content=1)]),
        with_seen(messages=[Message.model_construct(content="x", tool_call_id=1)]),
        *(with_seen(context=value) for value in ("replace", "forget", None)),
        *(with_seen(state_key=value) for value in (1, None)),
        *(with_seen(admissible_actions=value) for value in (["x", 1], ("x",), "x", [], None)),
    ],
)
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
async def test_a_result_is_what_validation_makes_of_it(result: StepResult) -> None:
    """Models are validated when they are built, but ``model_copy`` and ``model_construct`` let anything through."""

    class Returns(Count):
        async def step(self, action: Action) -> StepResult:
            return result

    try:
        expected = StepResult.model_validate(result.model_dump())
    except ValidationError:
        expected = None
    episode = await LiveEpisode.start(Returns, "train", 0)
    if expected is None:
        with pytest.raises(EnvironmentFault):
            await episode.step(Action())
        assert episode.turn == 0
    else:
        got = await episode.step(Action())
        assert got == expected
        assert got.model_dump_json() == expected.model_dump_json()  # 1 and 1.0 are equal, and not the same bytes
