"""Checks of form: the spec, the tasks, the types of what comes back, and that no action makes it raise."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
from pydantic import ValidationError

from turnwise_envs.canonical import canonical
from turnwise_envs.check.policy import MAX_RECORDED_TURNS, Player, junk_actions
from turnwise_envs.check.subject import Failure, Skip, Subject
from turnwise_envs.check.trace import close, record, shorten, start, take
from turnwise_envs.environment import Environment, TaskSet
from turnwise_envs.episode import LiveEpisode, check_options
from turnwise_envs.errors import EnvironmentFault, InvalidOptions, UnknownTask
from turnwise_envs.types import Action, EnvSpec, Reference, StepResult, Task

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
#: The ends of what travels as JSON, and where generators of 32 bits stop.
_SEEDS = (0, -1, 2**32, 2**53 - 1, 1 - 2**53)
_ENDS = ("solved", "failed", "max_turns")


async def spec(subject: Subject) -> None:
    found = getattr(subject.env_class, "spec", None)
    _require(isinstance(found, EnvSpec), f"has `spec` of type {type(found).__name__}", "set `spec = EnvSpec(id=...)`")
    assert isinstance(found, EnvSpec)
    _require(
        _ID.fullmatch(found.id),
        f"has the id {found.id!r}",
        "use letters, digits, dots, dashes, colons: it is part of a URL",
    )
    if ":" not in subject.name:
        _require(
            found.id == subject.name, f"is registered as {subject.name!r} but has the id {found.id!r}", "rename one"
        )
    splits = [split.name for split in found.splits]
    _require(splits and len(set(splits)) == len(splits), f"has the splits {splits}", "name at least one, each once")
    empty = [split.name for split in found.splits if split.size is not None and split.size < 1]
    _require(not empty, f"has no task in {', '.join(empty)}", "drop the split, or give its size (None is unbounded)")
    tools = [tool.name for tool in found.tools]
    _require(len(set(tools)) == len(tools), f"has two tools of one name in {tools}", "give each its own name")
    if found.action_format == "tools":
        _require(tools, "takes tool calls but names no tool", "list the tools in `spec.tools`")
    for what, schema in [("options_schema", found.options_schema), *((t.name, t.parameters) for t in found.tools)]:
        try:
            jsonschema.validators.validator_for(schema).check_schema(schema)
        except jsonschema.SchemaError as error:
            _require(False, f"has an invalid JSON Schema in {what} ({error.message})", "correct the schema")
    if found.snapshot:
        missing = [n for n in ("snapshot", "restore") if getattr(subject.env_class, n) is getattr(Environment, n)]
        _require(
            not missing, f"promises snapshots but has no {' and no '.join(missing)}", "write both, or drop the promise"
        )


async def tasks(subject: Subject) -> None:
    found = getattr(subject.env_class, "tasks", None)
    if not isinstance(found, TaskSet):
        raise Failure(
            f"`tasks` must be a TaskSet and is {type(found).__name__}; a FunctionTaskSet is the shortest one."
        )
    for split in subject.spec.splits:
        last = 10**6 if split.size is None else split.size - 1
        ids = set()
        for index in sorted({0, last // 2, last}):
            task = _task(found, subject.spec, split.name, index)
            ids.add(task.id)
            if _task(found, subject.spec, split.name, index) != task:
                raise Failure(
                    f"a task is fixed by its split and index, but {split.name}/{index} was built twice and differs; "
                    "derive everything in it from these two."
                )
            reference = found.reference(task)
            if not isinstance(reference, Reference):
                raise Failure(f"`tasks.reference` must return a Reference and returned {type(reference).__name__}.")
        if len(ids) < len({0, last // 2, last}):
            raise Failure(
                f"task ids must be unique, but two tasks of {split.name} share one; put the index into the id."
            )
        outside = [-1] if split.size is None else [-1, split.size]
        for split_name, index in [*((split.name, index) for index in outside), ("no such split", 0)]:
            try:
                found.get(split_name, index)
            except UnknownTask:
                continue
            raise Failure(
                f"a task that does not exist must raise UnknownTask, but {split_name}/{index} was given; "
                "leave `get` to TaskSet and override only `build`."
            )


def _task(found: TaskSet, of: EnvSpec, split: str, index: int) -> Task:
    try:
        task = found.get(split, index)
        canonical(task)
    except Exception as error:
        raise Failure(f"every index of a split must give a task, but {split}/{index} raised {_told(error)}.") from error
    if not isinstance(task, Task) or (task.env, task.split, task.index) != (of.id, split, index):
        raise Failure(
            f"a task must carry its own env, split and index, but {split}/{index} gave {shorten(repr(task))}."
        )
    return task


async def options(subject: Subject) -> None:
    try:
        check_options(subject.env_class, {})
    except InvalidOptions as error:
        raise Failure(f"an episode must start without options, but {error}; give every option a default.") from error
    try:
        check_options(subject.env_class, {"no-such-option": 1})
    except InvalidOptions:
        return
    raise Failure(
        "an unknown option must be refused, but {'no-such-option': 1} passed; "
        'put "additionalProperties": false into `spec.options_schema`.'
    )


async def reset(subject: Subject) -> None:
    for split, index, seed in subject.starts():
        where = f"{split}/{index} seed {seed}"
        try:
            episode = await start(subject.env_class, split, index, seed, subject.options)
        except EnvironmentFault as fault:
            raise Failure(f"`reset` must return an Observation, but at {where} the {fault}.") from fault
        messages = episode.initial.messages
        await close(episode)
        if not messages or any(message.role == "tool" for message in messages):
            raise Failure(
                f"the first observation is the complete prompt, but at {where} it has "
                f"{'a tool message' if messages else 'no message'}; start with the instruction as a user message."
            )


async def seeds(subject: Subject) -> None:
    split, index, _ = subject.starts()[0]
    for seed in _SEEDS:
        try:
            await close(await start(subject.env_class, split, index, seed, subject.options))
        except EnvironmentFault as fault:
            raise Failure(
                f"every integer is a seed, but with seed {seed} the {fault}; bring it into the range of your generator, "
                "with `seed % 2**32` for instance."
            ) from fault


async def finish(subject: Subject) -> None:
    split, index, seed = subject.starts()[0]
    for reason in ("max_turns", "context_overflow"):
        episode = await start(subject.env_class, split, index, seed, subject.options)
        try:
            await episode.finish(reason)
        except EnvironmentFault as fault:
            raise _failure(
                fault,
                f"`finish({reason!r})` must score the state as it is at any turn, but at turn 0 the {fault}",
                "finish",
            ) from fault
        finally:
            await close(episode)


async def step(subject: Subject) -> None:
    """Plays the episodes that the later checks replay."""
    starts = subject.starts()
    for number, (split, index, seed) in enumerate([*starts, starts[0]]):
        # The first one follows the expert to the end; the extra one stops early, to be scored half-way.
        rng, limit = subject.rng(f"episode {number}"), 2 if number == len(starts) else MAX_RECORDED_TURNS
        player = Player(rng, follow_expert=number == 0, limit=limit)
        kept: list[LiveEpisode] = []

        def choose(episode: LiveEpisode, player: Player = player, kept: list[LiveEpisode] = kept) -> Action | None:
            kept[:] = [episode]
            if episode.records:
                _check_result(episode)
            return player(episode)

        try:
            trace = await record(subject.env_class, split, index, seed, subject.options, choose)
        except EnvironmentFault as fault:
            contract, check = {
                "known": ("`step` must answer every action with a StepResult, but the", "step"),
                "guess": (f"no mistake of the policy may raise, but for {_described(player.action)} the", "junk"),
                "stop": ("`finish` must score the state as it is at any turn, but the", "finish"),
            }[player.last]
            raise _failure(fault, f"{contract} {fault}", check) from fault
        _check_result(kept[0])
        subject.traces.append(trace)


async def reward(subject: Subject) -> str:
    results = [StepResult.model_validate_json(link) for trace in subject.traces for link in trace.links[1:]]
    rewards = [result.reward for result in results]
    return f"rewards and metrics are finite numbers (seen: {min(rewards):g} to {max(rewards):g})"


async def turn_limit(subject: Subject) -> None:
    shortened = "max_turns" in subject.spec.options_schema.get("properties", {})
    limit = 2 if shortened else subject.spec.max_turns
    if limit > 200:
        raise Skip(f"the limit of {limit} turns is too far away to be reached, and there is no option `max_turns`.")
    split, index, seed = subject.starts()[0]
    episode = await start(
        subject.env_class, split, index, seed, {**subject.options, **({"max_turns": limit} if shortened else {})}
    )
    try:
        while not episode.done and episode.turn < limit:
            admissible = episode.observation.admissible_actions or ["wait"]
            await take(episode, Action(text=admissible[0]))
    except EnvironmentFault as fault:
        raise _failure(
            fault, f"the last of {limit} turns must be scored by `finish('max_turns')`, but the {fault}", None
        ) from fault
    finally:
        await close(episode)
    if not episode.done:
        raise Failure(f"the episode must end at turn {limit}, but it went on; leave `max_turns` to LiveEpisode.")


async def junk(subject: Subject) -> None:
    remaining = junk_actions(subject.spec)
    split, index, seed = subject.starts()[0]
    position = 0

    def choose(episode: LiveEpisode) -> Action | None:
        nonlocal position
        if position == len(remaining):
            return None
        position += 1
        return remaining[position - 1]

    while position < len(remaining):
        try:
            trace = await record(subject.env_class, split, index, seed, subject.options, choose)
        except EnvironmentFault as fault:
            raise _failure(
                fault,
                f"no mistake of the policy may raise, but for {_described(remaining[position - 1])} the {fault}",
                "junk",
            ) from fault
        subject.junk_traces.append(trace)


async def tool_messages(subject: Subject) -> None:
    if not subject.spec.tools:
        raise Skip("the environment has no tools.")
    for trace in [*subject.traces, *subject.junk_traces]:
        results = [StepResult.model_validate_json(link) for link in trace.links[1:]]
        for turn, (action, result) in enumerate(zip(trace.actions, results, strict=False)):
            called = [call.id for call in action.tool_calls]
            answered = [m.tool_call_id for m in result.observation.messages if m.role == "tool"]
            if called != answered and result.observation.context == "append":
                raise Failure(
                    f"each tool call gets one tool message, in order, but at {trace.where}, turn {turn}, "
                    f"the calls {_few(called)} got answers for {_few(answered)}; "
                    "answer also unknown tools and calls that could not be parsed."
                )


def _few(ids: list[Any]) -> str:
    return f"[{', '.join(map(str, ids[:4]))}{', …' if len(ids) > 4 else ''}]"


def _check_result(episode: LiveEpisode) -> None:
    last = episode.records[-1]
    end, where = last.result.info.end, f"{episode.task.id}, turn {episode.turn - 1}"
    if end is not None and not last.result.done:
        raise Failure(f"`info.end` is for the last turn only, but at {where} it is {end!r} and the episode goes on.")
    if end is not None and end not in _ENDS and not end.startswith("finished:"):
        raise Failure(f"`info.end` is one of {', '.join(_ENDS)}, but at {where} it is {end!r}.")


def _failure(fault: EnvironmentFault, message: str, check: str | None) -> Failure:
    """Faults have a kind of their own: a reward that is no number, or a final score that failed."""
    cause: BaseException | None = fault
    while cause is not None:
        if isinstance(cause, ValidationError):
            for error in cause.errors():
                if error["loc"][:1] == ("reward",) or "metrics" in error["loc"]:
                    return Failure(
                        f"a reward or metric must be a finite number, but the {fault.args[0].splitlines()[0]} "
                        f"(it was {error['input']!r}); guard the division or logarithm that made it.",
                        "reward",
                    )
        cause = cause.__cause__
    advice = {
        "junk": "answer it with an observation and action_valid=False",
        "finish": "return a StepResult also when nothing was done yet",
    }.get(check or "", "see the error above it with TURNWISE_TRACEBACK=1")
    return Failure(f"{message.splitlines()[0]}; {advice}.", check)


def _described(action: Action) -> str:
    if not action.tool_calls:
        return f"the text {shorten(action.text, 30)}"
    call = action.tool_calls[0]
    return f"the tool call {shorten(call.name, 30)} with {shorten(repr(call.arguments), 40)}"


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _require(condition: object, seen: str, advice: str) -> None:
    if not condition:
        raise Failure(f"the spec must describe the environment fully and truly, but it {seen}; {advice}.")
