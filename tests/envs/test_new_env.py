"""``turnwise new-env``: what it writes is a package that pip installs, Turnwise finds, and its own tests pass."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from turnwise_envs import cli

ROOT = Path(__file__).parents[2]


def turnwise(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments))


def run(folder: Path, *words: str, paths: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scaffolded package, not installed."""
    monkeypatch.chdir(tmp_path)
    done = turnwise("new-env", "moon-base")
    assert done.exit_code == 0, done.output
    assert "moon-base/src/moon_base/env.py" in done.output
    return tmp_path / "moon-base"


def test_the_template_becomes_the_new_name(world: Path) -> None:
    files = sorted(path.relative_to(world).as_posix() for path in world.rglob("*") if path.is_file())
    assert files == [
        "Dockerfile",
        "README.md",
        "pyproject.toml",
        "src/moon_base/__init__.py",
        "src/moon_base/env.py",
        "src/moon_base/tasks.py",
        "tests/test_moon_base.py",
    ]
    everything = "".join((world / name).read_text() for name in files)
    assert "example" not in everything.lower().replace("for example", "")
    assert 'moon-base = "moon_base:MoonBase"' in everything


def test_it_is_in_our_own_style_and_passes_the_checks(world: Path) -> None:
    style = ("--isolated", "--line-length", "120")
    run(world, "-m", "ruff", "check", *style, "--select", "E,F,B,UP,SIM,RUF,RET", ".")
    run(world, "-m", "ruff", "format", "--check", *style, ".")
    checked = run(world / "src", "-m", "turnwise_envs", "check-env", "moon_base:MoonBase", "--episodes", "1")
    assert "0 failed" in checked.stdout


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Moon Base", "is no name for an environment"),
        ("../moon", "is no name for an environment"),
        ("json", "a Python module 'json' already"),
        ("class", "a Python module 'class' already"),
        ("household", "an environment 'household' already"),
    ],
)
def test_a_name_that_cannot_be_is_refused(
    name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = turnwise("new-env", name)
    assert done.exit_code == 1
    assert told in done.output
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(world: Path) -> None:
    before = (world / "README.md").read_text()
    done = turnwise("new-env", "moon-base")
    assert done.exit_code == 1
    assert "exists and is not an empty directory" in done.output
    assert (world / "README.md").read_text() == before


@pytest.mark.slow
def test_installed_it_is_found_and_its_own_tests_pass(world: Path, tmp_path: Path) -> None:
    """Needs the package index, for hatchling in the isolated build."""
    site = tmp_path / "site"
    run(
        world, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target", str(site), "."
    )
    assert "moon-base" in run(tmp_path, "-m", "turnwise_envs", "envs", "--json", paths=(site,)).stdout
    assert "0 failed" in run(tmp_path, "-m", "turnwise_envs", "check-env", "moon-base", paths=(site,)).stdout
    passed = run(world, "-m", "pytest", "-q", "-p", "no:cacheprovider", paths=(site,)).stdout
    assert " passed" in passed
