"""Errands: tasks for tools that somebody else wrote, from a file of JSON lines, and how an episode of one is scored.

A line of ``tasks.jsonl`` is one task::

    {"instruction": "What is 17 + 25?", "answers": ["42", "forty-two"]}
    {"instruction": "Who wrote it?", "answers": ["Ada Lovelace"], "scorer": "f1", "split": "valid"}
    {"instruction": "Move a.txt into old/.", "calls": [{"name": "move_file", "arguments": {"source": "a.txt"}}]}

The policy calls tools and ends the episode with the tool ``answer``. ``answers`` are the gold answers, compared by
``scorer``: ``exact`` (the default) and ``f1`` with SQuAD's normalisation, ``contains`` if one of them occurs in the
answer. ``calls`` are calls that must have succeeded, each with at least these arguments; an errand without ``answers``
is judged by them alone. The reward is the score of the answer if all required calls were made, else 0.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from turnwise_envs.environment import Environment, TaskSet, cut_short
from turnwise_envs.errors import TurnwiseError
from turnwise_envs.scoring import exact_match, f1, mentions
from turnwise_envs.tools_api import ToolAnswer, Toolbox, ToolTurn
from turnwise_envs.types import (
    Action,
    EnvSpec,
    JsonObject,
    Observation,
    Reference,
    SplitSpec,
    StepResult,
    Task,
    ToolCall,
    ToolSpec,
)

ANSWER = "answer"
ANSWER_TOOL = ToolSpec(
    name=ANSWER,
    description="Give the final answer, or say that the task is done. This ends the episode.",
    parameters={
        "type": "object",
        "properties": {"answer": {"type": "string"}},
        "required": ["answer"],
        "additionalProperties": False,
    },
)
HOW_TO_END = f"Use the tools. When you are done, call the tool `{ANSWER}`."

#: The options of an environment of errands.
TURN_LIMIT: JsonObject = {
    "type": "object",
    "properties": {"max_turns": {"type": "integer", "minimum": 1, "maximum": 1000}},
    "additionalProperties": False,
}

Scorer = Literal["exact", "f1", "contains"]


class BadTasks(TurnwiseError):
    """A file of tasks that cannot be used; the text names the line."""


class RequiredCall(BaseModel):
    """A call that must have been made with at least these arguments, and have succeeded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    arguments: JsonObject = Field(default_factory=dict)

    def is_met_by(self, name: str, arguments: JsonObject) -> bool:
        given = all(key in arguments and arguments[key] == value for key, value in self.arguments.items())
        return name == self.name and given


class Errand(BaseModel):
    """One line of a file of tasks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    instruction: str = Field(min_length=1)
    answers: list[str] = Field(default_factory=list)
    scorer: Scorer = "exact"
    calls: list[RequiredCall] = Field(default_factory=list)
    split: str = Field(default="train", pattern=r"^[A-Za-z0-9._-]+$")
    difficulty: float = Field(default=0.0, ge=0.0, le=1.0)
    metadata: JsonObject = Field(default_factory=dict)

    @model_validator(mode="after")
    def _can_be_scored(self) -> Errand:
        if not self.answers and not self.calls:
            raise ValueError("needs answers, or calls that must be made: nothing could be scored")
        return self

    @property
    def reference(self) -> Reference:
        calls = [call.model_dump() for call in self.calls]
        return Reference(answers=self.answers, data={"scorer": self.scorer, "calls": calls})


def read_errands(path: Path) -> list[Errand]:
    """The tasks in a file of JSON lines; blank lines are passed over. Raises BadTasks with the line's number."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadTasks(f"tasks {path}: {getattr(error, 'strerror', None) or error}") from error
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise BadTasks(f"tasks {path}: the file has no task")
    return [_read_line(f"tasks {path}, line {number}", line) for number, line in lines]


def as_errands(given: Path | str | Sequence[JsonObject | Errand]) -> list[Errand]:
    """A file of tasks, or what its lines would say. Raises BadTasks."""
    if isinstance(given, str | Path):
        return read_errands(Path(given))
    if not given:
        raise BadTasks("there is no task")
    return [
        one if isinstance(one, Errand) else _read_line(f"task {number}", json.dumps(one))
        for number, one in enumerate(given)
    ]


