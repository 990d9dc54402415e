"""Find entries and presets: ours, installed ones (entry-point group ``turnwise.objectives``), or any by import path.

Ours are the modules of ``turnwise_trainer.objectives``; each registers its entries when it is imported, and every
:class:`Preset` at its top level is known by its name. An entry point names such a module, or a preset in one.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType

from turnwise_trainer import objectives
from turnwise_trainer.errors import ConfigError, ObjectiveError
from turnwise_trainer.settings import did_you_mean
from turnwise_trainer.slots import SLOTS, Entry, Preset, Slot, make_entry, registered

ENTRY_POINT_GROUP = "turnwise.objectives"


def entries(slot: Slot) -> dict[str, Entry]:
    """All entries of a slot by name."""
    _discovered()
    return dict(sorted(registered(slot).items()))


def presets() -> dict[str, Preset]:
    """All presets by name."""
    return dict(sorted(_discovered().presets.items()))


def find(slot: Slot, name: str) -> Entry:
    """The entry with this name, or behind an import path (``mypackage.rloo:advantage``).

    Raises:
        ConfigError: there is none; the text suggests close names.
        ObjectiveError: what the import path leads to does not fit the slot.
    """
    if ":" in name:
        function = _import(name)
        for known in (made for where in SLOTS for made in registered(where).values()):
            if known.function is function:
                if known.slot != slot:
                    raise ConfigError(f"objective.{slot}: {name!r} is an entry of {known.slot}")
                return known
        if not callable(function):
            raise ObjectiveError(f"{name!r} is {function!r}, not a function")
        return make_entry(slot, name, function)
    known_entries = entries(slot)
    if name not in known_entries:
        raise ConfigError(f"objective.{slot}: no entry {name!r}{did_you_mean(name, known_entries)}{_broken()}")
    return known_entries[name]


def find_preset(name: str) -> Preset:
    """The preset with this name, or behind an import path (``mypackage.rloo:PRESET``). Raises ConfigError."""
    if ":" in name:
        preset = _import(name)
        if not isinstance(preset, Preset):
            raise ConfigError(f"objective: {name!r} is {preset!r}, not a Preset")
        return preset
    known = presets()
    if name not in known:
        raise ConfigError(f"objective: no preset {name!r}{did_you_mean(name, known)}{_broken()}")
    return known[name]


@dataclass
class _Discovery:
    presets: dict[str, Preset] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def add(self, preset: Preset) -> None:
        known = self.presets.setdefault(preset.name, preset)
        if known is not preset:
            raise ObjectiveError(f"two presets are called {preset.name!r}")


@cache
def _discovered() -> _Discovery:
    found = _Discovery()
    for info in pkgutil.iter_modules(objectives.__path__, f"{objectives.__name__}."):
        _scan(importlib.import_module(info.name), found)
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            loaded = point.load()
        except Exception as error:  # a broken plug-in must not take the installed objectives with it
            found.broken[point.name] = str(error)
            continue
        if isinstance(loaded, ModuleType):
            _scan(loaded, found)
        elif isinstance(loaded, Preset):
            found.add(loaded)
        else:
            found.broken[point.name] = f"{loaded!r} is neither a module nor a Preset"
    return found


def _scan(module: ModuleType, found: _Discovery) -> None:
    for value in vars(module).values():
        if isinstance(value, Preset):
            found.add(value)


def _broken() -> str:
    return "".join(f" (plug-in {name!r} failed: {why})" for name, why in _discovered().broken.items())


def _import(path: str) -> object:
    _discovered()  # so that a preset behind a path can name our entries, and a clash of names is seen
    module_name, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"objective: cannot import {path!r}: {error}") from error
