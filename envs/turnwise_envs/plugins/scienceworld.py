"""The adapter ``scienceworld``: ``turnwise serve scienceworld:boil`` serves a task of ScienceWorld (needs Java).

A process starts one Java machine, and every episode is a simulator of its own in it. Tasks are ScienceWorld's variations
in its own splits (its `dev` is our `valid`). The reward is the change of its score, from 0 to 1 in all; a failure, which it
scores with -100, takes away what was earned.

Two things make its words differ between runs of the same commands. It keeps things in sets that are ordered by Java's
identity hashes, which are random numbers: our Java machine gives every object the same hash, and the sets are in the order
in which they were filled. And which of several names an ambiguous thing gets ("cup", "wood cup containing blue paint") is
drawn from one generator that all simulators of a Java machine share: an episode that is alone in its process is the same in
every run, one that begins beside another is not. So the environment does not promise determinism unless it is told to.
"""

from __future__ import annotations

import shutil
import threading
from typing import Any, ClassVar, Literal

from turnwise_envs.actions import last_line
from turnwise_envs.adapters import adapter
from turnwise_envs.environment import Environment, SyncEnvironment, TaskSet, cut_short
from turnwise_envs.errors import UnknownEnvironment
from turnwise_envs.plugins.foreign import clipped, spec_id
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

#: Tasks and their variations in train, dev and test, which follow each other in this order.
VARIATIONS: dict[str, tuple[int, int, int]] = {
    "boil": (14, 7, 9),
    "change-the-state-of-matter-of": (14, 7, 9),
    "chemistry-mix": (16, 8, 8),
    "chemistry-mix-paint-secondary-color": (18, 9, 9),
    "chemistry-mix-paint-tertiary-color": (18, 9, 9),
    "find-animal": (150, 75, 75),
    "find-living-thing": (150, 75, 75),
    "find-non-living-thing": (150, 75, 75),
    "find-plant": (150, 75, 75),
    "freeze": (14, 7, 9),
    "grow-fruit": (62, 31, 33),
    "grow-plant": (62, 31, 33),
    "identify-life-stages-1": (6, 3, 5),
    "identify-life-stages-2": (4, 2, 4),
    "inclined-plane-determine-angle": (84, 42, 42),
    "inclined-plane-friction-named-surfaces": (692, 346, 348),
    "inclined-plane-friction-unnamed-surfaces": (80, 40, 42),
    "lifespan-longest-lived": (62, 31, 32),
    "lifespan-longest-lived-then-shortest-lived": (62, 31, 32),
    "lifespan-shortest-lived": (62, 31, 32),
    "measure-melting-point-known-substance": (218, 109, 109),
    "measure-melting-point-unknown-substance": (150, 75, 75),
    "melt": (14, 7, 9),
    "mendelian-genetics-known-plant": (60, 30, 30),
    "mendelian-genetics-unknown-plant": (240, 120, 120),
    "power-component": (10, 5, 5),
    "power-component-renewable-vs-nonrenewable-energy": (10, 5, 5),
    "test-conductivity": (450, 225, 225),
    "test-conductivity-of-unknown-substances": (300, 150, 150),
    "use-thermometer": (270, 135, 135),
}
SPLITS = ("train", "valid", "test")
#: Characters of a command that reach the simulator's parser.
MAX_COMMAND = 300
HOW = "Each turn, write one command on the last line. OBJ stands for a thing that you can see or hold. Commands:"


@adapter
def scienceworld(
    task: str, *, simplifications: str = "", max_turns: int = 200, deterministic: bool = False
) -> type[Environment]:
    """One of ScienceWorld's 30 tasks by name, such as ``boil``.

    ``simplifications``: ``easy``, or some of ``teleportAction,selfWateringFlowerPots,openContainers,openDoors,
    noElectricalAction``, with commas. ``deterministic``: promise it where a worker never plays two
    episodes at once; those of one process draw names from a common generator.
    """
    import scienceworld as package  # noqa: F401  a missing package is said here, not in the first reset

    if task not in VARIATIONS:
        from difflib import get_close_matches

        near = ", ".join(get_close_matches(task, VARIATIONS, n=3)) or ", ".join(VARIATIONS)
        raise UnknownEnvironment(f"scienceworld has no task {task!r}; did you mean {near}?")
    if shutil.which("java") is None:
        raise UnknownEnvironment("scienceworld needs Java 8 or later: there is no program java on the PATH")
    spec_ = EnvSpec(
        id=spec_id("scienceworld", task),
        description=f"ScienceWorld: {task.replace('-', ' ')}.",
        max_turns=max_turns,
        splits=[SplitSpec(name=name, size=size) for name, size in zip(SPLITS, VARIATIONS[task], strict=True)],
        options_schema={
            "type": "object",
            "properties": {"max_turns": {"type": "integer", "minimum": 1, "maximum": 10_000}},
            "additionalProperties": False,
        },
        deterministic=deterministic,
    )

    class Laboratory(ScienceWorldEpisode):
        spec = spec_
        tasks = Variations(spec_, task, simplifications)

    return Laboratory


