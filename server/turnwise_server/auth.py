"""Tokens, scopes and who may touch what (protocol.md, "Who may do what"). Tokens never reach a log."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from turnwise_server.refusal import Refusal

Scope = Literal["act", "trainer", "admin", "metrics"]
#: The owner of sessions that were opened on loopback without a token; no token can have this name.
ANONYMOUS = ""


class Token(BaseModel):
    """One line of a tokens file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    token: str = Field(min_length=16, max_length=4096, pattern=r"^[!-~]+$", repr=False)  # what a header can carry
    scopes: frozenset[Scope]


@dataclass(frozen=True)
class Caller:
    """Whoever sent a request."""

    name: str
    scopes: frozenset[Scope]

    def require(self, scope: Scope) -> None:
        """Raises Refusal ``unauthorized`` (no token) or ``forbidden`` (the wrong one)."""
        if scope in self.scopes:
            return
        if self.name == ANONYMOUS:
            raise Refusal("unauthorized", f"this needs a token with scope {scope!r}; send authorization: Bearer TOKEN")
        raise Refusal("forbidden", f"the token of {self.name!r} lacks scope {scope!r}")

    def may_use(self, owner: str) -> bool:
        """A session belongs to its token's name; an unnamed one, which only loopback has, also to a trainer."""
        if owner == self.name or "admin" in self.scopes:
            return True
        return owner == ANONYMOUS and "trainer" in self.scopes


#: Whoever is on this machine and names nobody.
ANYBODY = Caller(ANONYMOUS, frozenset({"act", "metrics"}))


class Tokens:
    """The tokens a server knows. From this machine everybody may ``act``, and see the metrics."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        self._by_digest = [(_digest(token.token), token) for token in tokens]

    def caller(self, authorization: str | None, local: bool) -> Caller:
        """Who an ``authorization`` header speaks for; ``local`` if the call comes from this machine.

        Raises Refusal ``unauthorized``.
        """
        if authorization is None:
            if not local:
                raise Refusal("unauthorized", "this server needs a token; send authorization: Bearer TOKEN")
            return ANYBODY
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Refusal("unauthorized", "the authorization header must be: Bearer TOKEN")
        digest = _digest(given.strip())
        found: Token | None = None
        for known, token in self._by_digest:  # every one is compared, so that time tells nothing
            if hmac.compare_digest(known, digest):
                found = token
        if found is None:
            raise Refusal("unauthorized", "unknown token")
        scopes: frozenset[Scope] = found.scopes
        if local:
            scopes |= ANYBODY.scopes
        elif "admin" in scopes:
            scopes |= {"act"}
        return Caller(found.name, scopes)


def read_tokens(path: Path) -> list[Token]:
    """The tokens in a file of JSON lines ``{"name", "token", "scopes"}``.

    Raises:
        ValueError: what is wrong and in which line, without quoting any token.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read tokens file {path}: {error}") from error
    tokens = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            tokens.append(Token.model_validate_json(line))
        except ValidationError as error:
            first = error.errors(include_input=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "line"
            raise ValueError(f"tokens file {path}, line {number}: {where}: {first['msg']}") from None
    if not tokens:
        raise ValueError(f"tokens file {path} has no tokens")
    if len({token.token for token in tokens}) < len(tokens):
        raise ValueError(f"tokens file {path} has the same token twice")
    return tokens


def state_directory() -> Path:
    """Where this user's servers keep what outlives them."""
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "turnwise"


def write_trainer_token(port: int) -> tuple[Path, Token]:
    """A fresh token for the user's own trainer, in a file that only the user can read.

    The file is ``tokens-PORT.jsonl`` in the user's state directory. Raises OSError.
    """
    token = Token(name="trainer", token=secrets.token_urlsafe(32), scopes=frozenset({"act", "trainer"}))
    path = state_directory() / f"tokens-{port}.jsonl"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # left behind by a killed server; its permissions may be anything
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(json.dumps({"name": token.name, "token": token.token, "scopes": sorted(token.scopes)}) + "\n")
    return path, token


def _digest(token: str) -> bytes:
    """Fixed length, so that a comparison does not tell how long a token is."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
