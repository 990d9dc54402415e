"""What every settings class derives from, and how its errors read.

TOML has no null: in a field that may be None, the string ``"none"`` stands for it, when reading and when writing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import NoneType
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from turnwise_trainer.errors import ConfigError


class Settings(BaseModel):
    """Frozen settings; an unknown field is an error, and so is NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _none_is_spelled(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        return {
            key: None if value == "none" and _optional(cls, key) else value  # type: ignore[redundant-expr, unused-ignore]
            for key, value in data.items()
        }


Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], data: object, prefix: str = "") -> Model:
    """Build ``model`` from parsed TOML. Raises ConfigError, one line; paths in it start with ``prefix``."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_one_line(error, model, prefix)) from None


def plain(settings: BaseModel) -> dict[str, Any]:
    """The settings as TOML values: None becomes ``"none"``, tuples become lists."""
    return {key: _plain(value) for key, value in settings.model_dump(mode="python").items()}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'zeta'?``, or what there is when nothing is close."""
    names = sorted(known)
    close = get_close_matches(word, names, n=2, cutoff=0.6)
    if close:
        return "; did you mean " + " or ".join(repr(name) for name in close) + "?"
    return f"; known: {', '.join(names) or 'none'}"


def _plain(value: Any) -> Any:
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _optional(model: type[BaseModel], key: object) -> bool:
    field = model.model_fields.get(str(key))
    return field is not None and NoneType in get_args(field.annotation)


def _one_line(error: ValidationError, model: type[BaseModel], prefix: str) -> str:
    parts = []
    for problem in error.errors():
        path = ".".join([prefix] * bool(prefix) + [str(part) for part in problem["loc"]])
        kind = problem["type"]
        if kind == "extra_forbidden":
            parts.append(f"{path}: unknown setting{_hint(model, problem['loc'])}")
        elif kind == "missing":
            parts.append(f"{path}: required, but not set")
        elif kind == "value_error":
            parts.append(f"{path}: {problem['ctx']['error']}" if path else str(problem["ctx"]["error"]))
        else:
            message = problem["msg"][:1].lower() + problem["msg"][1:]
            parts.append(f"{path}: {message}, not {problem['input']!r}")
    return "; ".join(parts)


def _hint(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    """Close names at the same level, or else the same name in another section."""
    word = str(loc[-1])
    level = model
    for part in loc[:-1]:
        annotation = level.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return ""
        level = annotation
    if not get_close_matches(word, level.model_fields, cutoff=0.6):
        elsewhere = [path for path in _paths(model) if path.rpartition(".")[2] == word]
        if elsewhere:
            return "; did you mean " + " or ".join(repr(path) for path in elsewhere) + "?"
    return did_you_mean(word, level.model_fields)


def _paths(model: type[BaseModel], prefix: str = "") -> Iterable[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _paths(field.annotation, f"{prefix}{name}.")
