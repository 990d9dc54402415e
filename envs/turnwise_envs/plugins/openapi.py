"""Any OpenAPI service as an environment: ``turnwise serve openapi --spec openapi.json --tasks tasks.jsonl``.

The operations of the service become the policy's tools (:mod:`.openapi_spec`), and :mod:`.errands` says what is asked
of it and how that is scored. The service keeps its state between episodes: nothing here can reset it, so the
environment is not deterministic unless the user promises it with ``--deterministic true``.

An error status is an observation, and so is a call that takes too long. A service that cannot be reached is an
EnvironmentFault. Redirects are followed on the same host only, with the same method; secrets are hidden
(:mod:`.private`).
"""

from __future__ import annotations

import asyncio
import json
import ssl
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urljoin, urlsplit

import httpx

from turnwise_envs.adapters import adapter
from turnwise_envs.environment import Environment
from turnwise_envs.errors import EnvironmentFault
from turnwise_envs.plugins.errands import (
    ANSWER_TOOL,
    ErrandEnvironment,
    Errands,
    chosen,
    read_errands,
    spec_of,
)
from turnwise_envs.plugins.openapi_spec import Operation, Request, operations, server_of
from turnwise_envs.plugins.private import Headers
from turnwise_envs.tools_api import ToolAnswer, Toolbox, ToolMistake, clip
from turnwise_envs.types import JsonObject

#: Bytes of an answer that are read, and of a document.
MAX_ANSWER, MAX_SPEC = 1024 * 1024, 16 * 1024 * 1024
MAX_REDIRECTS = 5
#: Seconds for fetching a document.
FETCH_LIMIT = 60.0


class OpenApiEnvironment(ErrandEnvironment):
    """One episode with an OpenAPI service. The class attributes are set by :func:`openapi`."""

    operations: ClassVar[dict[str, Operation]]
    base_url: ClassVar[str]
    headers: ClassVar[Headers]
    timeout: ClassVar[float]
    max_chars: ClassVar[int]

    _client: httpx.AsyncClient | None = None

    async def open(self) -> None:
        self._client = httpx.AsyncClient(verify=_tls(), timeout=None, follow_redirects=False)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def call(self, name: str, arguments: JsonObject) -> ToolAnswer:
        request = self.operations[name].request(arguments)
        try:
            async with asyncio.timeout(self.timeout):
                status, kind, body = await self._send(request)
        except TimeoutError as error:
            raise ToolMistake(f"{name} took longer than {self.timeout:g} s and was given up.") from error
        except httpx.HTTPError as error:
            what = self.headers.hide(f"{type(error).__name__}: {error}")
            raise EnvironmentFault(f"the service at {self.base_url} cannot be reached: {clip(what, 300)}") from error
        good = status < 300
        text = self.headers.hide(_text(kind, body))
        head = "" if good and text else _status(status)
        shown = f"{head}: {text}" if head and text else head or text
        return ToolAnswer(clip(shown, self.max_chars), effective=good)

    async def _send(self, request: Request) -> tuple[int, str, bytes]:
        """Status, content type and body, after redirects on the same host."""
        assert self._client is not None
        url = self.base_url + request.path
        headers = self.headers.values() | request.headers | {"accept": "application/json, text/*;q=0.9, */*;q=0.1"}
        if request.body is not None:
            headers["content-type"] = "application/json"
        for _ in range(MAX_REDIRECTS):
            sent = self._client.stream(request.method, url, headers=headers, content=request.body)
            async with sent as response:
                body = await _limited(response, MAX_ANSWER)
                following = urljoin(url, response.headers.get("location", ""))
                if not _follows(request.method, response, url, following):
                    break
                url = following
        return response.status_code, response.headers.get("content-type", ""), body


