"""Blocking environments that misbehave on request, for the tests of worker processes (by import path)."""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from turnwise_envs import (
    Action,
    EnvSpec,
    FunctionTaskSet,
    Observation,
    Reference,
    SplitSpec,
    StepResult,
    SyncEnvironment,
    Task,
)

OPTIONS = {
    "type": "object",
    "properties": {"max_turns": {"type": "integer", "minimum": 1}},
    "additionalProperties": False,
}


def _spec(env_id: str, **fields) -> EnvSpec:
    splits = [SplitSpec(name="train", size=100)]
    return EnvSpec(id=env_id, max_turns=50, splits=splits, options_schema=OPTIONS, **fields)


def _tasks(spec: EnvSpec) -> FunctionTaskSet:
    return FunctionTaskSet(spec, lambda split, index: f"Task {index}.", lambda task: Reference(answers=["gold"]))


class Rough(SyncEnvironment):
    """Counts its steps and says a seeded number; words in the action's text do worse (see :meth:`step_sync`)."""

    spec = _spec("rough")
    tasks = _tasks(spec)

    def reset_sync(self, task: Task, seed: int, options) -> Observation:
        if task.index == 13:
            raise RuntimeError("the answer is secret-13")
        if task.index == 99:
            time.sleep(3600)
        if task.index == 66:
            os._exit(6)
        self.count = 0
        self.rng = random.Random(1000 * task.index + seed)
        # A connection that insists on its thread: as of today, every call comes in the same one.
        self.database = sqlite3.connect(":memory:")
        self.database.execute("create table said (word text)")
        return Observation.say(task.instruction)

    def step_sync(self, action: Action) -> StepResult:
        words = action.text.split()
        word, *rest = words or [""]
        self.database.execute("insert into said values (?)", (word,))
        if word.startswith("once-"):  # "once-exit FILE": only if FILE is not there yet
            mark, word = Path(rest[0]), word.removeprefix("once-")
            if mark.exists():
                word = "calm"
            mark.touch()
        match word:
            case "exit":
                os._exit(7)
            case "sysexit":
                sys.exit(3)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "raise":
                raise KeyError("secret-answer")
            case "sleep":
                time.sleep(float(rest[0]))
            case "until":  # a file is there
                while not Path(rest[0]).exists():
                    time.sleep(0.01)
            case "hang":
                time.sleep(3600)
            case "spin":
                while True:
                    pass
            case "clutch":  # in C, without letting any other thread run
                ctypes.PyDLL(None).sleep(3600)
            case "grandchild":  # one that would survive its parent and keeps what it inherited
                subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], close_fds=False)
            case "environ":
                return StepResult(observation=Observation.say(json.dumps(sorted(os.environ.items()))))
            case "huge":
                return StepResult(observation=Observation.say("x" * int(rest[0])))
            case "print":
                print("noise " * 1000)
        self.count += 1
        if word == "win":
            return StepResult(observation=Observation.say("Won."), reward=1.0, terminated=True)
        return StepResult(observation=Observation.say(f"{self.count} {self.rng.random()}"), reward=0.5)

    def finish_sync(self, reason: str) -> StepResult:
        return StepResult(observation=Observation.say(f"score {self.count}"), reward=-0.25, truncated=True)


class Saving(Rough):
    """With snapshots."""

    spec = _spec("saving", snapshot=True)
    tasks = _tasks(spec)

    def snapshot(self) -> bytes:
        said = [word for (word,) in self.database.execute("select word from said")]
        version, state, gauss = self.rng.getstate()
        return json.dumps([self.count, version, list(state), gauss, said]).encode()

    def restore(self, snapshot: bytes) -> None:
        self.count, version, state, gauss, said = json.loads(snapshot)
        self.rng = random.Random()
        self.rng.setstate((version, tuple(state), gauss))
        self.database = sqlite3.connect(":memory:")
        self.database.execute("create table said (word text)")
        self.database.executemany("insert into said values (?)", [(word,) for word in said])


class Fickle(Rough):
    """Admits that it is not deterministic."""

    spec = _spec("fickle", deterministic=False)
    tasks = _tasks(spec)


ALL = [Rough, Saving, Fickle]
