"""The conformance checker names the right fault, and only that one, of environments that are broken on purpose."""

import asyncio
import json
import pickle
import random
import re
import time
from datetime import datetime
from typing import ClassVar

import pytest

from turnwise_envs import (
    Environment,
    EnvSpec,
    FunctionTaskSet,
    InvalidOptions,
    Message,
    Observation,
    Reference,
    SplitSpec,
    StepInfo,
    StepResult,
    SyncEnvironment,
    Task,
    TaskSet,
    ToolSpec,
)
from turnwise_envs.check import CHECKS, check_env, cost, trace

PLACES = ("attic", "barn", "cellar", "dock", "elm", "farm")


def spec_of(name: str, **fields: object) -> EnvSpec:
    return EnvSpec(id=name, max_turns=6, splits=[SplitSpec(name="train", size=50), SplitSpec(name="test")], **fields)


class Walk(Environment):
    """A correct environment: say a place, hear a number that is drawn from the episode's own generator."""

    spec = spec_of("walk", snapshot=True)
    tasks: ClassVar[TaskSet] = FunctionTaskSet(
        spec,
        lambda split, index: f"Visit place {index}.",
        lambda task: Reference(answers=["the well"], data={"depth": 3}),
    )

    async def reset(self, task, seed, options):
        self.seen: list[str] = []
        self.rng = random.Random(f"{task.id}/{seed}")
        self.gold = self.tasks.reference(task).answers[0]
        return self.look(task.instruction)

    async def step(self, action):
        if action.text not in PLACES:
            return StepResult(observation=self.look("Where?"), info=StepInfo(action_valid=False))
        self.seen.append(action.text)
        solved = len(self.seen) == 5
        return StepResult(
            observation=self.look(f"You hear {self.rng.randrange(1000)}."),
            reward=float(solved),
            terminated=solved,
            info=StepInfo(end="solved" if solved else None),
        )

    def look(self, text):
        return Observation.say(f"{text} Visited: {', '.join(self.seen)}", admissible_actions=list(PLACES))

    def snapshot(self):
        return json.dumps([self.seen, self.gold, self.rng.getstate()]).encode()

    def restore(self, snapshot):
        self.seen, self.gold, (version, state, gauss) = json.loads(snapshot)
        self.rng = random.Random()
        self.rng.setstate((version, tuple(state), gauss))


class HashOrder(Walk):
    def look(self, text):
        return Observation.say(f"{text} Exits: {', '.join(set(PLACES))}", admissible_actions=list(PLACES))


class GlobalRng(Walk):
    async def step(self, action):
        self.rng = random
        return await super().step(action)


class Clock(Walk):
    def look(self, text):
        return Observation.say(f"{text} It is {time.perf_counter_ns()}.", admissible_actions=list(PLACES))


class CoarseClock(Walk):
    """Two runs agree while the hour lasts."""

    def look(self, text):
        return Observation.say(f"{text} It is {datetime.now().hour} o'clock.", admissible_actions=list(PLACES))


class CoarseTime(Walk):
    def look(self, text):
        return Observation.say(f"{text} Day {int(time.time() // 86_400)}.", admissible_actions=list(PLACES))


class ObjectAddress(Walk):
    """The error message of a policy's mistake shows an address."""

    kept: ClassVar[list[object]] = []  # so that no address comes twice, and two episodes always differ

    async def step(self, action):
        result = await super().step(action)
        if result.info.action_valid:
            return result
        self.kept.append(object())
        error = f"no such place in {self.kept[-1]}"
        return result.model_copy(update={"info": StepInfo(action_valid=False, error=error)})


class SharedList(Walk):
    everything: ClassVar[list[str]] = []

    async def step(self, action):
        self.everything.append(action.text[:10])
        return await super().step(action)

    def look(self, text):
        return Observation.say(f"{text} So far: {len(self.everything)}", admissible_actions=list(PLACES))


class SharedRng(Walk):
    """Reset starts the generator anew, so that one episode after the other looks right."""

    shared: ClassVar[random.Random] = random.Random()

    async def step(self, action):
        self.rng = self.shared
        return await super().step(action)

    async def reset(self, task, seed, options):
        self.shared.seed(f"{task.id}/{seed}")
        return await super().reset(task, seed, options)


