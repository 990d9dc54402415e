"""The calls environment: functions and a request in, calls out, 1.0 if they are the gold calls."""

from __future__ import annotations

import hashlib
import json
import re
from typing import NamedTuple

from turnwise_envs.actions import without_thoughts
from turnwise_envs.environment import Environment, TaskSet
from turnwise_envs.tools.calls.cases import Case, case
from turnwise_envs.tools.calls.matching import Made, mismatch
from turnwise_envs.tools.calls.reading import calls_in
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

SPEC = EnvSpec(
    id="calls",
    version="1",
    description="Function calls matched against gold calls, in BFCL's categories: single, parallel, multi-turn, none.",
    action_format="tags",  # each task shows functions of its own, in the prompt; the spec's tools would be for all tasks
    max_turns=8,
    splits=[SplitSpec(name="train", size=10_000), SplitSpec(name="valid", size=1_000)],
    options_schema={
        "type": "object",
        "properties": {"max_turns": {"type": "integer", "minimum": 1, "maximum": 30}},
        "additionalProperties": False,
    },
    deterministic=True,
    snapshot=True,
    stateless_tools=True,
)

#: Calls in one message. No task needs more than three.
MOST_CALLS = 8

_PROMPT = """You may call functions to help the user. These are described in JSON, one a line:
<tools>
{functions}
</tools>
Write each call as <tool_call>{{"name": "...", "arguments": {{...}}}}</tool_call>, all calls that a request needs in one message. \
Leave out optional arguments that the user does not mention. If a required value is missing, ask the user for it without a \
call. If none of the functions fits, say so without a call."""


class CallsTasks(TaskSet):
    """Cases by split and index."""

    def build(self, split: str, index: int) -> Task:
        found = case(split, index)
        return self.task(
            split,
            index,
            instruction=found.turns[0].request,
            difficulty=min(1.0, (len(found.functions) + 2 * sum(len(turn.gold) for turn in found.turns)) / 12),
            metadata={"category": found.category, "functions": [one.name for one in found.functions]},
        )

    def reference(self, task: Task) -> Reference:
        """The gold calls of each turn in BFCL's form: ``{name: {parameter: [allowed values]}}``."""
        turns = case(task.split, task.index).turns
        return Reference(data={"ground_truth": [[{one.name: one.allowed} for one in turn.gold] for turn in turns]})


class _State(NamedTuple):
    """Which turn of the user it is, whether the missing value was supplied, and how many calls were malformed."""

    split: str
    number: int
    turn: int = 0
    supplied: bool = False
    malformed: int = 0


