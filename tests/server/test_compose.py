"""compose.yaml, Dockerfile and deploy/: what they promise is in them, and on a real engine it holds."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from turnwise_server.auth import Tokens, read_tokens
from turnwise_server.metrics import Metrics

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
SERVERS = {name: service for name, service in SERVICES.items() if service["image"] == "turnwise-server"}
JOBS = {"train"}
#: Its sandbox needs namespaces, which a hardened container may not make.
NOT_IN_CONTAINERS = {"maths"}
PROMETHEUS = yaml.safe_load((ROOT / "deploy" / "prometheus.yaml").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((ROOT / "deploy" / "alerts.yaml").read_text(encoding="utf-8"))
USER = "${TURNWISE_UID:?"


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_hardened(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"].startswith(USER)
    assert service["pids_limit"] <= 512
    assert service["mem_limit"] == service["memswap_limit"]
    assert service["cpus"]
    assert all("size=" in each for each in service["tmpfs"])
    assert service["logging"]["options"]["max-size"]
    for forbidden in ("privileged", "network_mode", "pid", "ipc", "devices", "container_name"):
        assert forbidden not in service
    assert not any("docker.sock" in volume for volume in service.get("volumes", ()))


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_a_healthcheck_and_every_job_ends(name):
    service = SERVICES[name]
    if name in JOBS:
        assert service["healthcheck"] == {"disable": True}
        assert service["restart"] == "no"
    else:
        assert service["healthcheck"]["test"][0] == "CMD"
        assert service["restart"] == "unless-stopped"


def test_every_installed_environment_has_a_service():
    project = tomllib.loads(text("pyproject.toml"))["project"]
    assert set(SERVERS) == set(project["entry-points"]["turnwise.envs"]) - NOT_IN_CONTAINERS
    for name, service in SERVERS.items():
        assert service["command"] == ["serve", name]


def test_a_new_environment_takes_three_lines():
    assert re.search(
        r"\n  household:\n    <<: \*environment\n    command: \[serve, household\]\n\n", text("compose.yaml")
    )


def test_replicas_can_be_scaled():
    """No port of the host is fixed, and no name; all of a service share one volume of journals."""
    for service in SERVERS.values():
        (port,) = service["ports"]
        assert port.endswith("::8000")
        assert service["volumes"] == ["journals:/var/lib/turnwise"]
        assert service["stop_grace_period"] == "15s"


def test_the_health_probe_tells_ready_from_stopping():
    """The very code of compose.yaml, against a server that says 200 or 503, and against none."""
    (probe,) = {service["healthcheck"]["test"][-1] for service in SERVERS.values()}
    answer = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); "
        "c, _ = s.accept(); c.recv(999); c.sendall(b'HTTP/1.1 ' + sys.argv[1].encode() + b' x\\r\\n\\r\\n'); c.close()"
    )
    for status, code in (("200", 0), ("503", 1)):
        server = subprocess.Popen([sys.executable, "-c", answer, status], stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        patient = probe.replace("8000", port).replace("), 3)", "), 60)")
        probed = subprocess.run([sys.executable, "-ISc", patient], check=False)
        server.communicate(timeout=120)
        assert probed.returncode == code
    refused = subprocess.run([sys.executable, "-ISc", probe.replace("8000", port)], capture_output=True, check=False)
    assert refused.returncode == 1


def test_nothing_names_a_host_or_an_index():
    for name in ("compose.yaml", "Dockerfile", "deploy/prometheus.yaml"):
        addresses = re.findall(r"[a-z+]+://[^\s\"]+", text(name))
        assert set(addresses) <= {"dns+http://household:8000", "http://127.0.0.1:9090"}, name
    stages = re.findall(r"^FROM (.*?)(?=^FROM|\Z)", text("Dockerfile"), re.M | re.S)
    for stage in stages:  # each that asks an index declares the arguments itself: not every builder hands them down
        wanted = [f"ARG {' '.join(COMPOSE['x-index'])}"] if "-m pip" in stage else []
        assert re.findall(r"^ARG PIP.*", stage, re.M) == wanted
    assert text("Dockerfile").count("PIP_INDEX_URL") == 1 + 3
    for service in SERVICES.values():
        assert "build" not in service or all("=" not in argument for argument in service["build"]["args"])


def test_images_run_as_nobody_in_particular_and_the_server_has_no_torch():
    stages = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM|\Z)", text("Dockerfile"), re.M | re.S))
    for image in ("server", "trainer"):
        assert re.search(r"^USER 10001:10001$", stages[image], re.M)
        assert "PIP_" not in stages[image]
    assert {SERVICES[name]["build"]["target"] for name in (*SERVERS, "train")} == {"server", "trainer"}
    assert "torch" not in requirements("server")
    assert "torch" in requirements("trainer")
    assert "numpy" in requirements("trainer")  # of the extra that the extra names
    assert {"typer", "fastapi"} <= set(requirements("server"))


def requirements(extra: str) -> list[str]:
    command = [sys.executable, "scripts/requirements.py", extra]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [re.split(r"[^\w.-]", line)[0] for line in lines]


def test_the_engine_gets_nothing_but_what_the_wheel_is_made_of():
    lines = [line for line in text(".dockerignore").splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert allowed == {
        "pyproject.toml",
        "constraints.txt",
        "README.md",
        "LICENSE",
        "scripts/requirements.py",
        "envs",
        "server",
        "agent",
        "trainer",
    }


def test_prometheus_asks_for_every_service_and_with_its_token():
    (job,) = PROMETHEUS["scrape_configs"]
    (lookup,) = job["dns_sd_configs"]
    assert lookup["names"] == list(SERVERS)
    assert lookup["port"] == 8000
    (secret,) = SERVICES["prometheus"]["secrets"]
    assert job["authorization"] == {"credentials_file": f"/run/secrets/{secret}"}
    mounted = [volume.split(":")[0] for volume in SERVICES["prometheus"]["volumes"] if volume.startswith("./")]
    assert all((ROOT / each).is_file() for each in mounted)


def test_alerts_are_about_metrics_and_problems_that_exist():
    from turnwise_envs.wire import PROBLEMS

    metrics = Metrics()
    for counter in (metrics.rejections, metrics.worker_restarts):
        counter["any"] = 1
    page = metrics.page().decode()
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert len(rules) == 3
    for rule in rules:
        for name in re.findall(r"turnwise_\w+", rule["expr"]):
            assert f"\n{name}" in page, name
        for problem in re.findall(r'problem="([^"]+)"', rule["expr"]):
            assert problem in PROBLEMS


def test_alerts_fire_when_they_should():
    if shutil.which("promtool") is None:
        pytest.skip("needs PROGRAM: promtool")
    command = ["promtool", "test", "rules", str(ROOT / "tests" / "server" / "alerts_test.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def make_secrets(tmp_path):
    def make(*arguments: str, **variables: str) -> str:
        command = [sys.executable, str(ROOT / "scripts" / "compose_secrets.py"), *arguments]
        places = ["--into", str(tmp_path / "secrets"), "--env-file", str(tmp_path / ".env")]
        environ = {key: value for key, value in os.environ.items() if not key.startswith("SUDO_")} | variables
        return subprocess.run([*command, *places], env=environ, capture_output=True, text=True, check=True).stdout

    return make


class TestSecrets:
    def test_only_the_user_of_the_containers_reads_them(self, tmp_path, make_secrets):
        make_secrets()
        variables = dict(line.split("=") for line in (tmp_path / ".env").read_text().splitlines())
        uid = int(variables["TURNWISE_UID"])
        assert uid != 0
        assert uid == (os.geteuid() or 10001)
        folder = tmp_path / "secrets"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        files = {path.name: path.stat() for path in folder.iterdir()}
        named = {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()}
        assert set(files) == named
        for found in files.values():
            assert stat.S_IMODE(found.st_mode) == 0o600
            assert found.st_uid == uid

    def test_the_server_understands_them(self, tmp_path, make_secrets):
        make_secrets()
        folder = tmp_path / "secrets"
        tokens = Tokens(read_tokens(folder / "tokens.jsonl"))
        (trainer,) = read_tokens(folder / "trainer-token.jsonl")
        watcher = (folder / "metrics-token").read_text()
        assert tokens.caller(f"Bearer {trainer.token}", local=False).scopes == {"act", "trainer"}
        assert tokens.caller(f"Bearer {watcher}", local=False).scopes == {"metrics"}

    def test_a_rotation_keeps_the_tokens_before_and_no_older_ones(self, tmp_path, make_secrets):
        folder = tmp_path / "secrets"
        generations = []
        for arguments in ((), ("--rotate",), ("--rotate",), ()):
            said = make_secrets(*arguments)
            (newest,) = read_tokens(folder / "trainer-token.jsonl")
            assert newest.token not in said
            generations.append(newest.token)
        first, second, third, same = generations
        assert len({first, second, third}) == 3
        assert same == third
        known = [token.token for token in read_tokens(folder / "tokens.jsonl") if token.name == "trainer"]
        assert known == [third, second]

    def test_what_others_wrote_stays(self, tmp_path, make_secrets):
        (tmp_path / ".env").write_text("OTHER=1\nTURNWISE_UID=77\n")
        make_secrets()
        mine = {"name": "ann", "token": "ann-token-0123456789", "scopes": ["act"]}
        file = tmp_path / "secrets" / "tokens.jsonl"
        file.write_text(file.read_text() + json.dumps(mine) + "\n")
        make_secrets("--rotate")
        assert "ann" in [token.name for token in read_tokens(file)]
        lines = (tmp_path / ".env").read_text().splitlines()
        assert lines[0] == "OTHER=1"
        assert "TURNWISE_UID=77" not in lines

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
    def test_sudo_makes_them_for_whoever_called_it(self, tmp_path, make_secrets):
        make_secrets(SUDO_UID="4321", SUDO_GID="4321")
        assert "TURNWISE_UID=4321" in (tmp_path / ".env").read_text()
        assert (tmp_path / "secrets" / "tokens.jsonl").stat().st_uid == 4321

    def test_git_ignores_them(self):
        assert {"deploy/secrets/", ".env"} <= set(text(".gitignore").splitlines())


def test_the_guide_shows_what_works(tmp_path, make_secrets, monkeypatch):
    guide = text("docs/operating.md")
    make_secrets()
    (tmp_path / "deploy").mkdir()
    (tmp_path / "secrets").rename(tmp_path / "deploy" / "secrets")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TURNWISE_TOKEN_FILE", "deploy/secrets/trainer-token.jsonl")
    (block,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    exec(compile(block, "operating.md", "exec"), {})
    alerts = {rule["alert"] for group in ALERTS["groups"] for rule in group["rules"]}
    assert set(re.findall(r"^\| `(Turnwise\w+)`", guide, re.M)) == alerts
    variables = set(re.findall(r"\$\{(\w+)", text("compose.yaml"))) | set(COMPOSE["x-index"])
    assert variables <= set(re.findall(r"`([A-Z_]+)`", guide))


def test_docker_compose_understands_the_file():
    if shutil.which("docker-compose") is None:
        pytest.skip("needs PROGRAM: docker-compose")
    command = ["docker-compose", "--file", str(ROOT / "compose.yaml")]
    everything = [*command, "--profile", "train", "--profile", "monitoring", "config", "--quiet"]
    nobody = {key: value for key, value in os.environ.items() if not key.startswith("TURNWISE_")}
    environ = {**nobody, "TURNWISE_UID": "10001", "TURNWISE_GID": "10001"}
    said = subprocess.run(everything, env=environ, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    forgotten = {**nobody, "TURNWISE_UID": "", "TURNWISE_GID": ""}
    said = subprocess.run(everything, env=forgotten, capture_output=True, text=True, check=False)
    assert said.returncode != 0
    assert "make compose-secrets" in said.stderr


def smoke(**variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "scripts" / "compose-smoke")],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )


def test_without_an_engine_the_smoke_test_says_so_and_passes(tmp_path):
    done = smoke(DOCKER_HOST=f"unix://{tmp_path}/nobody.sock")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"compose-smoke: skipped: [^\n]+\n", done.stdout)
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_compose_on_a_real_engine():
    done = smoke()
    assert done.returncode == 0, done.stdout + done.stderr
    skipped = re.match(r"compose-smoke: skipped: (.+)", done.stdout)
    if skipped:
        pytest.skip(skipped[1])
    assert "all histories are those of the undisturbed run" in done.stdout
