"""Python functions as tools: typed, docstringed functions, tasks and a scorer are an environment.

An environment in full::

    @tool
    def rate(currency: str, day: date) -> float:
        '''Exchange rate to the euro.

        Args:
            currency: Three letters, such as SEK.
        '''
        return RATES[currency][day]

    class Money(FunctionEnvironment, id="money", tools=[rate], tasks="tasks.jsonl"):
        '''Questions about exchange rates.'''

``turnwise serve mymodule:Money`` serves it. ``tasks`` is a file or a list of what :mod:`.errands` reads. Arguments are
checked against the JSON Schema that pydantic makes of the annotations, and converted. A parameter called ``state`` is
no argument: it is given ``self.state``, which :meth:`FunctionEnvironment.begin` makes for each episode.

What a tool returns is the answer: a ``str`` as it is, anything else as JSON. A tool says what the policy did wrong by
raising :class:`ToolMistake`; ValueError, LookupError and ArithmeticError are taken for that too. Anything else is a
fault of the environment. The functions must be deterministic, or the class says ``deterministic=False``.
"""

from __future__ import annotations

import importlib
import inspect
import json
import random
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, PydanticSchemaGenerationError, ValidationError, create_model
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import to_jsonable_python

from turnwise_envs.adapters import adapter
from turnwise_envs.environment import Environment, SyncEnvironment, TaskSet
from turnwise_envs.plugins.errands import (
    ANSWER,
    ANSWER_TOOL,
    Errand,
    Errands,
    Progress,
    as_errands,
    score_of,
    spec_of,
)
from turnwise_envs.tools_api import ToolAnswer, Toolbox, ToolMistake, clip
from turnwise_envs.types import Action, EnvSpec, JsonObject, Observation, Reference, StepResult, Task, ToolSpec

#: The parameter that is given the episode's state.
STATE = "state"
#: Longest answer of a tool, in characters.
MAX_ANSWER = 20_000

#: What Python functions raise about what they were given, rather than about themselves.
_MISTAKES = (ToolMistake, ValueError, LookupError, ArithmeticError)


@dataclass(frozen=True)
class FunctionTool:
    """A function as a tool. Calling it calls the function."""

    function: Callable[..., Any]
    spec: ToolSpec
    arguments: type[BaseModel]
    takes_state: bool

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def run(self, state: Any, arguments: JsonObject) -> ToolAnswer:
        """Call the function as a policy. Raises ToolMistake, or whatever is wrong with the function."""
        try:
            model = self.arguments.model_validate(arguments)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ToolMistake(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        given = {name: getattr(model, name) for name in type(model).model_fields if name in model.model_fields_set}
        try:
            result = self.function(**({STATE: state} if self.takes_state else {}), **given)
        except ToolMistake:
            raise
        except _MISTAKES as error:
            raise ToolMistake(clip(f"{type(error).__name__}: {error}", 500)) from error
        return ToolAnswer(clip(_text(result), MAX_ANSWER))


def tool(function: Callable[..., Any]) -> FunctionTool:
    """Make a tool of a function: its name, its docstring, and a JSON Schema of its annotations.

    Raises TypeError for what has no schema: a parameter without annotation, ``*args``, a coroutine function.
    """
    name = function.__name__
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"tool {name}: a coroutine function; write a plain one, it runs in a thread of its own")
    text, about = _docstring(function)
    if not text:
        raise TypeError(f"tool {name} has no docstring: the policy reads it")
    parameters = inspect.signature(function).parameters
    arguments = _arguments(function, [one for one in parameters.values() if one.name != STATE], about)
    try:
        schema = arguments.model_json_schema(schema_generator=_Untitled)
    except PydanticInvalidForJsonSchema as error:
        raise TypeError(f"tool {name}: {error.message}") from error
    schema.pop("title", None)
    return FunctionTool(
        function, ToolSpec(name=name, description=text, parameters=schema), arguments, STATE in parameters
    )