@adapter
def openapi(
    name: str = "",
    *,
    spec: str,
    tasks: Path,
    base_url: str | None = None,
    only: str | None = None,
    header: str | None = None,
    timeout: float = 20.0,
    max_chars: int = 8000,
    max_turns: int = 20,
    stateless: bool = False,
    deterministic: bool = False,
) -> type[Environment]:
    """Make an environment of the service that the document ``spec`` describes, a file or an address.

    ``base_url`` is where the service is, if not where the document says. ``only`` names the operations that the policy
    gets, separated by commas. ``header`` is sent with every call. ``timeout`` is in seconds a call, ``max_chars`` the
    length of an answer.

    Raises ValueError for arguments and documents that make no sense, BadTasks, EnvironmentFault.
    """
    secrets = Headers(header)
    document, source = _document(spec, secrets)
    found = {one.tool.name: one for one in operations(document)}
    tools = chosen([one.tool for one in found.values()], only)
    if not tools:
        raise ValueError(f"--spec {spec}: none of its operations can be a tool")
    errands = read_errands(tasks)
    toolbox = Toolbox([*tools, ANSWER_TOOL])
    where = _base(base_url or server_of(document), source)
    limit, length = timeout, max_chars

    class Made(OpenApiEnvironment):
        spec = spec_of(
            f"openapi:{name}" if name else "openapi",
            str(document.get("info", {}).get("title", ""))[:200],
            toolbox,
            errands,
            max_turns=max_turns,
            deterministic=deterministic,
            stateless=stateless,
        )
        tasks = Errands(spec, errands)
        box = toolbox
        operations = found
        base_url = where
        headers = secrets
        timeout = limit
        max_chars = length

    return Made


def _document(spec: str, headers: Headers) -> tuple[Any, str | None]:
    """The parsed document, and its address if it has one."""
    if urlsplit(spec).scheme in ("http", "https"):
        text, source = _fetched(spec, headers), spec
    else:
        try:
            text, source = Path(spec).read_text(encoding="utf-8"), None
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"--spec {spec}: {getattr(error, 'strerror', None) or error}") from error
    try:
        return json.loads(text), source
    except ValueError:
        import yaml

        try:
            return yaml.safe_load(text), source
        except yaml.YAMLError as error:
            raise ValueError(f"--spec {spec} is neither JSON nor YAML: {str(error).splitlines()[0]}") from error


def _fetched(url: str, headers: Headers) -> str:
    try:
        with (
            httpx.Client(verify=_tls(), timeout=FETCH_LIMIT) as client,
            client.stream("GET", url, headers=headers.values()) as response,
        ):
            if response.status_code != 200:
                raise ValueError(f"--spec {url}: the answer is {_status(response.status_code)}")
            body = b""
            for piece in response.iter_bytes():
                body += piece
                if len(body) > MAX_SPEC:
                    raise ValueError(f"--spec {url}: the document is larger than {MAX_SPEC} bytes")
    except httpx.HTTPError as error:
        raise EnvironmentFault(headers.hide(f"--spec {url}: {type(error).__name__}: {error}")) from error
    return body.decode(errors="replace")


def _base(url: str | None, source: str | None) -> str:
    """The address of the service without a slash at its end."""
    absolute = urljoin(source or "", url or "")
    parts = urlsplit(absolute)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("the document does not say where the service is: give --base-url http://...")
    if parts.query or parts.fragment or parts.username:
        raise ValueError("--base-url has a query, a fragment or a password; a secret goes into --header")
    return absolute.rstrip("/")


async def _limited(response: httpx.Response, limit: int) -> bytes:
    """At most ``limit`` bytes of the body; the rest is not read."""
    body = b""
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) >= limit:
            break
    return body[:limit]


def _follows(method: str, response: httpx.Response, url: str, following: str) -> bool:
    """A redirect to the same place, where the method stays what it is."""
    if not response.has_redirect_location:
        return False
    here, there = urlsplit(url), urlsplit(following)
    same_place = (here.scheme, here.netloc) == (there.scheme, there.netloc)
    return same_place and (response.status_code in (307, 308) or method in ("GET", "HEAD"))


def _text(kind: str, body: bytes) -> str:
    if not body:
        return ""
    media = kind.partition(";")[0].strip().lower()
    if media.startswith("text/") or "json" in media or "xml" in media or not media:
        return body.decode(errors="replace")
    return f"[{media}, {len(body)} bytes]"


def _status(code: int) -> str:
    try:
        return f"HTTP {code} {HTTPStatus(code).phrase}"
    except ValueError:
        return f"HTTP {code}"


@cache
def _tls() -> ssl.SSLContext:
    """Reading the certificates takes tens of milliseconds: once a process."""
    return httpx.create_ssl_context()