class SeededWorld(Walk):
    async def reset(self, task, seed, options):
        first = await super().reset(task, seed, options)
        return Observation.say(f"{first.text} Seed {seed}", admissible_actions=list(PLACES))


class ForgetfulSnapshot(Walk):
    def snapshot(self):
        return json.dumps([[], self.gold, self.rng.getstate()]).encode()


class PickledSnapshot(Walk):
    def snapshot(self):
        return pickle.dumps([self.seen, self.gold, self.rng.getstate()])

    def restore(self, snapshot):
        self.seen, self.gold, state = pickle.loads(snapshot)
        self.rng = random.Random()
        self.rng.setstate(state)


class SnapshotByReference(Walk):
    """The bytes only name a state that stays in this process's memory."""

    kept: ClassVar[list[bytes]] = []

    def snapshot(self):
        self.kept.append(super().snapshot())
        return str(len(self.kept) - 1).encode()

    def restore(self, snapshot):
        super().restore(self.kept[int(snapshot)])


class SnapshotDisturbs(Walk):
    def snapshot(self):
        data = super().snapshot()
        self.rng.random()
        return data


class ForgetfulRestore(Walk):
    """What is lost never shows in an observation."""

    async def reset(self, task, seed, options):
        self.mood = 0
        return await super().reset(task, seed, options)

    async def step(self, action):
        self.mood += 1
        return await super().step(action)

    def snapshot(self):
        return json.dumps([*json.loads(super().snapshot()), self.mood]).encode()

    def restore(self, snapshot):
        *rest, _ = json.loads(snapshot)
        super().restore(json.dumps(rest).encode())
        self.mood = 0


class BoundedSeed(Walk):
    async def reset(self, task, seed, options):
        if not 0 <= seed < 2**32:
            raise ValueError("Seed must be between 0 and 2**32 - 1")
        return await super().reset(task, seed, options)


class TupleTasks(FunctionTaskSet):
    def build(self, split: str, index: int) -> Task:
        return super().build(split, index).model_copy(update={"metadata": {"size": (3, 4)}})


class TupleMetadata(Walk):
    tasks = TupleTasks(Walk.spec, lambda split, index: "Go.", lambda task: Reference(answers=["the well"]))


class ObjectInReference(Walk):
    tasks = FunctionTaskSet(
        Walk.spec, lambda split, index: "Go.", lambda task: Reference(answers=["x"], data={"at": datetime.min})
    )


class Chatty(Walk):
    def look(self, text):
        return super().look(text + "!" * 1_000_001)


class HeavySnapshot(Walk):
    def snapshot(self):
        return json.dumps([*json.loads(super().snapshot()), "x" * 5_000_000]).encode()

    def restore(self, snapshot):
        super().restore(json.dumps(json.loads(snapshot)[:3]).encode())


class NanReward(Walk):
    async def step(self, action):
        result = await super().step(action)
        return result.model_copy(update={"reward": float("inf") - float("inf")})


class NanMetric(Walk):
    async def step(self, action):
        result = await super().step(action)
        return StepResult(observation=result.observation, info=StepInfo(metrics={"em": float("nan")}))


class Leaky(Walk):
    def look(self, text):
        hint = f" (not {self.gold})" if len(self.seen) == 2 else ""
        return Observation.say(f"{text}{hint}", admissible_actions=list(PLACES))


class LeakyFinish(Walk):
    async def finish(self, reason):
        return StepResult(observation=Observation.say(f"It was {self.gold}."), truncated=True)


class RaisesOnJunk(Walk):
    async def step(self, action):
        int(action.text) if action.text.isdigit() else None  # "²" is a digit and no integer
        return await super().step(action)


class Blocks(Walk):
    async def step(self, action):
        if len(self.seen) == 1:
            time.sleep(0.012)  # noqa: ASYNC251
        return await super().step(action)


class BlocksInReset(Walk):
    async def reset(self, task, seed, options):
        await asyncio.sleep(0)
        time.sleep(0.012)  # noqa: ASYNC251
        return await super().reset(task, seed, options)


