"""The environment of both desks: calls change the database, messages go to the customer, the end is compared to gold."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

from turnwise_envs.actions import without_thoughts
from turnwise_envs.environment import Environment, TaskSet
from turnwise_envs.scoring import mentions
from turnwise_envs.tools.desk.customer import UNTOUCHED, Mood, hear
from turnwise_envs.tools.desk.database import Database
from turnwise_envs.tools.desk.scenario import Call, Desk, Scenario
from turnwise_envs.tools_api import ToolAnswer, ToolMistake
from turnwise_envs.types import (
    Action,
    EnvSpec,
    JsonObject,
    Message,
    Observation,
    Reference,
    SplitSpec,
    StepInfo,
    StepResult,
    Task,
    ToolCall,
)

#: A longer message is not listened to: nobody is told a price by being told all numbers.
LONGEST_MESSAGE = 1_000
ANYTHING_ELSE = "Is there anything else that I can do for you?"


def spec_of(desk: Desk) -> EnvSpec:
    """The spec of a desk's environment."""
    return EnvSpec(
        id=desk.id,
        version="1",
        description=desk.description,
        action_format="tools",
        tools=desk.box.specs,
        max_turns=30,
        splits=[SplitSpec(name=name, size=size) for name, size in desk.splits.items()],
        options_schema={
            "type": "object",
            "properties": {"max_turns": {"type": "integer", "minimum": 1, "maximum": 100}},
            "additionalProperties": False,
        },
        deterministic=True,
        snapshot=True,
        stateless_tools=True,
    )


class DeskTasks(TaskSet):
    """The cases of a desk."""

    def __init__(self, spec: EnvSpec, desk: Desk) -> None:
        super().__init__(spec)
        self._desk = desk

    def build(self, split: str, index: int) -> Task:
        scenario = case(self._desk, split, index)
        steps = sum(len(request.plan) + len(request.facts) for request in scenario.requests)
        return self.task(
            split,
            index,
            instruction=scenario.requests[0].opening,
            difficulty=min(1.0, steps / 20),
            metadata={"requests": list(scenario.kinds)},
        )

    def reference(self, task: Task) -> Reference:
        """The values that must be said, the gold calls, and the database as it should be in the end."""
        scenario = case(self._desk, task.split, task.index)
        return Reference(
            answers=list(scenario.answers),
            data={
                "calls": [[step.name, step.arguments] for request in scenario.requests for step in request.plan],
                "database": {table: dict(rows) for table, rows in self._desk.gold(scenario).items()},
            },
        )


@lru_cache(maxsize=1024)
def case(desk: Desk, split: str, index: int) -> Scenario:
    return desk.scenario(split, index)


@dataclass(frozen=True)
class State:
    """An episode now. ``said`` are the required answers that the customer was told, ``made`` the calls that worked."""

    db: Database
    mood: Mood = UNTOUCHED
    said: tuple[str, ...] = ()
    made: frozenset[str] = frozenset()
    over: bool = False


