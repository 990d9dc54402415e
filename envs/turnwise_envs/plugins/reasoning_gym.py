"""The adapter ``reasoning-gym``: ``turnwise serve reasoning-gym:leg_counting`` asks questions of a reasoning-gym set.

One turn: the question, an answer in ``<answer>`` tags, reasoning-gym's own score. The gold answer is in the Reference.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar

from turnwise_envs.actions import tags
from turnwise_envs.adapters import adapter
from turnwise_envs.environment import Environment, SyncEnvironment, TaskSet
from turnwise_envs.errors import UnknownEnvironment
from turnwise_envs.plugins.foreign import VALID_SEEDS, OwnChance, json_argument, spec_id
from turnwise_envs.types import (
    Action,
    EnvSpec,
    JsonObject,
    Observation,
    Reference,
    SplitSpec,
    StepInfo,
    StepResult,
    Task,
)

#: Characters of an answer that are scored: some scorers parse it, in time that grows faster than its length.
MAX_ANSWER = 4096
ASK = "Think first if you like, then write your final answer as <answer>...</answer>."
SPLITS = {"train": 10_000, "valid": 1_000}


@adapter
def reasoning_gym(set: str, *, config: str = "{}") -> type[Environment]:
    """One of reasoning-gym's data sets by name. ``config``: its settings in JSON, ``{"max_animals": 5}`` for instance."""
    questions = _Questions(set, json_argument("config", config))
    spec_ = EnvSpec(
        id=spec_id("reasoning-gym", set),
        description=f"Questions of reasoning-gym's set {set}, scored by its own scorer.",
        action_format="tags",
        max_turns=1,
        splits=[SplitSpec(name=name, size=size) for name, size in SPLITS.items()],
    )

    class Asked(ReasoningEpisode):
        spec = spec_
        tasks = QuestionTasks(spec_, questions)

    Asked.questions = questions
    return Asked


class _Questions:
    """The entries of a set, by split and index; the last ones asked for are kept."""

    def __init__(self, name: str, config: JsonObject) -> None:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS

        if name not in DATASETS:
            from difflib import get_close_matches

            near = get_close_matches(name, DATASETS, n=3)
            hint = f"did you mean {', '.join(near)}?" if near else f"there are {len(DATASETS)}, such as leg_counting"
            raise UnknownEnvironment(f"reasoning-gym has no set {name!r}; {hint}")
        self.name = name
        self._sets: dict[str, Any] = {}
        for split, size in SPLITS.items():
            given = {"seed": 0 if split == "train" else VALID_SEEDS, "size": size} | config
            try:
                with OwnChance("reasoning-gym", name, split):
                    self._sets[split] = reasoning_gym.create_dataset(name, **given)
            except (TypeError, ValueError, AssertionError) as error:
                raise UnknownEnvironment(f"reasoning-gym:{name} --config: {error}") from error
        self.entry = lru_cache(maxsize=256)(self._entry)

    def _entry(self, split: str, index: int) -> JsonObject:
        with OwnChance("reasoning-gym", self.name, split, index):
            found: JsonObject = self._sets[split][index]
        return found

    def score(self, split: str, index: int, answer: str) -> float:
        """0 to 1. A scorer that cannot read the answer gives 0."""
        try:
            with OwnChance("reasoning-gym", self.name, split, index):
                score = float(self._sets[split].score_answer(answer, self.entry(split, index)))
        except Exception:  # scorers parse what a policy wrote, each in its own way
            return 0.0
        return min(max(score, 0.0), 1.0) if score == score else 0.0


class QuestionTasks(TaskSet):
    """The questions, and their gold answers as references."""

    def __init__(self, spec: EnvSpec, questions: _Questions) -> None:
        super().__init__(spec)
        self._questions = questions

    def build(self, split: str, index: int) -> Task:
        entry = self._questions.entry(split, index)
        return self.task(
            split,
            index,
            instruction=str(entry["question"]),
            metadata={"set": self._questions.name},
        )

    def reference(self, task: Task) -> Reference:
        answer = self._questions.entry(task.split, task.index).get("answer")
        return Reference(answers=[] if answer is None else [str(answer)])


class ReasoningEpisode(SyncEnvironment):
    """One question, one answer. :func:`reasoning_gym` sets ``questions``."""

    questions: ClassVar[_Questions]

    def reset_sync(self, task: Task, seed: int, options: JsonObject) -> Observation:
        self._task = task
        return Observation.say(f"{task.instruction}\n\n{ASK}", state_key=f"{task.split}/{task.index}")

    def step_sync(self, action: Action) -> StepResult:
        answers = tags(action.text, ("answer",))
        if not answers:
            text = f"There was no <answer>...</answer>. {ASK}"
            return StepResult(
                observation=Observation.say(text),
                terminated=True,
                info=StepInfo(action_valid=False, error=text, metrics={"score": 0.0, "success": 0.0}, end="failed"),
            )
        score = self.questions.score(self._task.split, self._task.index, answers[-1].content[:MAX_ANSWER])
        solved = score >= 1.0
        return StepResult(
            observation=Observation.say("That is right." if solved else f"That is not right (score {score:.2f})."),
            reward=score,
            terminated=True,
            info=StepInfo(metrics={"score": score, "success": float(solved)}, end="solved" if solved else "failed"),
        )

    def expert_action(self) -> Action | None:
        """The gold answer; None for the few sets that name none."""
        answers = self.tasks.reference(self._task).answers
        return Action(text=f"<answer>{answers[0]}</answer>") if answers else None