class LooseOptions(Walk):
    spec = spec_of("walk", snapshot=True, options_schema={"type": "object"})


class ReturnsNone(Walk):
    async def step(self, action):
        if self.seen:
            return None
        return await super().step(action)


class ResetReturnsText(Walk):
    async def reset(self, task, seed, options):
        return task.instruction


class FinishRaises(Walk):
    async def finish(self, reason):
        return StepResult(observation=Observation.say("over"), reward=1 / len(self.seen), truncated=True)


class UnknownEnd(Walk):
    async def step(self, action):
        result = await super().step(action)
        return result.model_copy(update={"info": StepInfo(end="won")}) if result.terminated else result


class EndBeforeEnd(Walk):
    async def step(self, action):
        result = await super().step(action)
        return result if result.terminated else result.model_copy(update={"info": StepInfo(end="failed")})


class NoSuchSnapshots(Environment):
    spec = spec_of("none", snapshot=True)
    tasks = FunctionTaskSet(spec, lambda split, index: "Go.")
    reset, step = Walk.reset, Walk.step


class ForeignTasks(Walk):
    spec = spec_of("mine")


class GenerousTasks(FunctionTaskSet):
    def get(self, split: str, index: int) -> Task:
        return self.build(split, abs(index))


class AnyTask(Walk):
    tasks = GenerousTasks(Walk.spec, lambda split, index: "Go.")


class Tools(Environment):
    """A correct tool environment."""

    spec = spec_of(
        "tools",
        action_format="tools",
        tools=[
            ToolSpec(
                name="add",
                description="Add two numbers.",
                parameters={
                    "type": "object",
                    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                    "required": ["a", "b"],
                },
            )
        ],
    )
    tasks = FunctionTaskSet(spec, lambda split, index: f"Add something to {index}.")

    async def reset(self, task, seed, options):
        return Observation.say(task.instruction)

    def answer(self, call):
        try:
            return str(call.arguments["a"] + call.arguments["b"]) if call.name == "add" else "no such tool"
        except (TypeError, KeyError):
            return "add needs two integers, a and b"

    async def step(self, action):
        calls = self.calls(action)
        if not calls:
            return StepResult(observation=Observation.say("Call a tool."), info=StepInfo(action_valid=False))
        answers = [Message(role="tool", content=self.answer(call)[:100], tool_call_id=call.id) for call in calls]
        return StepResult(observation=Observation(messages=answers))

    def calls(self, action):
        return action.tool_calls


class SilentTools(Tools):
    def calls(self, action):
        return [call for call in action.tool_calls if call.name == "add"]


def with_tool(**fields: object) -> EnvSpec:
    tool = Tools.spec.tools[0].model_copy(update=fields)
    return Tools.spec.model_copy(update={"tools": [tool]})


class UnheardTools(Tools):
    spec = Tools.spec.model_copy(update={"action_format": "text"})


class SpacedTool(Tools):
    spec = with_tool(name="add numbers")


class SilentTool(Tools):
    spec = with_tool(description=" ")


class PositionalTool(Tools):
    spec = with_tool(parameters={"type": "array", "items": {"type": "integer"}})


class ForgottenProperty(Tools):
    spec = with_tool(parameters={"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a", "b"]})


class ForeignSchema(Tools):
    spec = with_tool(parameters={"type": "object", "properties": {"a": {"$ref": "https://example.org/number.json"}}})


class DanglingSchema(Tools):
    spec = with_tool(parameters={"type": "object", "properties": {"a": {"$ref": "#/$defs/number"}}, "required": ["a"]})


class TrustingTools(Tools):
    def answer(self, call):
        return str(call.arguments.get("a"))


class Slow(SyncEnvironment):
    spec = spec_of("slow")
    tasks = FunctionTaskSet(spec, lambda split, index: "Wait.")

    def reset_sync(self, task, seed, options):
        time.sleep(0.006)
        return Observation.say(task.instruction)

    def step_sync(self, action):
        return StepResult(observation=Observation.say("Still."))


class LiveWeb(Clock):
    spec = spec_of("walk", deterministic=False)


