"""From what a configuration says about the objective to a resolved composition, and back.

What it may say::

    objective = "empg"                      # a preset

    [objective]                             # a preset with changes
    preset = "grpo"                         # grpo when not said
    modulators = ["empg"]                   # a list replaces the preset's list
    [objective.advantage]                   # a table changes settings of the preset's entry ...
    std = "none"
    [objective.loss]                        # ... or replaces it when it has a name
    name = "clip"
    [objective.rewards.env]                 # list slots by entry name: changes it, or adds it
    weight = 2.0
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from turnwise_trainer import catalog
from turnwise_trainer.errors import ConfigError
from turnwise_trainer.losses import LossSettings
from turnwise_trainer.settings import Settings, did_you_mean, plain, validate
from turnwise_trainer.slots import LIST_SLOTS, SLOTS, Entry, Slot, Use


@dataclass(frozen=True)
class Bound:
    """An entry with its settings. ``name`` is how the configuration calls it: the entry's name or an import path."""

    name: str
    entry: Entry
    settings: Settings


@dataclass(frozen=True)
class ObjectiveSpec:
    """A resolved composition. Two are equal when the same functions run with the same settings."""

    preset: str
    sampling: Bound
    rewards: tuple[Bound, ...]
    advantage: Bound
    modulators: tuple[Bound, ...]
    loss: Bound
    regularizers: tuple[Bound, ...]
    select: tuple[Bound, ...]

    @classmethod
    def parse(cls, raw: object) -> ObjectiveSpec:
        """Resolve what a configuration says (see the module docstring).

        Raises:
            ConfigError: an unknown preset, slot, entry or setting, or a value that does not fit.
        """
        if isinstance(raw, ObjectiveSpec):
            return raw
        table = {"preset": raw} if isinstance(raw, str) else raw
        if not isinstance(table, Mapping):
            raise ConfigError(f"objective: the name of a preset or a table, not {raw!r}")
        for key in table:
            if key != "preset" and key not in SLOTS:
                raise ConfigError(f"objective.{key}: unknown slot{did_you_mean(key, ('preset', *SLOTS))}")
        name = table.get("preset", "grpo")
        if not isinstance(name, str):
            raise ConfigError(f"objective.preset: the name of a preset, not {name!r}")
        preset = catalog.find_preset(name)
        bound: dict[str, Any] = {}
        for slot in SLOTS:
            uses = preset.uses(slot)
            if slot in table:
                uses = (
                    _listed(slot, uses, table[slot]) if slot in LIST_SLOTS else (_single(slot, uses[0], table[slot]),)
                )
            entries = tuple(_bind(slot, use) for use in uses)
            bound[slot] = entries if slot in LIST_SLOTS else entries[0]
        if not bound["rewards"]:
            raise ConfigError("objective.rewards: at least one entry is needed")
        return cls(preset=name, **bound)

    def of(self, slot: Slot) -> tuple[Bound, ...]:
        """The entries of a slot, whether it holds one or a list."""
        value: Bound | tuple[Bound, ...] = getattr(self, slot)
        return value if isinstance(value, tuple) else (value,)

    @property
    def loss_settings(self) -> LossSettings:
        assert isinstance(self.loss.settings, LossSettings)  # make_entry checks the class
        return self.loss.settings

    def table(self) -> dict[str, Any]:
        """Everything, defaults included, as TOML values that ``parse`` reads back to an equal spec."""
        written: dict[str, Any] = {"preset": self.preset}
        for slot in SLOTS:
            tables = [{"name": bound.name, **plain(bound.settings)} for bound in self.of(slot)]
            written[slot] = tables if slot in LIST_SLOTS else tables[0]
        return written


def _single(slot: Slot, default: Use, said: object) -> Use:
    if isinstance(said, str):
        return Use(said)
    if not isinstance(said, Mapping):
        raise ConfigError(f"objective.{slot}: the name of an entry or a table, not {said!r}")
    return _named(slot, said) if "name" in said else Use(default.name, {**default.settings, **said})


def _listed(slot: Slot, defaults: tuple[Use, ...], said: object) -> tuple[Use, ...]:
    if isinstance(said, (list, tuple)):
        uses = [Use(item) if isinstance(item, str) else _named(slot, item) for item in said]
    elif isinstance(said, Mapping):
        merged = {use.name: use for use in defaults}
        for name, settings in said.items():
            if not isinstance(settings, Mapping):
                raise ConfigError(
                    f"objective.{slot}.{name}: a table of settings, not {settings!r}; "
                    f"to choose entries write {slot} = [{name!r}]"
                )
            before = merged[name].settings if name in merged else {}
            merged[name] = Use(name, {**before, **settings})
        uses = list(merged.values())
    else:
        raise ConfigError(f"objective.{slot}: a list of entries or a table by entry name, not {said!r}")
    names = [use.name for use in uses]
    if len(set(names)) < len(names):
        raise ConfigError(f"objective.{slot}: an entry is named twice in {names}")
    return tuple(uses)


def _named(slot: Slot, said: object) -> Use:
    if not (isinstance(said, Mapping) and isinstance(said.get("name"), str)):
        raise ConfigError(f"objective.{slot}: the name of an entry or a table with a name, not {said!r}")
    return Use(said["name"], {key: value for key, value in said.items() if key != "name"})


def _bind(slot: Slot, use: Use) -> Bound:
    found = catalog.find(slot, use.name)
    path = f"objective.{slot}.{use.name}" if slot in LIST_SLOTS else f"objective.{slot}"
    return Bound(use.name, found, validate(found.settings, dict(use.settings), path))
