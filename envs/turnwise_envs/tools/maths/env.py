"""The maths environment: a problem, an interpreter, colleagues, and one answer."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from turnwise_envs.actions import without_thoughts
from turnwise_envs.environment import SyncEnvironment, cut_short
from turnwise_envs.tools.maths import consult
from turnwise_envs.tools.maths.answers import boxed, number, same
from turnwise_envs.tools.maths.families import Problem, problem
from turnwise_envs.tools.maths.tasks import MathsTasks
from turnwise_envs.tools.sandbox import LIMITS, Outcome, require_sandbox, run_python
from turnwise_envs.tools_api import ToolAnswer, Toolbox, ToolMistake, ToolTurn, clip
from turnwise_envs.types import (
    Action,
    EnvSpec,
    JsonObject,
    Message,
    Observation,
    SplitSpec,
    StepInfo,
    StepResult,
    Task,
    ToolCall,
    ToolSpec,
)

#: Characters of a program's output that the policy is shown.
SHOWN = 2_000

BOX = Toolbox(
    [
        ToolSpec(
            name="python",
            description=(
                "Run a Python 3 program with the standard library and see what it prints (the value of a last line that "
                "is an expression is printed too). Nothing is kept from one call to the next, unless the task says so. "
                f"{LIMITS.cpu_seconds} s of computing, {LIMITS.memory_bytes >> 20} MiB of memory, no network, no threads or "
                "other processes."
            ),
            parameters={
                "type": "object",
                "properties": {"program": {"type": "string", "maxLength": LIMITS.program_characters}},
                "required": ["program"],
                "additionalProperties": False,
            },
        ),
        ToolSpec(
            name="consult",
            description="Ask colleagues, one question each. They may be unavailable, and every reply costs you.",
            parameters={
                "type": "object",
                "properties": {
                    "questions": {
                        "type": "array",
                        "items": {"type": "string", "minLength": 1},
                        "minItems": 1,
                        "maxItems": consult.COLLEAGUES,
                    }
                },
                "required": ["questions"],
                "additionalProperties": False,
            },
        ),
        ToolSpec(
            name="answer",
            description="Give the final answer: a number or a fraction, such as 12, -0.5 or 3/4. This ends the task.",
            parameters={
                "type": "object",
                "properties": {"value": {"type": "string"}},
                "required": ["value"],
                "additionalProperties": False,
            },
        ),
    ],
    max_calls=4,
)

SPEC = EnvSpec(
    id="maths",
    version="2",
    description="Generated maths problems with a sandboxed Python interpreter and colleagues to consult.",
    action_format="tools",
    tools=BOX.specs,
    max_turns=8,
    splits=[
        SplitSpec(name="train", size=10_000),
        SplitSpec(name="valid", size=1_000),
        SplitSpec(name="valid_unseen", size=999),
    ],
    options_schema={
        "type": "object",
        "properties": {
            "max_turns": {"type": "integer", "minimum": 1, "maximum": 50},
            "consult_acceptance": {
                "type": "number",
                "minimum": 0,
                "maximum": 1,
                "description": "Probability that a question to a colleague is heard; 1 by default.",
            },
            "keep_names": {
                "type": "boolean",
                "description": "Programs see what earlier ones defined that ended well, as in a notebook; false by default.",
            },
            "consult_cost": {
                "type": "number",
                "minimum": 0,
                "maximum": 1,
                "description": "What each reply takes off the reward of a right answer; 0.1 by default.",
            },
        },
        "additionalProperties": False,
    },
    deterministic=False,  # programs may ask the clock or for random numbers, and their time is measured
    snapshot=True,
    stateless_tools=True,
)

PROMPT = (
    "Solve the problem. You can run Python programs and consult colleagues; give the result with the tool `answer` (or as "
    "\\boxed{...} in a message without tool calls). Only the first answer counts.\n\n"
)
KEEPS = "What a program that ends well defines is there for the next ones, as in a notebook.\n\n"


@dataclass
class _State:
    """All that an episode is, as it stands in snapshots. ``program`` and ``printed`` are of the last run."""

    split: str
    index: int
    seed: int
    acceptance: float
    cost: float
    asked: int = 0
    replies: int = 0
    program: str | None = None
    printed: str = ""
    kept: list[str] | None = None  # programs whose names the next one sees; None if none ever does


class Maths(SyncEnvironment):
    """One problem. It blocks while a program runs, so it lives in a worker."""

    spec = SPEC
    tasks = MathsTasks(SPEC)

    _state: _State
    _problem: Problem

    def reset_sync(self, task: Task, seed: int, options: JsonObject) -> Observation:
        """Begin ``task``; ``seed`` decides which questions colleagues hear. Raises SandboxUnavailable."""
        require_sandbox()
        self._become(
            _State(
                task.split,
                task.index,
                seed,
                float(options.get("consult_acceptance", 1.0)),
                float(options.get("consult_cost", 0.1)),
                kept=[] if options.get("keep_names") else None,
            )
        )
        prompt = PROMPT if self._state.kept is None else PROMPT + KEEPS
        return Observation.say(prompt + task.instruction, state_key=self._key())

    def step_sync(self, action: Action) -> StepResult:
        """Run the action's calls; an ``answer``, or a boxed number in a message without calls, ends the episode."""
        result = self._step(action)
        seen = result.observation.model_copy(update={"state_key": self._key()})
        return result.model_copy(update={"observation": seen})

    def _step(self, action: Action) -> StepResult:
        self._right: bool | None = None
        said = None
        if action.tool_calls:
            turn = BOX.run(action, self._call)
        else:
            turn = ToolTurn()
            given = number(boxed(without_thoughts(action.text)) or "")
            if given is None:
                return StepResult(
                    observation=Observation.say(BOX.usage() + " Without a call, write the answer as \\boxed{...}."),
                    info=StepInfo(action_valid=False, action_effective=False, error="no tool call and no boxed number"),
                )
            self._right = same(given, self._problem.value)
            said = _verdict(self._right)
        if self._right is None:
            return turn.result()
        return StepResult(
            observation=Observation(messages=turn.messages + ([Message(content=said)] if said else [])),
            reward=self._reward(self._right),
            terminated=True,
            info=turn.info(
                action_valid=not turn.answers or all(answer.valid for answer in turn.answers),
                action_effective=True,
                end="solved" if self._right else "failed",
                metrics=self._metrics(self._right),
            ),
        )

    def finish_sync(self, reason: str) -> StepResult:
        """Without an answer there is no reward."""
        return cut_short(reason, metrics=self._metrics(False), words="The episode has ended without an answer")

    def snapshot(self) -> bytes:
        return json.dumps(asdict(self._state), separators=(",", ":")).encode()

    def restore(self, snapshot: bytes) -> None:
        self._become(_State(**json.loads(snapshot)))

    def expert_action(self) -> Action | None:
        """Run the programmer's program, then answer with what it printed."""
        if self._state.program == self._problem.program:
            last = self._state.printed.strip().splitlines()[-1:]
            call = ToolCall(id="answer", name="answer", arguments={"value": "".join(last)})
        else:
            call = ToolCall(id="python", name="python", arguments={"program": self._problem.program})
        return Action(tool_calls=[call])

    def _key(self) -> str:
        """The problem, what the last program printed, which names there are and how far colleagues have told; not how it
        came to that."""
        state = self._state
        plain = json.dumps([state.split, state.index, state.replies, state.printed, *(state.kept or ())])
        return hashlib.sha256(plain.encode()).hexdigest()[:16]

    def _become(self, state: _State) -> None:
        self._state, self._problem = state, problem(state.split, state.index)

    def _call(self, name: str, arguments: JsonObject) -> ToolAnswer:
        match name:
            case "python":
                return self._python(arguments["program"])
            case "consult":
                return self._consult(len(arguments["questions"]))
            case _:
                return self._answer(arguments["value"])

    def _python(self, program: str) -> ToolAnswer:
        state = self._state
        outcome = run_python(program, before=state.kept or ())
        state.program, state.printed = program, outcome.text[-SHOWN:]
        if state.kept is not None and outcome.status == "ok":
            state.kept.append(program)
        return ToolAnswer(
            shown(outcome),
            effective=outcome.status == "ok",
            counts={"python_calls": 1, "python_errors": int(outcome.status != "ok")},
        )

    def _consult(self, questions: int) -> ToolAnswer:
        state, lines, before = self._state, [], self._state.replies
        for place in range(1, questions + 1):
            heard = consult.available(f"{state.split}/{state.index}", state.seed, state.asked, state.acceptance)
            state.asked += 1
            lines.append(f"{place}. {consult.reply(self._problem, state.replies) if heard else consult.UNAVAILABLE}")
            state.replies += heard
        replies = state.replies - before
        return ToolAnswer(
            "\n".join(lines), effective=replies > 0, counts={"expert_calls": questions, "expert_replies": replies}
        )

    def _answer(self, value: str) -> ToolAnswer:
        given = number(value)
        if given is None:
            raise ToolMistake(
                f"{clip(value, 60)!r} is not a number. Write one like 12, -0.5 or 3/4; nothing was answered."
            )
        self._right = same(given, self._problem.value)
        return ToolAnswer(_verdict(self._right), ends=True)

    def _reward(self, right: bool) -> float:
        return max(0.0, 1.0 - self._state.cost * self._state.replies) if right else 0.0

    def _metrics(self, right: bool) -> dict[str, float]:
        return {"success": float(right), "expert_cost": self._state.cost * self._state.replies}


def shown(outcome: Outcome) -> str:
    """What the policy sees of a program: what it printed, cut in the middle, and why it was stopped, if it was."""
    text = outcome.text.rstrip("\n")
    if len(text) > SHOWN:
        half = SHOWN // 2
        text = f"{text[:half]}\n… ({len(text) - 2 * half} characters left out) …\n{text[-half:]}"
    told = outcome.status in ("ok", "error") and text
    return text if told else f"{text}\n[{outcome.detail or 'no output; print what you want to see'}]".lstrip("\n")


def _verdict(right: bool) -> str:
    return "That is right." if right else "That is wrong."
