"""Where a client's bearer token comes from, and how it is sent."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import httpx

from turnwise_agent.errors import BadToken

TOKEN_VARIABLE = "TURNWISE_TOKEN"
#: Where a container gets a secret: a file, so that the token stands in no environment that child processes inherit.
TOKEN_FILE_VARIABLE = "TURNWISE_TOKEN_FILE"


class BearerAuth(httpx.Auth):
    """Sends the token; a token file is read again when the server refuses, for a restarted one writes a new token."""

    def __init__(self, token: str | None, token_file: str | Path | None) -> None:
        """Raises BadToken like :func:`find_token`."""
        self._given = (token, token_file)
        self._token = find_token(token, token_file)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        sent = self._sign(request)
        response = yield request
        if response.status_code == 401:
            try:
                self._token = find_token(*self._given)
            except BadToken:
                return  # the refusal says more
            if self._token != sent:
                self._sign(request)
                yield request

    def headers(self) -> dict[str, str]:
        """What a request that is not sent through httpx must carry."""
        return {} if self._token is None else {"authorization": f"Bearer {self._token}"}

    def _sign(self, request: httpx.Request) -> str | None:
        request.headers.update(self.headers())
        return self._token


def find_token(token: str | None, token_file: str | Path | None) -> str | None:
    """The token to send: ``token``, else the first of ``token_file``, else ``$TURNWISE_TOKEN``, else the first of the
    file ``$TURNWISE_TOKEN_FILE``, else none.

    A token file has a JSON object per line with a ``token``, as ``turnwise serve`` writes it.

    Raises:
        BadToken: the file cannot be read or has no token, or the token cannot be sent in a header.
    """
    if token is None:
        given = None if token_file else os.environ.get(TOKEN_VARIABLE)
        file = token_file or os.environ.get(TOKEN_FILE_VARIABLE)
        token = given or (_first_token(Path(file)) if file else None)
    if token is not None and not (token and token.isascii() and token.isprintable() and " " not in token):
        raise BadToken("a token has one or more printable ASCII characters and no spaces")
    return token


def _first_token(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadToken(f"cannot read token file {path}: {error}") from error
    for line in filter(str.strip, lines):
        try:
            token = json.loads(line)["token"]
        except (ValueError, KeyError, TypeError):
            token = None
        if not isinstance(token, str):
            raise BadToken(f'token file {path}: a line is not a JSON object with a "token"')
        return token
    raise BadToken(f"token file {path} has no tokens")