class FunctionEnvironment(SyncEnvironment):
    """An environment of tools and errands; see the module. Subclass it with keywords:

    ``id``, ``tools`` (made by :func:`tool`, or plain functions), ``tasks`` (a file or a list), and if needed
    ``max_turns``, ``version`` and ``deterministic``. Raises TypeError and BadTasks when the class is made.
    """

    spec: ClassVar[EnvSpec]
    tasks: ClassVar[TaskSet]
    #: Made anew by :meth:`begin` for every episode.
    state: Any = None

    _tools: ClassVar[dict[str, FunctionTool]]
    _box: ClassVar[Toolbox]
    _progress: Progress

    def __init_subclass__(
        cls,
        *,
        id: str | None = None,
        tools: Sequence[FunctionTool | Callable[..., Any]] = (),
        tasks: Path | str | Sequence[JsonObject | Errand] = (),
        max_turns: int = 20,
        version: str = "1",
        deterministic: bool = True,
        **more: Any,
    ) -> None:
        super().__init_subclass__(**more)
        if id is None:  # a subclass that only overrides methods
            return
        made = [one if isinstance(one, FunctionTool) else tool(one) for one in tools]
        if any(one.spec.name == ANSWER for one in made):
            raise TypeError(f"{cls.__name__}: {ANSWER!r} is the tool that ends an episode; rename yours")
        errands = as_errands(tasks)
        cls._tools = {one.spec.name: one for one in made}
        cls._box = Toolbox([*(one.spec for one in made), ANSWER_TOOL])
        about = inspect.cleandoc(cls.__doc__ or "").partition("\n")[0]
        cls.spec = spec_of(
            id, about, cls._box, errands, version=version, max_turns=max_turns, deterministic=deterministic
        )
        cls.tasks = Errands(cls.spec, errands)

    def begin(self, task: Task, rng: random.Random) -> Any:
        """The state of a fresh episode; ``rng`` is for what is random after the start, and may be kept."""
        return None

    def score(
        self, reference: Reference, answer: str | None, calls: Sequence[tuple[str, JsonObject]]
    ) -> tuple[float, dict[str, float]]:
        """Reward and metrics at the end; ``answer`` is None when none was given, ``calls`` are those that succeeded.

        By default as the task's ``answers``, ``scorer`` and ``calls`` say. ``self.state`` is there to be looked at.
        """
        return score_of(reference, answer, calls)

    def reset_sync(self, task: Task, seed: int, options: JsonObject) -> Observation:
        self._progress = Progress(task, type(self).tasks.reference, self._box.usage(), self.score)
        self.state = self.begin(task, random.Random(f"{task.id}/{seed}"))
        return self._progress.prompt()

    def step_sync(self, action: Action) -> StepResult:
        return self._progress.step(self._box.run(action, self._call))

    def finish_sync(self, reason: str) -> StepResult:
        return self._progress.finish(reason)

    def expert_action(self) -> Action | None:
        return self._progress.expert()

    def _call(self, name: str, arguments: JsonObject) -> ToolAnswer:
        if name == ANSWER:
            return self._progress.answer(arguments)
        answer = self._tools[name].run(self.state, arguments)
        self._progress.made(name, arguments)
        return answer


@adapter
def functions(module: str, *, tasks: Path, max_turns: int = 20, deterministic: bool = True) -> type[Environment]:
    """All ``@tool`` functions of a module, with a file of tasks: ``turnwise serve functions:my.tools --tasks t.jsonl``."""
    found = [one for one in vars(importlib.import_module(module)).values() if isinstance(one, FunctionTool)]
    if not found:
        raise TypeError(f"module {module} has no @tool functions")

    class Functions(
        FunctionEnvironment,
        id=f"functions:{module}",
        tools=found,
        tasks=tasks,
        max_turns=max_turns,
        deterministic=deterministic,
    ):
        pass

    return Functions


class _Untitled(GenerateJsonSchema):
    """Without the title that repeats a field's name: a policy pays for every token."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _arguments(
    function: Callable[..., Any], parameters: Sequence[inspect.Parameter], about: dict[str, str]
) -> type[BaseModel]:
    name = function.__name__
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise TypeError(f"tool {name}: an annotation cannot be read: {error}") from error
    fields: dict[str, Any] = {}
    for one in parameters:
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD, one.POSITIONAL_ONLY):
            raise TypeError(f"tool {name}: parameter {one.name!r} cannot be named in a call")
        if one.name not in hints:
            raise TypeError(f"tool {name}: parameter {one.name!r} has no annotation")
        if one.name.startswith("_"):
            raise TypeError(f"tool {name}: parameter {one.name!r} begins with an underscore")
        default = ... if one.default is one.empty else one.default
        described = Field(default, description=about[one.name]) if one.name in about else default
        fields[one.name] = (hints[one.name], described)
    try:
        return create_model(name, __config__=ConfigDict(extra="forbid", protected_namespaces=()), **fields)
    except PydanticSchemaGenerationError as error:
        raise TypeError(f"tool {name}: {error.message.splitlines()[0]}") from error


def _docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """The docstring without its ``Args`` section, and what that says of each parameter (Google's style)."""
    text, _, section = inspect.cleandoc(function.__doc__ or "").partition("\nArgs:\n")
    indented = re.match(r"(?:[ \t]+.*\n?|\n)*", section)
    lines = textwrap.dedent(indented[0]) if indented else ""
    rest = section[indented.end() :].strip() if indented else ""
    about = {
        found[1]: " ".join(found[2].split())
        for found in re.finditer(r"^(\w+)(?: *\([^)]*\))?: *(.*(?:\n[ \t]+.*)*)", lines, re.MULTILINE)
    }
    return "\n\n".join(filter(None, (text.strip(), rest))), about


def _text(result: Any) -> str:
    if isinstance(result, str):
        return result
    return json.dumps(to_jsonable_python(result), ensure_ascii=False)
