"""The slots of an objective, the entries that fill them, and presets that name one entry for each slot.

An entry is a pure function with its own settings class::

    class Rloo(Settings):
        scale: float = Field(default=1.0, description="Multiplies the advantage.")

    @entry("advantage", "rloo")
    def rloo(view: BatchView, reward_S: Floats, settings: Rloo) -> Floats: ...

    PRESET = Preset(name="rloo", summary="Leave-one-out baseline.", advantage="rloo")

``catalog.py`` finds entries and presets; ``objective.py`` runs a composition.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

from turnwise_agent.probing import AnswerProbe
from turnwise_trainer.errors import ObjectiveError
from turnwise_trainer.losses import LossSettings
from turnwise_trainer.settings import Settings

Slot = Literal["sampling", "rewards", "advantage", "modulators", "loss", "regularizers", "select"]
SLOTS: tuple[Slot, ...] = get_args(Slot)

#: Slots that hold a list of entries; the others hold exactly one.
LIST_SLOTS: frozenset[Slot] = frozenset({"rewards", "modulators", "regularizers", "select"})

#: What a function of each slot takes, by position, and what it returns.
SIGNATURES: Mapping[Slot, tuple[tuple[str, ...], str]] = {
    "sampling": (("settings",), "BranchRule | None (None: independent episodes)"),
    "rewards": (("view", "settings"), "[S] reward of each turn row"),
    "advantage": (("view", "reward_S", "settings"), "[S] or [K] advantage"),
    "modulators": (("view", "advantage_K", "settings"), "[K] advantage"),
    "loss": (("inputs", "settings"), "LossTerm"),
    "regularizers": (("inputs", "settings"), "LossTerm"),
    "select": (("view", "reward_S", "settings"), "[G] bool, True for groups that are trained on"),
}


@dataclass(frozen=True)
class Entry:
    """A function that can fill a slot.

    ``needs_entropy`` and ``needs_reference`` tell the learner to compute ``LossInputs.entropy_U`` and ``ref_logp_U``;
    ``probe`` makes of the settings what the rollout engine measures as ``Turn.answer_logprobs``.
    """

    slot: Slot
    name: str
    function: Callable[..., Any]
    settings: type[Settings]
    needs_entropy: bool = False
    needs_reference: bool = False
    probe: Callable[[Any], AnswerProbe] | None = None

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.function) or ""


@dataclass(frozen=True)
class Use:
    """An entry's name and the settings that differ from its defaults."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def use(name: str, **settings: Any) -> Use:
    """``use("clip", dual_clip=3.0)``: an entry with some settings changed, for a preset."""
    return Use(name, settings)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named composition. What is not given is GRPO's. A plain string is an entry with its default settings."""

    name: str
    summary: str
    sampling: str | Use = "independent"
    rewards: tuple[str | Use, ...] = ("env",)
    advantage: str | Use = "grpo"
    modulators: tuple[str | Use, ...] = ()
    loss: str | Use = "clip"
    regularizers: tuple[str | Use, ...] = ()
    select: tuple[str | Use, ...] = ()

    def uses(self, slot: Slot) -> tuple[Use, ...]:
        """The entries of a slot; exactly one unless it is a list slot."""
        value = getattr(self, slot)
        items = value if slot in LIST_SLOTS else (value,)
        return tuple(Use(item) if isinstance(item, str) else item for item in items)


Function = TypeVar("Function", bound=Callable[..., Any])

_entries: dict[tuple[Slot, str], Entry] = {}


def entry(
    slot: Slot,
    name: str,
    *,
    settings: type[Settings] | None = None,
    needs_entropy: bool = False,
    needs_reference: bool = False,
    probe: Callable[[Any], AnswerProbe] | None = None,
) -> Callable[[Function], Function]:
    """Register a function as an entry of ``slot``. The settings class is read from the annotation of ``settings``.

    Raises:
        ObjectiveError: another entry of the slot has this name, or the function does not fit the slot.
    """

    def register(function: Function) -> Function:
        made = make_entry(slot, name, function, settings, needs_entropy, needs_reference, probe)
        known = _entries.get((slot, name))
        if known is not None and _origin(known.function) != _origin(function):
            raise ObjectiveError(f"{slot} already has an entry {name!r}: {'.'.join(_origin(known.function))}")
        _entries[slot, name] = made
        return function

    return register


def registered(slot: Slot) -> dict[str, Entry]:
    """The entries of a slot in modules that are imported, by name. ``catalog.entries`` imports them first."""
    return {name: made for (where, name), made in _entries.items() if where == slot}


def make_entry(
    slot: Slot,
    name: str,
    function: Callable[..., Any],
    settings: type[Settings] | None = None,
    needs_entropy: bool = False,
    needs_reference: bool = False,
    probe: Callable[[Any], AnswerProbe] | None = None,
) -> Entry:
    """Check that a function fits the slot and wrap it, without registering it. Raises ObjectiveError."""
    if slot not in SLOTS:
        raise ObjectiveError(f"no slot {slot!r}; slots: {', '.join(SLOTS)}")
    where = f"{slot} entry {name!r}"
    names, _ = SIGNATURES[slot]
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) != len(names):
        raise ObjectiveError(f"{where} must take ({', '.join(names)}), not {inspect.signature(function)}")
    found = settings or _settings_class(function, parameters[-1].annotation)
    base = LossSettings if slot == "loss" else Settings
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ObjectiveError(
            f"{where}: annotate its last parameter with a subclass of {base.__name__}, or pass settings= to @entry"
        )
    if "name" in found.model_fields:
        raise ObjectiveError(f"{where}: a setting cannot be called 'name', which chooses the entry")
    bare = [key for key, info in found.model_fields.items() if not info.description]
    if bare:
        raise ObjectiveError(f"{where}: say what its settings mean with Field(description=...): {', '.join(bare)}")
    return Entry(slot, name, function, found, needs_entropy, needs_reference, probe)


def _settings_class(function: Callable[..., Any], annotation: object) -> object:
    """The class behind an annotation; under postponed evaluation it is the name of a global of its module."""
    if isinstance(annotation, str):
        return getattr(function, "__globals__", {}).get(annotation)
    return annotation


def _origin(function: Callable[..., Any]) -> tuple[str, str]:
    return (function.__module__, function.__qualname__)
