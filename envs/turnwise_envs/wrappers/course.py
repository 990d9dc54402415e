"""The course of a wrapped episode: what the wrappers do with each action and each answer.

It does no I/O. ``step`` and ``finish`` are generators that yield what the environment inside has to do, an
:class:`~turnwise_envs.types.Action` to take or the reason of a ``finish``, are sent its StepResult, and return the
result that the policy gets; so blocking environments and others are driven by the same code. What chance decides is a
function of the task, the seed, the turn and the wrapper's name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass

from turnwise_envs.actions import last_line
from turnwise_envs.dice import Dice
from turnwise_envs.errors import InvalidOptions
from turnwise_envs.types import Action, JsonObject, Message, Observation, StepInfo, StepResult
from turnwise_envs.wrappers.noise import MISSING_MESSAGE, concealed, garbled
from turnwise_envs.wrappers.settings import CHOOSING, Drift, Wrappers

Script = Generator[Action | str, StepResult, StepResult]

HINT = "hint"
FAILED = "The action failed; nothing happened."
NO_EXPERT = "There is no expert here, or the expert believes that it is done."
NO_MORE_HINTS = "There are no hints left."
NO_RESULT = "No result."


@dataclass
class Progress:
    """All that changes in a course: turns taken, what the policy saw last, what was counted."""

    turn: int = 0
    previous: JsonObject | None = None  # the action that was really taken last
    admissible: list[str] | None = None
    state_key: str | None = None
    disturbances: int = 0
    hints: int = 0
    spent: float = 0.0


class Course:
    """One episode of ``wrappers``. ``expert`` is the environment's own, asked for hints."""

    def __init__(
        self,
        wrappers: Wrappers,
        task_id: str,
        seed: int,
        expert: Callable[[], Action | None],
        progress: Progress | None = None,
    ) -> None:
        self.wrappers = wrappers
        self.progress = progress or Progress()
        self._names = (task_id, seed)
        self._expert = expert

    def dump(self) -> JsonObject:
        """What changes, as JSON; a course is made again with ``Progress(**dump)``."""
        return asdict(self.progress)

    def open(self, first: Observation) -> Observation:
        """The first observation as the policy sees it: whole, with the rules of help and budgets.

        Raises InvalidOptions for wrappers that choose among admissible actions where none are listed.
        """
        for name in CHOOSING:
            if getattr(self.wrappers, name) is not None and not first.admissible_actions:
                raise InvalidOptions(
                    f"wrappers/{name} chooses among the admissible actions, and this environment lists none"
                )
        return self._seen(_with_lines(first, [*self._terms(), *self._left()]))

    def step(self, action: Action) -> Script:
        """Take ``action``, as far as chance lets it."""
        progress = self.progress
        if self.wrappers.help is not None and _asks(action):
            result = self._hint(action, self.wrappers.help.cost, self.wrappers.help.limit)
        else:
            result = yield from self._act(action)
            result = result.model_copy(update={"observation": self._blurred(result.observation)})
        cost = self._cost(action, result.info)
        progress.turn += 1
        progress.spent += cost
        if self.wrappers.cost_budget is not None and cost:
            result = result.model_copy(update={"reward": result.reward - cost * self.wrappers.cost_budget.weight})
        if not result.done and (reason := self._exhausted()) is not None:
            result = _scored(result, (yield reason), reason)
        shown = result.observation if result.done else _with_lines(result.observation, self._left())
        return result.model_copy(update={"observation": self._seen(shown), "info": self._account(result.info)})

    def finish(self, reason: str) -> Script:
        """Score the state as it is; what was spent and asked for is reported."""
        result = yield reason
        return result.model_copy(update={"info": self._account(result.info)})

    def _act(self, action: Action) -> Script:
        """The action that is really taken, and what happens besides."""
        progress, wrappers = self.progress, self.wrappers
        taken: Action | None = action
        if self._happens("failing_actions"):
            taken = None
        elif self._happens("random_actions") and progress.admissible:
            taken = Action(text=self._dice("random_actions/which").pick(progress.admissible))
        elif self._happens("sticky_actions") and progress.previous is not None:
            taken = Action.model_validate(progress.previous)
        progress.disturbances += taken is not action
        if taken is None:
            result = self._failed(action)
        else:
            result = yield taken
            if wrappers.sticky_actions is not None:
                progress.previous = taken.model_dump()
            if taken is not action:
                result = result.model_copy(update={"observation": _readdressed(result.observation, action)})
        admissible = result.observation.admissible_actions
        if not result.done and admissible and self._happens("interference"):
            progress.disturbances += 1
            unseen = yield Action(text=self._dice("interference/which").pick(admissible))
            result = _after(result, unseen)
        return result

    def _happens(self, name: str) -> bool:
        settings = getattr(self.wrappers, name)
        return settings is not None and self._dice(name).chance(settings.probability * self._strength())

    def _strength(self) -> float:
        return strength(self.wrappers.drift, self.progress.turn)

    def _dice(self, name: str) -> Dice:
        return Dice("wrappers", name, *self._names, self.progress.turn)

    def _failed(self, action: Action) -> StepResult:
        messages = [Message(role="tool", content=FAILED, tool_call_id=call.id) for call in action.tool_calls]
        return StepResult(
            observation=self._same(messages or [Message(content=FAILED)]), info=StepInfo(action_effective=False)
        )

    def _hint(self, action: Action, cost: float, limit: int) -> StepResult:
        progress = self.progress
        expert = None if progress.hints == limit else self._expert()
        if expert is None:
            said, cost = NO_MORE_HINTS if progress.hints == limit else NO_EXPERT, 0.0
        else:
            progress.hints += 1
            said = f"An expert would do this:\n{_words(expert)}"
        messages = [Message(role="tool", content=said, tool_call_id=call.id) for call in action.tool_calls]
        return StepResult(
            observation=self._same(messages or [Message(content=said)]),
            reward=-cost,
            info=StepInfo(action_effective=False),
        )

    def _same(self, messages: list[Message]) -> Observation:
        """An observation of a state that has not changed."""
        return Observation(
            messages=messages, state_key=self.progress.state_key, admissible_actions=self.progress.admissible
        )

    def _seen(self, observation: Observation) -> Observation:
        """Remember what the next turn needs of it; with help, asking for it is one of the actions."""
        admissible = observation.admissible_actions
        self.progress.admissible, self.progress.state_key = admissible, observation.state_key
        if self.wrappers.help is None or admissible is None:
            return observation
        return observation.model_copy(update={"admissible_actions": [*admissible, HINT]})

    def _blurred(self, observation: Observation) -> Observation:
        noisy, missing = self.wrappers.noisy_observations, self.wrappers.missing_observations
        if noisy is None and missing is None:
            return observation
        dice = self._dice("observations")
        messages = list(observation.messages)
        # A rewritten context is the whole prompt: only what is new in it, at its end, can be blurred.
        for at in range(len(messages) - 1 if observation.context == "replace" else 0, len(messages)):
            said = messages[at].content
            if noisy is not None:
                said = garbled(said, noisy.probability * self._strength(), dice)
            if missing is not None:
                probability = missing.probability * self._strength()
                if missing.unit == "word":
                    said = concealed(said, probability, dice)
                elif dice.chance(probability):
                    said = MISSING_MESSAGE
            messages[at] = messages[at].model_copy(update={"content": said})
        return observation.model_copy(update={"messages": messages})

    def _cost(self, action: Action, info: StepInfo) -> float:
        """What this turn costs in the cost budget's units. Calls written as tags have no names here, only a number."""
        budget = self.wrappers.cost_budget
        if budget is None:
            return 0.0
        if not action.tool_calls:
            return budget.per_turn + budget.per_tool_call * info.counters.get("tool_calls", 0)
        return budget.per_turn + sum(budget.tools.get(call.name, budget.per_tool_call) for call in action.tool_calls)

    def _exhausted(self) -> str | None:
        """Why the episode ends now."""
        turns, cost = self.wrappers.turn_budget, self.wrappers.cost_budget
        if turns is not None and self.progress.turn >= turns.turns:
            return "max_turns"
        return "cost_budget" if cost is not None and self.progress.spent >= cost.limit else None

    def _terms(self) -> list[str]:
        """What the policy has to know from the start."""
        terms = []
        cost, help_ = self.wrappers.cost_budget, self.wrappers.help
        if cost is not None and cost.show:
            prices = {"a turn": cost.per_turn, "a tool call": cost.per_tool_call, **cost.tools}
            told = ", ".join(f"{what} costs {price:g}" for what, price in prices.items() if price)
            terms.append(f"Your budget is {cost.limit:g}: {told}.")
        if help_ is not None:
            terms.append(
                f'The action "{HINT}" shows what an expert would do now. '
                f"It takes {help_.cost:g} from your reward, and you have {help_.limit}."
            )
        return terms

    def _left(self) -> list[str]:
        """The state of the budgets, as the policy reads it."""
        turns, cost = self.wrappers.turn_budget, self.wrappers.cost_budget
        left = []
        if turns is not None and turns.show:
            left.append(f"[turns left: {turns.turns - self.progress.turn}]")
        if cost is not None and cost.show:
            left.append(f"[spent: {self.progress.spent:g} of {cost.limit:g}]")
        return left

    def _account(self, info: StepInfo) -> StepInfo:
        """The step's facts, and those of the wrappers that are on."""
        progress, wrappers = self.progress, self.wrappers
        counters = {"disturbances": progress.disturbances} if wrappers.disturbs else {}
        if wrappers.help is not None:
            counters["hints"] = progress.hints
        metrics = {"spent": progress.spent} if wrappers.cost_budget is not None else {}
        return info.model_copy(
            update={"counters": {**info.counters, **counters}, "metrics": {**info.metrics, **metrics}}
        )


