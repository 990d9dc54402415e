"""docs/objectives.md: its page of code runs, its TOML loads, and its table is what the entries say."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from builders import flat_group
from numpy.testing import assert_allclose

from turnwise_trainer import catalog
from turnwise_trainer.config import load
from turnwise_trainer.objective import Objective
from turnwise_trainer.slots import SLOTS
from turnwise_trainer.view import BatchView

DOCS = Path(__file__).parents[2] / "docs" / "objectives.md"
TEXT = DOCS.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def test_the_page_is_an_objective(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = blocks("python")
    # Another name than in the text, so that no other test's module of that name is taken.
    (tmp_path / "documented_rloo.py").write_text(code.replace('"rloo"', '"documented_rloo"'))
    monkeypatch.syspath_prepend(str(tmp_path))
    view = BatchView.of([flat_group([1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], turns=2)])
    expected = [0.857143] * 4 + [-0.285714] * 12
    for said in ("documented_rloo:PRESET", {"advantage": "documented_rloo:rloo"}):
        assert_allclose(Objective.resolve(said).credit(view).advantage_K, expected, atol=1e-6)
    sys.modules.pop("documented_rloo")


def test_toml_and_commands_load(tmp_path: Path) -> None:
    head = 'model = "m"\nrun = "r"\n'
    tables = [block for block in blocks("toml") if "objective" in block and "entry-points" not in block]
    assert len(tables) == 2
    for block in tables:
        path = tmp_path / "run.toml"
        path.write_text(head + block + '\n[env]\nid = "household"\n')
        load(path)
    (command,) = re.findall(r"On the command line: `(.*?)`", TEXT)
    load(None, ["model=m", "env.id=household", *(part for part in command.split() if part != "--set")])


@pytest.mark.parametrize("name", sorted(catalog.presets()))
def test_every_preset_has_a_section(name: str) -> None:
    assert f"\n### {name}\n" in TEXT


def test_table_is_current() -> None:
    found = re.search(r"<!-- settings:.*?-->\n(.*?)<!-- end of settings -->", TEXT, flags=re.DOTALL)
    assert found is not None
    assert found.group(1) == table(), f"put this between the marks in {DOCS.name}:\n{table()}"


def table() -> str:
    lines = []
    for slot in SLOTS:
        for name, found in catalog.entries(slot).items():
            if not found.function.__module__.startswith("turnwise_trainer."):
                continue  # another test's
            lines += [f"\n**{slot}: `{name}`.** {found.summary}\n"]
            if found.settings.model_fields:
                lines += ["| setting | default | meaning |", "|---|---|---|"]
            for key, field in found.settings.model_fields.items():
                default = "none" if field.default is None else str(field.default).replace("\n", "\\n")
                lines.append(f"| `{key}` | `{default}` | {field.description} |")
    return "\n".join(lines) + "\n\n"