class DeskEnvironment(Environment):
    """One conversation. Subclasses set ``desk``, ``spec`` and ``tasks``."""

    desk: ClassVar[Desk]

    _where: tuple[str, int]
    _scenario: Scenario
    _state: State

    async def reset(self, task: Task, seed: int, options: JsonObject) -> Observation:
        """Begin ``task``. Nothing is random after that, so ``seed`` makes no difference."""
        self._where = (task.split, task.index)
        self._scenario = case(self.desk, *self._where)
        self._state = State(self._scenario.db)
        return Observation(
            messages=[
                Message(role="system", content=self.desk.prompt),
                Message(content=self._scenario.requests[0].opening),
            ],
            state_key=self._key(),
        )

    async def step(self, action: Action) -> StepResult:
        """Run the action's calls, or say its text to the customer."""
        before = self._state
        if action.tool_calls:
            turn = self.desk.box.run(action, self._call)
            messages, info = turn.messages, turn.info()
        else:
            messages, info = self._say(without_thoughts(action.text).strip())
        if not self._state.over:
            return StepResult(observation=Observation(messages=messages, state_key=self._key()), info=info)
        success, metrics = self._score()
        info = info.model_copy(update={"metrics": metrics, "end": "solved" if success else "failed"})
        effective = self._state != before
        return StepResult(
            observation=Observation(messages=messages, state_key=self._key()),
            reward=float(success),
            terminated=True,
            info=info.model_copy(update={"action_effective": effective}),
        )

    async def finish(self, reason: str) -> StepResult:
        """Score the database as it is."""
        result = await super().finish(reason)
        success, metrics = self._score()
        info = result.info.model_copy(update={"metrics": metrics})
        return result.model_copy(update={"reward": float(success), "info": info})

    def snapshot(self) -> bytes:
        state = self._state
        plain = [*self._where, state.db, state.mood, state.said, sorted(state.made), state.over]
        return json.dumps(plain, separators=(",", ":")).encode()

    def restore(self, snapshot: bytes) -> None:
        split, index, db, (request, told, *mood), said, made, over = json.loads(snapshot)
        self._where = (split, index)
        self._scenario = case(self.desk, split, index)
        self._state = State(db, Mood(request, tuple(told), *mood), tuple(said), frozenset(made), over)

    def expert_action(self) -> Action | None:
        """Ask for what is not known yet, make the next gold call (with agreement), say what must be said, go on."""
        state = self._state
        if state.over:
            return None
        request, mood = self._scenario.requests[state.mood.request], state.mood
        unknown = [topic for topic in {**self._scenario.identity, **request.facts} if topic not in mood.told]
        if unknown:
            questions = [self.desk.topics[topic].question for topic in unknown]
            return Action(text=f"Could you please tell me {' and '.join(questions)}?")
        for step in request.plan:
            if step.key in state.made:
                continue
            if step.name in self.desk.writes and not mood.agreed:
                return Action(text=f"{request.proposal} Shall I go ahead?")
            return Action(tool_calls=[ToolCall(id="expert", name=step.name, arguments=step.arguments)])
        if not set(request.answers) <= set(state.said) or (request.plea and not mood.insisted):
            return Action(text=request.tells)
        return Action(text=ANYTHING_ELSE)

    def _call(self, name: str, arguments: JsonObject) -> ToolAnswer:
        state = self._state
        if name in self.desk.writes and not state.mood.agreed:
            raise ToolMistake(
                "Refused: the customer has not agreed. Say what you would do, with the number that it is about, and ask."
            )
        db, told = self.desk.run(state.db, name, arguments)
        made = state.made | {Call(name, arguments).key}
        self._state = replace(state, db=db, made=made, over=name in self.desk.ends)
        return ToolAnswer(told, effective=db is not state.db or made != state.made, ends=self._state.over)

    def _say(self, text: str) -> tuple[list[Message], StepInfo]:
        if not text or len(text) > LONGEST_MESSAGE:
            wrong = "The message was empty." if not text else f"A message has at most {LONGEST_MESSAGE} characters."
            told = f"{wrong} The customer is waiting: write to them, or call a tool."
            return [Message(content=told)], StepInfo(action_valid=False, action_effective=False, error=wrong)
        state = self._state
        reply, mood = hear(self._scenario, self.desk.topics, state.mood, text)
        missing = [answer for answer in self._scenario.answers if answer not in state.said]
        said = (*state.said, *(answer for answer in missing if mentions(text, [answer])))
        self._state = replace(state, mood=mood, said=said, over=mood.gone)
        return [Message(content=reply)], StepInfo(action_effective=self._state != state, counters={"messages": 1})

    def _score(self) -> tuple[bool, dict[str, float]]:
        scenario, state = self._scenario, self._state
        right = state.db == self.desk.gold(scenario)
        told = set(scenario.answers) <= set(state.said)
        return right and told, {"success": float(right and told), "database": float(right), "answers": float(told)}

    def _key(self) -> str:
        state = self._state
        plain = json.dumps([*self._where, state.db, state.mood, sorted(state.said)], sort_keys=True)
        return hashlib.sha256(plain.encode()).hexdigest()[:16]
