"""``turnwise serve`` as a process: its two lines, its token file, its exits."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from turnwise_server.auth import read_tokens
from turnwise_server.running import CannotServe, run
from turnwise_server.settings import Settings

HERE = Path(__file__).parent
COMMAND = [sys.executable, "-c", "from turnwise_server.commands import app; app()"]


@pytest.fixture
def environ(tmp_path):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TURNWISE_")}
    return {**kept, "XDG_STATE_HOME": str(tmp_path / "state"), "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


@pytest.fixture
def start(environ):
    """Starts servers from this folder; whatever still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **more: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=HERE,
            env={**environ, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_serving_from_start_to_end(start, ending):
    process = start("toy_environments:Guess", "toy_environments:Slow", "--port", "0")
    ready = process.stdout.readline()
    token_line = process.stdout.readline()
    assert ready.startswith("turnwise: serving guess, slow on http://127.0.0.1:")
    url = ready.split()[-1]
    path = Path(token_line.removeprefix("turnwise: trainer token in ").strip())
    assert path.name == f"tokens-{url.rpartition(':')[2]}.jsonl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    token = json.loads(path.read_text())
    assert sorted(token["scopes"]) == ["act", "trainer"]

    with httpx.Client(base_url=url, timeout=60) as http:
        sid = http.post("/v1/sessions", json={"env": "guess", "index": 42}).json()["session_id"]
        answer = http.post(f"/v1/sessions/{sid}/step", json={"turn": 0, "action": {"text": "42"}})
        assert answer.json()["reward"] == 1.0
        assert "server" not in answer.headers
        assert http.get(f"/v1/sessions/{sid}/reference").status_code == 401
        headers = {"authorization": f"Bearer {token['token']}"}
        assert http.get(f"/v1/sessions/{sid}/reference", headers=headers).json()["answers"] == ["42"]
        assert http.get("/docs").status_code == 200

    process.send_signal(ending)
    code, out, err = ended(process)
    assert (code, out, err) == (0, "", "")
    assert not path.exists()


def test_a_hung_thread_does_not_keep_the_server_from_ending(start):
    process = start("toy_environments:Blocking", "--port", "0", TURNWISE_STEP_TIMEOUT="2")
    url = process.stdout.readline().split()[-1]
    with httpx.Client(base_url=url, timeout=60) as http:
        sid = http.post("/v1/sessions", json={"env": "blocking"}).json()["session_id"]
        answer = http.post(f"/v1/sessions/{sid}/step", json={"turn": 0, "action": {"text": "hang"}})
        assert answer.json()["type"] == "urn:turnwise:env-failed"
        assert http.get("/healthz").status_code == 200
    process.terminate()
    code, _, _ = ended(process)  # the thread sleeps for an hour
    assert code == 0


def test_a_given_tokens_file_is_used_and_none_is_written(start, tmp_path):
    tokens = tmp_path / "tokens.jsonl"
    tokens.write_text('{"name": "ann", "token": "ann-token-0123456789", "scopes": ["act", "trainer"]}\n')
    process = start("toy_environments:Guess", "--port", "0", "--host", "0.0.0.0", TURNWISE_TOKENS_FILE=str(tokens))
    port = process.stdout.readline().rpartition(":")[2].strip()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        assert http.get("/v1/envs").status_code == 401
        assert http.get("/v1/envs", headers={"authorization": "Bearer ann-token-0123456789"}).status_code == 200
    process.terminate()
    code, out, err = ended(process)
    assert (code, out, err) == (0, "", "")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("env_ids", "complaint"),
    [
        (["chess"], "no environment 'chess'"),
        (["nowhere:Chess"], "No module named 'nowhere'"),
        (["turnwise_envs:Environment"], "lacks spec"),
        (["broken_environment:Chess"], "SyntaxError"),
        (["toy_environments:Guess", "toy_environments:Guess"], "'guess' is given twice"),
    ],
)
def test_environments_that_cannot_be_served(env_ids, complaint, tmp_path, monkeypatch):
    (tmp_path / "broken_environment.py").write_text("def f(:\n")
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CannotServe, match=complaint) as refused:
        run(env_ids, Settings(port=0))
    assert refused.value.exit_code == 2


def test_what_is_asked_wrongly_is_one_line_and_exit_code_2(start, tmp_path):
    tokens = tmp_path / "bad.jsonl"
    tokens.write_text('{"name": "ann", "token": "very-secret-token-1", "scopes": ["acting"]}\n')
    code, out, err = ended(start("toy_environments:Guess", "--tokens-file", str(tokens)))
    assert (code, out) == (2, "")
    assert err.startswith(f"turnwise: tokens file {tokens}, line 1: scopes.")
    assert err.count("\n") == 1
    assert "very-secret-token-1" not in err


def test_a_port_in_use_is_one_line_and_exit_code_1(start, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = ended(start("toy_environments:Guess", "--port", str(port)))
    assert (code, out) == (1, "")
    assert err == (
        f"turnwise: port {port} on 127.0.0.1 is in use; choose another with --port, or --port 0 for any free one\n"
    )
    assert not list((tmp_path / "state").glob("**/*.jsonl"))


def test_help_lists_the_variables(start):
    code, out, _ = ended(start("--help"))
    assert code == 0
    for name in ("HOST", "PORT", "STEP_TIMEOUT", "MAX_SESSIONS", "IDLE_TIMEOUT", "MAX_BODY", "TOKENS_FILE"):
        assert f"TURNWISE_{name}" in out


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "has no tokens"),
        ('{"name": "a", "token": "short", "scopes": []}', "line 1: token: "),
        ('{"name": "", "token": "0123456789abcdef", "scopes": []}', "line 1: name: "),
        ('\n{"name": "a"', "line 2: "),
        ('{"name": "a", "token": "0123456789abcdef", "scopes": []}\n' * 2, "twice"),
    ],
)
def test_reading_tokens(tmp_path, text, complaint):
    path = tmp_path / "tokens.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        read_tokens(path)
