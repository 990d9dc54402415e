"""The root command: lazy, quick, and one clear line for whatever goes wrong."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
from typer.testing import CliRunner

from turnwise_envs import __version__, cli


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installs commands from source text, as a plug-in package would; gives a function that runs the root command."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(**sources: str):
        points = []
        for name, source in sources.items():
            module = f"plug_{tmp_path.name.replace('-', '_')}_{name}"
            (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
            points.append(EntryPoint(name, f"{module}:app [fast,shiny]", cli.COMMAND_GROUP))
        monkeypatch.setattr(cli, "entry_points", lambda group: points)
        return lambda *arguments: CliRunner().invoke(cli.app, list(arguments))

    return install


COMMAND = '''
    """The module's own words."""
    import typer
    from turnwise_envs.errors import TurnwiseError, UnknownTask

    app = typer.Typer()

    @app.command()
    def run(what: str = "nothing") -> None:
        """Say it loud.

        Example: turnwise shout --what hey
        """
        {body}
'''


def test_help_lists_every_command_with_its_own_words() -> None:
    result = CliRunner().invoke(cli.app, ["--help"])
    assert result.exit_code == 0
    for point in entry_points(group=cli.COMMAND_GROUP):
        assert point.name in result.output
    assert "List the installed environments" in result.output


def test_help_imports_nothing_heavy() -> None:
    """That is what keeps it under 0.3 s on a quiet machine."""
    code = "import sys; sys.argv = ['turnwise', '--help']\nfrom turnwise_envs.cli import app\n"
    code += "try: app()\nfinally: print(sorted({m.partition('.')[0] for m in sys.modules}), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for heavy in ("torch", "pydantic", "rich", "fastapi", "turnwise_trainer", "turnwise_server"):
        assert f"'{heavy}'" not in done.stderr


def test_version() -> None:
    assert CliRunner().invoke(cli.app, ["--version"]).output == f"turnwise {__version__}\n"


def test_a_typo_gets_a_suggestion() -> None:
    result = CliRunner().invoke(cli.app, ["chek-env"])
    assert result.exit_code == 2
    assert "Did you mean 'check-env'" in result.output


def test_a_plug_in_adds_a_flat_command(plugin) -> None:
    turnwise = plugin(shout=COMMAND.format(body="print(what.upper())"))
    assert "Say it loud." in turnwise("--help").output
    assert turnwise("shout", "--what", "hey").output == "HEY\n"
    assert "--install-completion" not in turnwise("shout", "--help").output


def test_an_app_with_several_commands_is_a_group_with_the_words_of_its_module(plugin) -> None:
    two = (
        textwrap.dedent(COMMAND).format(body="print('one')")
        + "\n@app.command()\ndef again() -> None:\n    print('two')\n"
    )
    turnwise = plugin(journal=two)
    assert "The module's own words." in turnwise("--help").output
    assert turnwise("journal", "again").output == "two\n"


@pytest.mark.parametrize("where", ["at import", "when it runs"])
def test_a_missing_package_is_one_line_with_the_extra(plugin, where: str) -> None:
    late = COMMAND.format(body="import no_such_torch.nn")
    turnwise = plugin(learn=late if where == "when it runs" else "import no_such_torch.nn\napp = None")
    assert "learn" in turnwise("--help").output
    result = turnwise("learn")
    assert result.exit_code == 1
    assert result.stderr == "turnwise learn needs no_such_torch: pip install 'turnwise[fast,shiny]'\n"


def test_a_missing_module_of_our_own_is_a_bug_and_not_an_extra(plugin) -> None:
    result = plugin(learn=COMMAND.format(body="import turnwise_trainer.no_such_module"))("learn")
    assert isinstance(result.exception, ModuleNotFoundError)


@pytest.mark.parametrize(
    "body",
    [
        "raise UnknownTask('no such task')",
        "raise ExceptionGroup('tasks', [UnknownTask('no such task'), ExceptionGroup('more', [TurnwiseError('other')])])",
    ],
)
def test_an_expected_error_is_one_line(plugin, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    turnwise = plugin(fail=COMMAND.format(body=body))
    result = turnwise("fail")
    assert (result.exit_code, result.stderr) == (1, "turnwise: no such task\n")
    monkeypatch.setenv("TURNWISE_TRACEBACK", "1")
    assert not isinstance(turnwise("fail").exception, SystemExit)


@pytest.mark.parametrize(
    "body", ["raise ZeroDivisionError", "raise ExceptionGroup('mixed', [UnknownTask('x'), ZeroDivisionError()])"]
)
def test_a_bug_keeps_its_traceback(plugin, body: str) -> None:
    result = plugin(fail=COMMAND.format(body=body))("fail")
    assert not isinstance(result.exception, SystemExit)


def test_ctrl_c_ends_with_130_and_no_traceback(tmp_path: Path) -> None:
    """A real signal to a real process that waits for a person."""
    code = "import sys; sys.argv = ['turnwise', 'play', 'household']\nfrom turnwise_envs.cli import app; app()"
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while process.stdout.read(1) != ">":
        pass
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (130, "turnwise: interrupted\n")


@pytest.mark.parametrize("name", sorted(point.name for point in entry_points(group=cli.COMMAND_GROUP)))
def test_every_command_shows_an_example(name: str) -> None:
    result = CliRunner().invoke(cli.app, [name, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    _, found, example = result.output.lower().partition("example")
    assert found
    assert f"turnwise {name} " in example


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_base_installation_works_without_any_extra(tmp_path: Path) -> None:
    """A fresh virtual environment with only `pip install .` has no torch and no web server, and says so when asked."""
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    binaries = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    pip = [str(binaries / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, str(root), "-c", str(root / "constraints.txt")], check=True)

    def turnwise(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(binaries / "turnwise"), *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
        )

    assert turnwise("--help").returncode == 0
    assert "household" in turnwise("envs").stdout
    for command, extra in (("train", "trainer"), ("eval", "trainer"), ("imitate", "trainer"), ("serve", "server")):
        answer = turnwise(command, "--help")
        if answer.returncode:  # a command that imports late may well show its help
            assert answer.stderr.endswith(f": pip install 'turnwise[{extra}]'\n"), answer.stderr
            assert answer.stderr.count("\n") == 1
    answer = turnwise("serve", "household", "--port", "0")
    assert answer.returncode == 1
    assert re.fullmatch(r"turnwise serve needs \w+: pip install 'turnwise\[server\]'\n", answer.stderr)