def _read_line(where: str, line: str) -> Errand:
    try:
        return Errand.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(map(str, first["loc"]))
        says = first["msg"].removeprefix("Value error, ")
        raise BadTasks(f"{where}: {path + ': ' if path else ''}{says}") from error


class Errands(TaskSet):
    """A task set of errands: each split has its own, in the order of the file."""

    def __init__(self, spec: EnvSpec, errands: Sequence[Errand]) -> None:
        super().__init__(spec)
        self._by_split: dict[str, list[Errand]] = {}
        for errand in errands:
            self._by_split.setdefault(errand.split, []).append(errand)

    def build(self, split: str, index: int) -> Task:
        errand = self._by_split[split][index]
        return self.task(
            split,
            index,
            instruction=errand.instruction,
            difficulty=errand.difficulty,
            metadata=errand.metadata,
        )

    def reference(self, task: Task) -> Reference:
        return self._by_split[task.split][task.index].reference


def splits(errands: Sequence[Errand]) -> list[SplitSpec]:
    """The splits of a file of tasks with their sizes, in the order of first mention."""
    names = [errand.split for errand in errands]
    return [SplitSpec(name=name, size=names.count(name)) for name in dict.fromkeys(names)]


def spec_of(
    id: str,
    description: str,
    box: Toolbox,
    errands: Sequence[Errand],
    *more: object,
    version: str = "1",
    max_turns: int,
    deterministic: bool,
    stateless: bool = False,
) -> EnvSpec:
    """The spec of an environment of these tools and tasks; its version changes with them, and with ``more``."""
    return EnvSpec(
        id=id,
        version=f"{version}.{fingerprint(box.specs, errands, *more)}",
        description=description,
        action_format="tools",
        tools=box.specs,
        max_turns=max_turns,
        splits=splits(errands),
        options_schema=TURN_LIMIT,
        deterministic=deterministic,
        stateless_tools=stateless,
    )


def chosen(specs: Sequence[ToolSpec], only: str | None) -> list[ToolSpec]:
    """The foreign tools that ``only`` names, separated by commas; all of them if it is None. Raises ValueError."""
    found = list(specs)
    if only is not None:
        names = [name.strip() for name in only.split(",")]
        unknown = [name for name in names if name not in {spec.name for spec in specs}]
        if unknown:
            raise ValueError(f"--only {unknown[0]}: no such tool; there are: {', '.join(spec.name for spec in specs)}")
        found = [spec for spec in specs if spec.name in names]
    if any(spec.name == ANSWER for spec in found):
        raise ValueError(
            f"a foreign tool is called {ANSWER!r}, like the one that ends an episode: leave it out with --only"
        )
    return found