class Variations(TaskSet):
    """The variations of one task. The reference has the gold path."""

    def __init__(self, spec: EnvSpec, name: str, simplifications: str) -> None:
        super().__init__(spec)
        self.name = name
        self.simplifications = simplifications

    def build(self, split: str, index: int) -> Task:
        variation = sum(VARIATIONS[self.name][: SPLITS.index(split)]) + index
        return self.task(
            split,
            index,
            instruction=f"Do the task {self.name} of ScienceWorld.",
            metadata={"task": self.name, "variation": variation, "simplifications": self.simplifications},
        )

    def reference(self, task: Task) -> Reference:
        return Reference(data={"gold_path": self.gold_path(task)})

    def gold_path(self, task: Task) -> list[str]:
        """Commands that solve the task.

        Making them draws from the common generator of a Java machine: so they are made in another one.
        """
        machine = _machine("plan")
        simulator = _simulator(machine)
        simulator.load(self.name, task.metadata["variation"], self.simplifications, True)
        return _texts(machine, simulator.getGoldActionSequence())


class ScienceWorldEpisode(SyncEnvironment):
    """One variation of a task in a simulator of its own."""

    tasks: ClassVar[Variations]
    _java: Any = None

    def reset_sync(self, task: Task, seed: int, options: JsonObject) -> Observation:
        """Nothing is random after the variation is drawn, so ``seed`` makes no difference."""
        self._task, self._taken, self._path = task, list[str](), list[str]()
        self._java = _simulator(_machine())
        self._java.load(self.tasks.name, task.metadata["variation"], self.tasks.simplifications, False)
        self._java.reset()
        seen = str(self._java.step("look around"))
        self._score = self._now()
        goal = str(self._java.getTaskDescription()).strip()
        commands = ", ".join(sorted(_texts(_machine(), self._java.getPossibleActions())))
        return self._observe(f"{goal}\n\n{HOW} {commands}.\n\n{seen}")

    def step_sync(self, action: Action) -> StepResult:
        command = last_line(action.text)[:MAX_COMMAND]
        self._taken.append(command)
        said = str(self._java.step(command)) if command else "Nothing was said."
        before, self._score = self._score, self._now()
        failed = self._java.getScore() < 0
        solved = self._score >= 1.0
        ended = failed or solved or bool(self._java.getCompleted())
        known = not said.startswith(("No known action", "Unknown action", "Nothing was said"))
        return StepResult(
            observation=self._observe(said),
            reward=round(self._score - before, 6),
            terminated=ended,
            info=StepInfo(
                action_valid=known,
                action_effective=known,
                error=None if known else f"{clipped(command)!r} is not understood",
                metrics=self._metrics() if ended else {},
                end=("solved" if solved else "failed") if ended else None,
            ),
        )

    def finish_sync(self, reason: str) -> StepResult:
        return cut_short(reason, metrics=self._metrics())

    def expert_action(self) -> Action | None:
        """The next command of the gold path, as long as it was followed; None after another one."""
        if not self._path:
            self._path = self.tasks.gold_path(self._task)
        done = len(self._taken)
        if self._taken != self._path[:done] or done == len(self._path):
            return None
        return Action(text=self._path[done])

    async def close(self) -> None:
        self._java = None  # the Java side is freed with it

    def _now(self) -> float:
        """ScienceWorld's score, 0 to 1; a failure is worth nothing."""
        return max(0.0, round(float(self._java.getScore()), 6))

    def _metrics(self) -> dict[str, float]:
        return {"score": self._score, "success": float(self._score >= 1.0)}

    def _observe(self, said: str) -> Observation:
        possible = sorted(set(_texts(_machine(), self._java.getValidActionObjectCombinations())))
        return Observation.say(said.strip(), admissible_actions=possible)


#: HotSpot's identity hash is 1 for all objects (Java 9 and later call that an experiment).
_JAVA_OPTIONS = ["-XX:+UnlockExperimentalVMOptions", "-XX:hashCode=2"]

_starting = threading.Lock()
_machines: dict[str, Any] = {}


def _machine(purpose: Literal["play", "plan"] = "play") -> Any:
    """A Java machine of this process, started when it is first asked for; it ends with the process."""
    with _starting:
        if purpose not in _machines:
            from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway
            from scienceworld.constants import BASEPATH, JAR_PATH

            port = launch_gateway(classpath=JAR_PATH, die_on_exit=True, cwd=BASEPATH, javaopts=_JAVA_OPTIONS)
            _machines[purpose] = JavaGateway(gateway_parameters=GatewayParameters(auto_field=True, port=port))
        return _machines[purpose]


def _simulator(machine: Any) -> Any:
    return machine.jvm.scienceworld.runtime.pythonapi.PythonInterface()


def _texts(machine: Any, listed: Any) -> list[str]:
    """A Java list of one-line texts, fetched at once: there are hundreds, and each would be a round trip."""
    joined = str(machine.jvm.java.lang.String.join("\n", listed))
    return joined.split("\n") if joined else []
