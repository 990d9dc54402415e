"""A compose project of this checkout that a script owns: brought up, looked into, hurt, and taken down."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: Seconds for an engine to say that it is there, for one of its commands, and for an image to be built.
ANSWER_S = 20.0
COMMAND_S = 180.0
BUILD_S = 3000.0
#: Kills every process of a container except its init and itself, which the kernel spares.
KILL_ALL = "import os, signal; os.kill(-1, signal.SIGKILL)"


class NoEngine(Exception):
    """Nothing here can run containers; the message says what is missing, in one line."""


class Failed(Exception):
    """A command did not do what it should."""


def find_compose() -> list[str]:
    """The command that speaks compose here, with an engine that answers it. Raises NoEngine."""
    if shutil.which("docker") is None:
        raise NoEngine("needs PROGRAM: docker")
    probe = ["docker", "version", "--format", "{{.Server.Version}}"]
    try:
        answered = subprocess.run(probe, capture_output=True, timeout=ANSWER_S, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        answered = False
    if not answered:
        raise NoEngine("docker is installed, but no engine answers it")
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    raise NoEngine("an engine is here, but neither its compose plug-in nor docker-compose")


class Stack:
    """compose.yaml under a project name and with secrets of its own, so that it meets nobody else's.

    ``secrets_dir`` is a fresh directory. Raises NoEngine.
    """

    def __init__(self, secrets_dir: Path) -> None:
        self._compose = find_compose()
        self.project = f"turnwise-smoke-{secrets.token_hex(3)}"
        variables = secrets_dir / "variables"
        make = [sys.executable, str(ROOT / "scripts" / "compose_secrets.py")]
        self._run([*make, "--into", str(secrets_dir), "--env-file", str(variables)], os.environ)
        made = dict(line.split("=", 1) for line in variables.read_text(encoding="utf-8").splitlines())
        # docker-compose 1.29 gives a busy engine a minute for each call, and ends.
        patience = {"COMPOSE_HTTP_TIMEOUT": str(int(COMMAND_S))}
        self._environ = {**os.environ, **patience, **made, "TURNWISE_SECRETS": str(secrets_dir)}
        self.token_file = secrets_dir / "trainer-token.jsonl"
        self.uid = int(made["TURNWISE_UID"])

    def versions(self) -> str:
        """Of the engine and of compose."""
        engine = self.docker("version", "--format", "{{.Server.Version}}")
        compose = self._run([*self._compose, "version", "--short"], self._environ)
        return f"Docker {engine}, {' '.join(self._compose)} {compose}"

    def compose(self, *arguments: str, timeout: float = COMMAND_S) -> str:
        """What compose prints. Raises Failed."""
        return self._run(
            [*self._compose, "--project-name", self.project, "--file", str(ROOT / "compose.yaml"), *arguments],
            self._environ,
            timeout,
        )

    def docker(self, *arguments: str) -> str:
        """What the engine prints. Raises Failed."""
        return self._run(["docker", *arguments], self._environ)

    def containers(self, service: str) -> list[str]:
        """Ids of the service's containers, those too that have stopped."""
        filters = [f"label=com.docker.compose.{key}" for key in (f"project={self.project}", f"service={service}")]
        listed = self.docker("ps", "--all", "--quiet", "--no-trunc", *(f"--filter={each}" for each in filters))
        return sorted(listed.split())

    def inspect(self, container: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.docker("inspect", container))[0]
        return found

    def url(self, container: str, port: int = 8000) -> str:
        """Where a port of a running container is published."""
        return f"http://{self.docker('port', container, f'{port}/tcp').splitlines()[0]}"

    def python(self, container: str, code: str) -> str:
        """What ``code`` prints when it is run in a container."""
        return self.docker("exec", container, "python", "-c", code)

    def wait_healthy(self, containers: Sequence[str], patience: float = 120.0) -> float:
        """Seconds until all are. Raises Failed."""
        began = time.monotonic()
        while True:
            states = [self.inspect(container)["State"] for container in containers]
            if all(state["Running"] and state["Health"]["Status"] == "healthy" for state in states):
                return time.monotonic() - began
            if time.monotonic() - began > patience:
                raise Failed(f"not healthy after {patience:g} s: {states}")
            time.sleep(0.25)

    def crash(self, container: str) -> None:
        """SIGKILL to the server, as the kernel does when memory runs out; the engine starts the container again."""
        starts = self.inspect(container)["RestartCount"]
        subprocess.run(["docker", "exec", container, "python", "-c", KILL_ALL], env=self._environ, check=False)
        deadline = time.monotonic() + COMMAND_S
        while self.inspect(container)["RestartCount"] == starts:
            if time.monotonic() > deadline:
                raise Failed(f"the engine did not start {container[:12]} again")
            time.sleep(0.1)

    def kill(self, container: str) -> None:
        """SIGKILL to the container, which then stays away."""
        self.docker("kill", container)

    def logs(self) -> str:
        return self.compose("logs", "--no-color", "--tail", "50")

    def down(self) -> None:
        """Take away all containers, networks and volumes of the project; images stay."""
        profiles = ("--profile", "train", "--profile", "monitoring")
        self.compose(*profiles, "down", "--volumes", "--remove-orphans", "--timeout", "20")

    def _run(self, command: Sequence[str], environ: Any, timeout: float = COMMAND_S) -> str:
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{' '.join(command)}: no end after {timeout:g} s") from error
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip()[-4000:]
            raise Failed(f"{' '.join(command)}: exit code {done.returncode}\n{said}")
        return done.stdout.strip()