def fingerprint(*parts: object) -> str:
    """Eight hex digits that change with any of the parts: an environment's version says what it was made of."""
    text = json.dumps([_plain(part) for part in parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _plain(part: object) -> object:
    if isinstance(part, BaseModel):
        return part.model_dump(mode="json")
    return [_plain(one) for one in part] if isinstance(part, list | tuple) else part


Score = Callable[[Reference, str | None, Sequence[tuple[str, JsonObject]]], tuple[float, dict[str, float]]]


class Progress:
    """One episode of an errand: the calls that succeeded, the answer, and in the end the score.

    ``reference`` is asked for only when something is scored, ``usage`` is said to a policy that called no tool.
    """

    def __init__(self, task: Task, reference: Callable[[Task], Reference], usage: str, score: Score | None = None):
        self.task = task
        self.calls: list[tuple[str, JsonObject]] = []
        self.given: str | None = None
        self._reference = reference
        self._usage = usage
        self._score = score or score_of
        self._turn = 0

    def prompt(self) -> Observation:
        return Observation.say(f"{self.task.instruction}\n\n{HOW_TO_END}")

    def made(self, name: str, arguments: JsonObject) -> None:
        """A call succeeded."""
        self.calls.append((name, arguments))

    def answer(self, arguments: JsonObject) -> ToolAnswer:
        """The tool :data:`ANSWER` was called. What it says tells nothing about the score."""
        self.given = arguments["answer"]
        return ToolAnswer("The answer was taken.", ends=True)

    def step(self, turn: ToolTurn) -> StepResult:
        """What the calls of one action come to: scored if one of them was the answer."""
        self._turn += 1
        if turn.ended:
            reward, metrics = self._scored()
            return turn.result(reward, end="solved" if reward >= 1.0 else "failed", metrics=metrics)
        return turn.result() if turn.calls else turn.result(say=self._usage, error="no tool was called")

    def finish(self, reason: str) -> StepResult:
        """The state as it is, scored without an answer."""
        reward, metrics = self._scored()
        return cut_short(reason, reward=reward, metrics=metrics, words="The episode has ended without an answer")

    def expert(self) -> Action:
        """The required calls in their order, one a turn, then the first gold answer."""
        reference = self._reference(self.task)
        missing = _missing(_required(reference), self.calls)
        name, arguments = (missing[0].name, missing[0].arguments) if missing else (ANSWER, {})
        if not missing:
            arguments = {"answer": reference.answers[0] if reference.answers else "done"}
        return Action(tool_calls=[ToolCall(id=f"c{self._turn}_0", name=name, arguments=arguments)])

    def _scored(self) -> tuple[float, dict[str, float]]:
        return self._score(self._reference(self.task), self.given, self.calls)


class ErrandEnvironment(Environment):
    """One episode with tools of somebody else. Subclasses set ``box``, too, and implement ``open`` and ``call``."""

    box: ClassVar[Toolbox]

    _progress: Progress

    @abstractmethod
    async def open(self) -> None:
        """Reach whoever has the tools. Raises EnvironmentFault."""

    @abstractmethod
    async def call(self, name: str, arguments: JsonObject) -> ToolAnswer:
        """Call one of their tools. Raises ToolMistake, EnvironmentFault."""

    async def reset(self, task: Task, seed: int, options: JsonObject) -> Observation:
        self._progress = Progress(task, type(self).tasks.reference, self.box.usage())
        await self.open()
        return self._progress.prompt()

    async def step(self, action: Action) -> StepResult:
        return self._progress.step(await self.box.run_async(action, self._call))

    async def finish(self, reason: str) -> StepResult:
        return self._progress.finish(reason)

    def expert_action(self) -> Action | None:
        return self._progress.expert()

    async def _call(self, name: str, arguments: JsonObject) -> ToolAnswer:
        if name == ANSWER:
            return self._progress.answer(arguments)
        answer = await self.call(name, arguments)
        if answer.effective:
            self._progress.made(name, arguments)
        return answer


def score_of(
    reference: Reference, answer: str | None, calls: Sequence[tuple[str, JsonObject]]
) -> tuple[float, dict[str, float]]:
    """Reward from 0 to 1, and the metrics; ``answer`` is None when none was given, ``calls`` are those that succeeded."""
    metrics: dict[str, float] = {}
    reward = 1.0
    if reference.answers:
        said, gold = answer or "", reference.answers
        metrics = {"em": exact_match(said, gold), "f1": f1(said, gold), "contains": float(mentions(said, gold))}
        reward = 0.0 if answer is None else metrics[_METRIC[reference.data["scorer"]]]
    wanted = _required(reference)
    if wanted:
        metrics["calls_made"] = 1.0 - len(_missing(wanted, calls)) / len(wanted)
        reward = reward if metrics["calls_made"] == 1.0 else 0.0
    return reward, metrics


_METRIC = {"exact": "em", "f1": "f1", "contains": "contains"}


def _required(reference: Reference) -> list[RequiredCall]:
    return [RequiredCall.model_validate(one) for one in reference.data["calls"]]


def _missing(wanted: Sequence[RequiredCall], made: Sequence[tuple[str, JsonObject]]) -> list[RequiredCall]:
    """The required calls that were not made; a call that was made meets one requirement only, the best one for it."""
    met_by: dict[int, int] = {}  # position in made -> position in wanted

    def meet(want: int, tried: set[int]) -> bool:
        """Find a call for this requirement; one that another has may be given up for a third."""
        for at, call in enumerate(made):
            if at in tried or not wanted[want].is_met_by(*call):
                continue
            tried.add(at)
            if at not in met_by or meet(met_by[at], tried):
                met_by[at] = want
                return True
        return False

    return [call for want, call in enumerate(wanted) if not meet(want, set())]