FAULTS = [
    (HashOrder, "fresh-process", "sort sets"),
    (GlobalRng, "determinism", "random.Random made in `reset`"),
    (Clock, "determinism", "read no clock"),
    (CoarseClock, "fresh-process", "time zone"),
    (CoarseTime, "fresh-process", "clock"),
    (ObjectAddress, "determinism", "info.error"),
    (SharedList, "isolation", "not in the class"),
    (SharedRng, "isolation", "stepping beside it"),
    (SeededWorld, "seed", "seeds 0 and 1"),
    (ForgetfulSnapshot, "snapshot", "add the field that it forgets"),
    (PickledSnapshot, "snapshot", "unpickling runs code"),
    (SnapshotByReference, "snapshot", "a fresh process"),
    (SnapshotDisturbs, "snapshot", "must not disturb"),
    (ForgetfulRestore, "snapshot", "read in `restore` all"),
    (BoundedSeed, "seeds", "with seed -1"),
    (TupleMetadata, "serialisable", "metadata.size was (3, 4)"),
    (ObjectInReference, "serialisable", "the reference of walk/train/0"),
    (Chatty, "cost", "an observation must stay below"),
    (HeavySnapshot, "cost", "a snapshot must stay below"),
    (UnheardTools, "tools", "action_format='text'"),
    (SpacedTool, "tools", "no function name"),
    (SilentTool, "tools", "no description"),
    (PositionalTool, "tools", "arguments have names"),
    (ForgottenProperty, "tools", "requires b"),
    (ForeignSchema, "tools", "which no parser fetches"),
    (DanglingSchema, "tools", "a schema that cannot be used"),
    (NanReward, "reward", "it was nan"),
    (NanMetric, "reward", "metric must be a finite number"),
    (Leaky, "canary", "in turn 1"),
    (LeakyFinish, "canary", "in turn"),
    (RaisesOnJunk, "junk", "'²'"),
    (Blocks, "blocking", "`step` at turn"),
    (BlocksInReset, "blocking", "`reset`"),
    (LooseOptions, "options", "additionalProperties"),
    (ReturnsNone, "step", "returned NoneType, not a StepResult"),
    (ResetReturnsText, "reset", "reset returned str, not an Observation"),
    (FinishRaises, "finish", "ZeroDivisionError"),
    (UnknownEnd, "step", "'won'"),
    (EndBeforeEnd, "step", "the episode goes on"),
    (NoSuchSnapshots, "spec", "no snapshot and no restore"),
    (ForeignTasks, "tasks", "carry its own env"),
    (AnyTask, "tasks", "must raise UnknownTask"),
    (SilentTools, "tool-messages", "c0_0"),
    (TrustingTools, "junk", "AttributeError"),
]


#: The eight that a newcomer meets; the others are as quick each, but many.
FAST = {
    ForgetfulRestore,
    BoundedSeed,
    TupleMetadata,
    ForgottenProperty,
    HashOrder,
    Clock,
    SharedList,
    ForgetfulSnapshot,
    NanReward,
    Leaky,
    RaisesOnJunk,
    Blocks,
}
CASES = [pytest.param(*fault, marks=[] if fault[0] in FAST else [pytest.mark.slow]) for fault in FAULTS]


@pytest.mark.parametrize(("env_class", "check", "words"), CASES, ids=lambda value: getattr(value, "__name__", None))
def test_names_the_fault(env_class: type[Environment], check: str, words: str) -> None:
    if env_class in (CoarseClock, CoarseTime) and (left := 3600 - time.time() % 3600) < 60:
        time.sleep(left)  # two runs shall agree, as they nearly always do
    report = check_env(env_class, episodes=1)
    assert not report.ok
    assert [finding.check for finding in report.failures] == [check], str(report)
    assert words in report.failures[0].message
    assert report.failures[0].message.endswith("."), report.failures[0].message
    assert "\n" not in report.failures[0].message


@pytest.mark.parametrize("env_class", [Walk, Tools, Slow])
def test_correct_environments_pass(env_class: type[Environment]) -> None:
    report = check_env(env_class, episodes=2)
    assert report.ok, str(report)
    assert [finding.check for finding in report.findings] == [check.name for check in CHECKS]


