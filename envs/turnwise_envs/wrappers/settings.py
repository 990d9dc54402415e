"""What can be wrapped around an environment, as the session's option ``wrappers`` says it.

One class is one wrapper and one property of the option; its JSON Schema is made from its fields. The stochastic ones
follow the taxonomy of STORI (Barsainyan et al. 2025, arXiv 2509.01793), whose numbers stand in the docstrings.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from turnwise_envs.types import JsonObject, Noun

Probability = Annotated[float, Field(gt=0, le=1)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class StickyActions(Noun):
    """Instead of this action, the one that was taken last is taken again (STORI 1: depends on the action)."""

    probability: Probability = 0.25


class FailingActions(Noun):
    """The action fails: nothing happens, and the policy is told so (STORI 1)."""

    probability: Probability = 0.1


class RandomActions(Noun):
    """Instead of this action, an admissible one is taken at random (STORI 1)."""

    probability: Probability = 0.1


class Interference(Noun):
    """After this action an admissible one is taken at random, unseen (STORI 2.1: does not depend on the action)."""

    probability: Probability = 0.1


class Drift(Noun):
    """When the stochastic wrappers beside this one are at work (STORI 2.2: concept drift).

    ``sudden``: from turn ``turns`` on. ``cyclic``: ``turns`` turns without, as many with, and so on. ``gradual``: their
    probabilities grow from 0 to what they are at turn ``turns``.
    """

    turns: int = Field(default=5, ge=1)
    mode: Literal["sudden", "cyclic", "gradual"] = "sudden"


class NoisyObservations(Noun):
    """A letter or digit of a word is wrong (STORI 3.1: another representation); ``probability`` of each word."""

    probability: Probability = 0.05


class MissingObservations(Noun):
    """Words, or whole messages, cannot be made out (STORI 3.2: missing state); ``probability`` of each ``unit``."""

    probability: Probability = 0.1
    unit: Literal["word", "message"] = "message"


class TurnBudget(Noun):
    """So many turns, then the state is scored as it is; ``show`` tells the policy how many are left."""

    turns: int = Field(ge=1)
    show: bool = True


class CostBudget(Noun):
    """What turns and tool calls cost; when ``limit`` is spent, the state is scored as it is.

    ``tools`` has prices of its own for tools by name. Calls in tags cost ``per_tool_call``, as the environment counts those
    that it runs (``info.counters["tool_calls"]``). ``weight`` is what a unit of cost takes from the reward, ``show``
    tells the policy what is spent. ``info.metrics["spent"]`` is all that was spent so far.
    """

    limit: float = Field(gt=0, allow_inf_nan=False)
    per_turn: Price = 1.0
    per_tool_call: Price = 0.0
    tools: dict[str, Price] = Field(default_factory=dict)
    weight: Price = 0.0
    show: bool = True


class Help(Noun):
    """The action ``hint`` shows what an expert would do now. It takes ``cost`` from the reward, and takes the turn."""

    cost: Price = 0.1
    limit: int = Field(default=3, ge=1)


class Wrappers(Noun):
    """All of them; None is not there."""

    sticky_actions: StickyActions | None = None
    failing_actions: FailingActions | None = None
    random_actions: RandomActions | None = None
    interference: Interference | None = None
    noisy_observations: NoisyObservations | None = None
    missing_observations: MissingObservations | None = None
    drift: Drift | None = None
    turn_budget: TurnBudget | None = None
    cost_budget: CostBudget | None = None
    help: Help | None = None

    @property
    def disturbs(self) -> bool:
        """Whether chance may take, change or add actions."""
        return any(getattr(self, name) is not None for name in DISTURBING)


KINDS: dict[str, type[Noun]] = {
    "sticky_actions": StickyActions,
    "failing_actions": FailingActions,
    "random_actions": RandomActions,
    "interference": Interference,
    "noisy_observations": NoisyObservations,
    "missing_observations": MissingObservations,
    "drift": Drift,
    "turn_budget": TurnBudget,
    "cost_budget": CostBudget,
    "help": Help,
}

#: Those that chance decides about; drift has them come and go.
STOCHASTIC = tuple(KINDS)[:6]
#: Those that take, change or add actions.
DISTURBING = STOCHASTIC[:4]
#: Those that choose among the admissible actions.
CHOOSING = ("random_actions", "interference")


def schema() -> JsonObject:
    """JSON Schema of the option ``wrappers``."""
    return {
        "type": "object",
        "description": "What is wrapped around the environment: noise, budgets and help, by name.",
        "properties": {name: _schema(kind) for name, kind in KINDS.items()},
        "additionalProperties": False,
        # Drift of nothing would do nothing.
        "dependentSchemas": {"drift": {"anyOf": [{"required": [name]} for name in STOCHASTIC]}},
    }


def _schema(kind: type[Noun]) -> JsonObject:
    found = kind.model_json_schema()
    found.pop("title")
    found["description"] = " ".join(found["description"].split())
    found["properties"] = {name: _plain(each) for name, each in found["properties"].items()}
    return found


def _plain(field: Any) -> Any:
    return {key: value for key, value in field.items() if key != "title"}
