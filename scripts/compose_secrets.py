"""Make what compose.yaml needs before the first ``up``: tokens in files, and the user that containers run as.

    make compose-secrets              makes what is missing, changes nothing else
    make compose-secrets ROTATE=1     makes new tokens; the ones before go on working until the next time

Compose hands a secret to a container as the file itself, with the owner and permissions that it has here. The files
are readable by one user only (0600), so the containers have to run as that user: whoever calls this, or, if root does,
user 10001 of the image, or whoever called sudo. The number goes to ``.env``, which compose reads. Needs nothing but
Python.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
#: The user of the images, for whom nothing else on a machine runs.
IMAGE_USER = 10001
#: Who gets a token, and what it allows.
SCOPES = {"trainer": ["act", "trainer"], "metrics": ["metrics"]}

Lines = list[dict[str, object]]


class User(NamedTuple):
    uid: int
    gid: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, default=ROOT / "deploy" / "secrets", help="directory of the secrets")
    parser.add_argument("--env-file", type=Path, default=ROOT / ".env", help="what compose reads")
    parser.add_argument("--rotate", action="store_true", help="make new tokens; the ones before still work")
    given = parser.parse_args()
    user = container_user()
    made = write_secrets(given.into, user, rotate=given.rotate)
    remember(given.env_file, {"TURNWISE_UID": user.uid, "TURNWISE_GID": user.gid})
    what = "new tokens" if made else "the tokens that were there"
    print(f"{given.into} has {what}; containers run as {user.uid}:{user.gid} ({given.env_file})")
    if given.rotate:
        print("next: restart the servers one by one, then the clients; rotate again to end the old tokens")


def container_user() -> User:
    """Whoever calls this, and never root."""
    if os.geteuid() != 0:
        return User(os.geteuid(), os.getegid())
    return User(int(os.environ.get("SUDO_UID") or IMAGE_USER), int(os.environ.get("SUDO_GID") or IMAGE_USER))


def write_secrets(into: Path, user: User, *, rotate: bool) -> bool:
    """Write the files of compose.yaml; whether tokens were made. Tokens of other names in ``tokens.jsonl`` stay."""
    into.mkdir(mode=0o700, parents=True, exist_ok=True)
    into.chmod(0o700)
    _own(into, user)
    everyone = into / "tokens.jsonl"
    lines = _read(everyone)
    made = False
    for name, scopes in SCOPES.items():
        known = [line for line in lines if line["name"] == name]
        if rotate or not known:
            # A session belongs to the name, so that a new token of the same name goes on with what the old one began.
            new = {"name": name, "token": secrets.token_urlsafe(32), "scopes": scopes}
            lines = [line for line in lines if line not in known[1:]]
            lines.insert(0, new)
            made = True
    newest = {name: next(line for line in lines if line["name"] == name) for name in SCOPES}
    _write(everyone, "".join(json.dumps(line) + "\n" for line in lines), user)
    _write(into / "trainer-token.jsonl", json.dumps(newest["trainer"]) + "\n", user)
    _write(into / "metrics-token", str(newest["metrics"]["token"]), user)
    return made


def remember(env_file: Path, values: dict[str, int]) -> None:
    """Set variables in a ``.env`` file and leave the rest of it."""
    before = env_file.read_text(encoding="utf-8").splitlines() if env_file.exists() else []
    kept = [line for line in before if line.partition("=")[0].strip() not in values]
    after = [*kept, *(f"{name}={value}" for name, value in values.items())]
    if after != before:
        env_file.write_text("\n".join(after) + "\n", encoding="utf-8")


def _read(path: Path) -> Lines:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _write(path: Path, text: str, user: User) -> None:
    """All or nothing, and never readable by anybody else, not even for a moment."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)
        file.write(text)
    _own(new, user)
    new.replace(path)


def _own(path: Path, user: User) -> None:
    if os.geteuid() == 0:
        os.chown(path, *user)


if __name__ == "__main__":
    main()