def test_skips_determinism_when_the_spec_does_not_promise_it() -> None:
    report = check_env(LiveWeb, episodes=1)
    assert report.ok, str(report)
    skipped = {finding.check for finding in report.findings if finding.status == "skipped"}
    assert {"determinism", "fresh-process", "isolation", "seed", "fork"} <= skipped
    said = {finding.check: finding.message for finding in report.findings}
    assert all("not deterministic" in said[check] for check in ("determinism", "seed"))
    assert "promise it" not in said["determinism"]
    assert "a fork is refused" in said["fork"]


def test_says_when_determinism_could_be_promised() -> None:
    class Modest(Walk):
        spec = spec_of("walk", deterministic=False, snapshot=True)

    report = check_env(Modest, episodes=1)
    assert report.ok, str(report)
    said = {finding.check: finding.message for finding in report.findings}
    assert "2 of 2 came out the same again" in said["determinism"]
    assert "forks restore snapshots" in said["fork"]
    assert "comes back as it was" in said["snapshot"]


def test_says_where_the_canary_had_no_say() -> None:
    """An environment that knows the answers from elsewhere passes, and the report does not claim more than was seen."""

    class Elsewhere(Walk):
        async def reset(self, task, seed, options):
            self.gold, self.seen, self.rng = PLACES[task.index % len(PLACES)], ["hall"], random.Random(seed)
            return self.look(task.instruction)

    for env_class, words in ((Walk, "the Reference stays hidden"), (Elsewhere, "never asks for its Reference")):
        findings = check_env(env_class, episodes=1).findings
        (told,) = [finding for finding in findings if finding.check == "canary"]
        assert told.status == "ok"
        assert words in told.message


def test_checks_with_options() -> None:
    class Moody(Walk):
        """Sound, but in the mood that an option asks for."""

        spec = spec_of(
            "walk",
            snapshot=True,
            options_schema={
                "type": "object",
                "properties": {"mood": {"enum": ["calm", "wild"]}},
                "additionalProperties": False,
            },
        )

        async def reset(self, task, seed, options):
            first = await super().reset(task, seed, options)
            self.rng = random if options.get("mood") == "wild" else self.rng
            return first

    assert check_env(Moody, episodes=1, options={"mood": "calm"}).ok
    report = check_env(Moody, episodes=1, options={"mood": "wild"})
    assert [finding.check for finding in report.failures] == ["determinism"]
    with pytest.raises(InvalidOptions):
        check_env(Moody, options={"mood": "grim"})


@pytest.mark.parametrize(("limit", "words"), [("MAX_RESET_SECONDS", "a reset"), ("MAX_STEP_SECONDS", "a step")])
def test_what_takes_too_long_costs_too_much(limit: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, limit, 0.0)
    report = check_env(Walk, episodes=1)
    assert [finding.check for finding in report.failures] == ["cost"]
    assert report.failures[0].message.startswith(f"{words} must stay below 0 s")


def test_tells_what_an_episode_costs() -> None:
    (told,) = [f.message for f in check_env(Walk, episodes=1).findings if f.check == "cost"]
    assert re.fullmatch(
        r"median reset .+ [mµ]?s, step .+; observations up to \d+ characters, snapshots up to \d+ bytes", told
    )


def test_a_class_inside_a_function_is_checked_but_for_the_fresh_process() -> None:
    class Local(Walk):
        pass

    report = check_env(Local, episodes=1)
    assert report.ok, str(report)
    assert "inside a function" in next(f.message for f in report.findings if f.check == "fresh-process")


def test_a_step_that_hangs_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hangs(Walk):
        async def step(self, action):
            await asyncio.Event().wait()

    monkeypatch.setattr(trace, "PATIENCE_SECONDS", 2.0)
    report = check_env(Hangs, episodes=1)
    assert [finding.check for finding in report.failures] == ["step"]
    assert "did not return" in report.failures[0].message


def test_works_inside_a_running_loop() -> None:
    async def main() -> bool:
        return check_env(Slow, episodes=1).ok

    assert asyncio.run(main())