def strength(drift: Drift | None, turn: int) -> float:
    """Share of their probabilities that the stochastic wrappers have at ``turn``, 0 to 1."""
    if drift is None:
        return 1.0
    if drift.mode == "gradual":
        return min(1.0, turn / drift.turns)
    periods = turn // drift.turns
    return float(periods % 2 if drift.mode == "cyclic" else periods > 0)


def _asks(action: Action) -> bool:
    """In words, or by a call of a tool of that name alone."""
    if action.tool_calls:
        return [call.name for call in action.tool_calls] == [HINT]
    return last_line(action.text).lower() == HINT


def _words(action: Action) -> str:
    calls = [f"{call.name} {json.dumps(call.arguments, ensure_ascii=False)}" for call in action.tool_calls]
    return "\n".join(filter(None, [action.text, *calls]))


def _with_lines(observation: Observation, lines: list[str]) -> Observation:
    """The lines at the end of the last message."""
    if not lines:
        return observation
    *before, last = observation.messages
    content = "\n\n".join(filter(None, [last.content, "\n".join(lines)]))
    return observation.model_copy(update={"messages": [*before, last.model_copy(update={"content": content})]})


def _readdressed(observation: Observation, given: Action) -> Observation:
    """The answer to another action, as one to ``given``: each of its calls gets one tool message, in order."""
    if observation.context == "replace":
        return observation
    calls = given.tool_calls
    if not calls:
        messages = [
            Message(role="user" if m.role == "tool" else m.role, content=m.content) for m in observation.messages
        ]
        return observation.model_copy(update={"messages": messages})
    said = [message.content for message in observation.messages]
    texts = [*said[: len(calls) - 1], "\n".join(said[len(calls) - 1 :])]
    answers = [
        Message(role="tool", content=texts[at] if at < len(texts) and texts[at] else NO_RESULT, tool_call_id=call.id)
        for at, call in enumerate(calls)
    ]
    return observation.model_copy(update={"messages": answers})


def _after(seen: StepResult, unseen: StepResult) -> StepResult:
    """The policy reads what its own action did, in the state that the unseen one left; how it ended it is told."""
    told = seen.observation.messages if not unseen.done else [*seen.observation.messages, *unseen.observation.messages]
    update = {} if unseen.observation.context == "replace" else {"messages": told, "context": seen.observation.context}
    info = unseen.info.model_copy(
        update={
            "action_valid": seen.info.action_valid,
            "action_effective": seen.info.action_effective,
            "error": seen.info.error,
        }
    )
    observation = unseen.observation.model_copy(update=update)
    return unseen.model_copy(update={"observation": observation, "reward": seen.reward + unseen.reward, "info": info})


def _scored(last: StepResult, score: StepResult, reason: str) -> StepResult:
    """The last turn shows its own observation and carries the final score."""
    info = score.info.model_copy(
        update={
            "action_valid": last.info.action_valid,
            "action_effective": last.info.action_effective,
            "error": last.info.error,
            "end": reason if reason == "max_turns" else f"finished:{reason}",
        }
    )
    return StepResult(observation=last.observation, reward=last.reward + score.reward, truncated=True, info=info)