class Calls(Environment):
    """One request, or a few, to be answered by the right calls."""

    spec = SPEC
    tasks = CallsTasks(SPEC)

    _state: _State
    _case: Case

    async def reset(self, task: Task, seed: int, options: JsonObject) -> Observation:
        """Begin ``task``. Nothing is random after that, so ``seed`` makes no difference."""
        self._become(_State(task.split, task.index))
        functions = "\n".join(
            json.dumps({"type": "function", "function": one.spec.model_dump()}, ensure_ascii=False)
            for one in self._case.functions
        )
        return Observation(
            messages=[
                Message(role="system", content=_PROMPT.format(functions=functions)),
                Message(content=self._case.turns[0].request),
            ],
            state_key=self._key(),
        )

    async def step(self, action: Action) -> StepResult:
        """Hold the calls of the action against the gold ones; malformed ones are told, and can be made again."""
        calls = calls_in(action)
        if not calls:
            return self._hear(without_thoughts(action.text).strip())
        problems = [
            self._case.problem(call) if place < MOST_CALLS else f"At most {MOST_CALLS} calls in one message."
            for place, call in enumerate(calls)
        ]
        if any(problems):
            self._state = self._state._replace(malformed=self._state.malformed + 1)
            told = [problem or "Not run: another call is malformed." for problem in problems]
            said = "Make all calls again, corrected."
            return self._answer(action, calls, told, said, valid=False)
        turn = self._case.turns[self._state.turn]
        lacks = bool(self._case.missing) and not self._state.supplied
        made = [Made(call.name, call.arguments or {}) for call in calls]
        why = "a required value is missing" if lacks else mismatch(made, turn.gold)
        if why is not None:
            return self._answer(action, calls, ["Not run."] * len(calls), "That is not what I asked for.", end="failed")
        results = self._results(made)
        if self._state.turn + 1 == len(self._case.turns):
            return self._answer(action, calls, results, "Thank you.", end="solved")
        self._state = self._state._replace(turn=self._state.turn + 1)
        return self._answer(action, calls, results, self._case.turns[self._state.turn].request)

    async def finish(self, reason: str) -> StepResult:
        """An unfinished request is worth nothing."""
        result = await super().finish(reason)
        info = result.info.model_copy(update={"metrics": self._metrics(False)})
        return result.model_copy(update={"info": info})

    def snapshot(self) -> bytes:
        return json.dumps(self._state).encode()

    def restore(self, snapshot: bytes) -> None:
        self._become(_State(*json.loads(snapshot)))

    def expert_action(self) -> Action | None:
        """The gold calls, as tags; a question for what is missing; or that nothing fits."""
        turn = self._case.turns[self._state.turn]
        if not turn.gold:
            return Action(text="None of the functions fits this request.")
        if self._case.missing and not self._state.supplied:
            return Action(text=self._case.question)
        calls = [json.dumps({"name": one.name, "arguments": one.arguments}, ensure_ascii=False) for one in turn.gold]
        return Action(text="\n".join(f"<tool_call>{call}</tool_call>" for call in calls))

    def _become(self, state: _State) -> None:
        self._state, self._case = state, case(state.split, state.number)

    def _hear(self, text: str) -> StepResult:
        """A message without calls: right if nothing fits, a question if something is missing, else wrong."""
        turn, wanted = self._case.turns[self._state.turn], self._case.missing
        if not text:
            told = "The message was empty. Call functions, or write to the user."
            return StepResult(
                observation=Observation.say(told, state_key=self._key()),
                info=StepInfo(action_valid=False, action_effective=False, error="empty message"),
            )
        if wanted and not self._state.supplied:
            asked = not set(wanted).isdisjoint(re.findall(r"\w+", text.lower()))
            self._state = self._state._replace(supplied=asked)
            said = self._case.supplied if asked else "What do you need to know?"
            return StepResult(
                observation=Observation.say(said, state_key=self._key()), info=StepInfo(action_effective=asked)
            )
        right = not turn.gold
        said = "I see, thank you." if right else "You could have done that with the functions."
        return self._answer(Action(), [], [], said, end="solved" if right else "failed")

    def _results(self, made: list[Made]) -> list[str]:
        """Results in the order in which the calls were made; where it matters there is only one."""
        results = self._case.turns[self._state.turn].results
        return [json.dumps(results[min(place, len(results) - 1)], ensure_ascii=False) for place in range(len(made))]

    def _answer(
        self,
        action: Action,
        calls: list[ToolCall],
        told: list[str],
        said: str,
        *,
        valid: bool = True,
        end: str | None = None,
    ) -> StepResult:
        """One ``tool`` message a call where the client parsed the calls, else all in one user message."""
        if action.tool_calls:
            messages = [
                Message(role="tool", content=text, tool_call_id=call.id) for call, text in zip(calls, told, strict=True)
            ]
            messages.append(Message(content=said))
        else:
            responses = [f"<tool_response>\n{text}\n</tool_response>" for text in told]
            messages = [Message(content="\n".join([*responses, said]))]
        return StepResult(
            observation=Observation(messages=messages, state_key=self._key()),
            reward=float(end == "solved"),
            terminated=end is not None,
            info=StepInfo(
                action_valid=valid,
                action_effective=valid and end != "failed",
                error=None if valid else told[0][:200],
                counters={"tool_calls": len(calls) if valid else 0, "malformed": int(not valid)},
                metrics=self._metrics(end == "solved") if end else {},
                end=end,
            ),
        )

    def _metrics(self, solved: bool) -> dict[str, float]:
        """``strict``: solved, and no call was malformed on the way (BFCL's score)."""
        return {"success": float(solved), "strict": float(solved and not self._state.malformed)}

    def _key(self) -> str:
        state = self._state._replace(malformed=0)
        return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]
