"""What a desk and a task at it consist of: tools; a database, a customer with requests, and how it should end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from turnwise_envs.tools.desk.database import Database
from turnwise_envs.tools_api import Toolbox
from turnwise_envs.types import JsonObject, ToolSpec


class Call(NamedTuple):
    """A tool call of the gold solution."""

    name: str
    arguments: JsonObject

    @property
    def key(self) -> str:
        return json.dumps([self.name, self.arguments], sort_keys=True)


def call(name: str, **arguments: Any) -> Call:
    return Call(name, arguments)


def tool(name: str, description: str, **properties: JsonObject) -> ToolSpec:
    """A tool all of whose arguments are required."""
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return ToolSpec(name=name, description=description, parameters=parameters)


def closing_tools(rules: Iterable[str], topics: Iterable[str]) -> list[ToolSpec]:
    """The last tools of every desk: ``rules`` that forbid something, ``topics`` that a human is for."""
    return [
        tool(
            "refuse",
            "Log that a request was refused, and under which rule.",
            rule={"type": "string", "enum": list(rules)},
        ),
        tool(
            "transfer_to_human",
            "Hand the customer over to a human. Ends the conversation.",
            topic={"type": "string", "enum": list(topics)},
        ),
    ]


class Topic(NamedTuple):
    """Something a desk asks customers about: the words by which they notice, and how the expert puts it."""

    words: tuple[str, ...]
    question: str


@dataclass(frozen=True)
class Request:
    """One thing that the customer wants.

    ``facts`` are sentences by topic, said when asked for. ``about`` is the id that a proposal must name to be agreed to.
    ``plan`` are the gold calls, reads included; ``proposal`` what the expert wants agreement to; ``answers`` are values
    that the customer must be told, in ``tells``. ``plea`` is how the customer insists after a refusal.
    """

    opening: str
    facts: Mapping[str, str]
    plan: tuple[Call, ...]
    about: str = ""
    proposal: str = ""
    answers: tuple[str, ...] = ()
    tells: str = ""
    plea: str = ""


@dataclass(frozen=True)
class Scenario:
    """``identity`` are facts that belong to all requests. ``kinds`` name the requests."""

    db: Database
    identity: Mapping[str, str]
    requests: tuple[Request, ...]
    kinds: tuple[str, ...]

    @property
    def answers(self) -> tuple[str, ...]:
        return tuple(answer for request in self.requests for answer in request.answers)


#: Runs a tool: the database after it, and what the policy is told. Raises ToolMistake.
Run = Callable[[Database, str, JsonObject], tuple[Database, str]]


@dataclass(frozen=True, eq=False)
class Desk:
    """An application: its rules in words, its tools, what its customers can be asked, and its cases.

    Tools in ``writes`` need the customer's agreement; those in ``ends`` end the conversation.
    """

    id: str
    description: str
    policy: str
    box: Toolbox
    run: Run
    writes: frozenset[str]
    topics: Mapping[str, Topic]
    scenario: Callable[[str, int], Scenario]
    splits: Mapping[str, int]
    ends: frozenset[str] = field(default=frozenset({"transfer_to_human"}))

    def gold(self, scenario: Scenario) -> Database:
        """The database as it should be in the end."""
        db = scenario.db
        for request in scenario.requests:
            for step in request.plan:
                db, _ = self.run(db, step.name, step.arguments)
        return db

    @cached_property
    def prompt(self) -> str:
        return (
            f"{self.policy}\n\nA message without tool calls goes to the customer; with tool calls, only the calls are run. "
            "Ask for what you need to know. When a request is dealt with, ask whether there is anything else."
        )
