"""docs/training.md: its commands parse, its TOML loads, its code and queries run, and its tables are what the code says."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from word_worlds import TURNWISE, served, write_policy

from turnwise_envs import cli
from turnwise_trainer.config import TrainConfig, load

DOCS = Path(__file__).parents[2] / "docs" / "training.md"
TEXT = DOCS.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


COMMANDS = [
    shlex.split(line[2:], comments=True) for block in blocks("console") for line in block.splitlines() if line[0] == "$"
]
TOML, PYTHON = blocks("toml")[0], blocks("python")[0]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] == "turnwise"], ids=" ".join)
def test_commands_parse(command: list[str], tmp_path: Path) -> None:
    """Every command and option exists; settings of `train` are settings."""
    name, arguments = command[1], command[2:]
    typer.main.get_command(cli.app).commands[name].make_context(name, arguments)  # type: ignore[attr-defined]
    overrides = [value for flag, value in pairwise(arguments) if flag == "--set"]
    if name == "train":
        (tmp_path / "run.toml").write_text(TOML)
        config = load(tmp_path / "run.toml", overrides)
        assert config != load(tmp_path / "run.toml") or not overrides


def test_table_of_settings_is_current() -> None:
    found = re.search(r"<!-- settings:.*?-->\n(.*?)<!-- end of settings -->", TEXT, flags=re.DOTALL)
    assert found is not None
    assert found.group(1) == table(), f"put this between the marks in {DOCS.name}:\n{table()}"


def table() -> str:
    sections = {"": TrainConfig}
    for name, field in TrainConfig.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            sections[name] = field.annotation  # type: ignore[assignment]
    lines = []
    for section, model in sections.items():
        if section:
            lines += [f"\n**`[{section}]`** {TrainConfig.model_fields[section].description}\n"]
        lines += ["| setting | default | meaning |", "|---|---|---|"]
        for name, field in model.model_fields.items():
            if section or name not in sections:
                lines.append(f"| `{name}` | {default(model, name)} | {field.description} |")
    return "\n".join(lines) + "\n\n"


def default(model: type[BaseModel], name: str) -> str:
    if (model, name) == (TrainConfig, "objective"):
        return "`grpo`"
    value = model.model_fields[name].get_default(call_default_factory=True)
    return "" if value is PydanticUndefined else f"`{json.dumps(value)}`"


def test_the_code_runs_and_the_tables_name_what_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = """
model = "policy"
[env]
id = "bandit"
[rollout]
groups_per_step = 2
group_size = 4
max_action_tokens = 3
max_context_tokens = 64
[objective.regularizers.kl]
[eval]
every = 1
splits = ["valid"]
episodes = 2
"""
    monkeypatch.chdir(tmp_path)
    write_policy(tmp_path / "policy")
    with served(tmp_path, "Bandit") as server:
        Path("run.toml").write_text(small.replace("[env]", f'[env]\nurls = ["{server.url}"]'))
        exec(compile(PYTHON, DOCS.name, "exec"), {"__name__": "__main__"})
    run = tmp_path / "runs" / "second"
    out = capsys.readouterr().out
    assert "runs/second/checkpoints/step-000002 32\n" in out
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    documented = set(re.findall(r"`([a-zA-Z_/]+)`", TEXT.partition("## Metrics")[2].partition("## Reading")[0]))
    for name in {name for row in rows for name in row}:
        generic = re.sub("^(reward|loss)/[a-z]+$", r"\1/NAME", name.replace("valid/greedy", "SPLIT/MODE"))
        assert generic in documented, name
    files = {path.name for path in run.iterdir()}
    layout = TEXT.partition("## What lies")[2].partition("## Metrics")[0]
    assert files <= {file.partition("/")[0] for file in re.findall(r"^\| `(.*?)`", layout, flags=re.MULTILINE)}
    queries(run / "trajectories.db")


def queries(store: Path) -> None:
    """The commands of the page on this store."""
    said = []
    for command in (command for command in COMMANDS if command[0] == "sqlite-utils"):
        real = [str(store) if part.endswith("trajectories.db") else part for part in command]
        done = subprocess.run([TURNWISE.with_name(real[0]), *real[1:]], capture_output=True, text=True, check=True)
        said.append(done.stdout)
    assert len(said) == 3
    assert len(said[0].splitlines()) == 2 + 2  # a head, and two steps
    assert "letter?" in said[1]
    assert "over" in said[1]
    assert len(json.loads(said[2])) == 5
