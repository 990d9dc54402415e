"""One request and its answer, whatever carries it: what HTTP and WebSocket have in common, and the HTTP half."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from pydantic_core import from_json

from turnwise_agent.client.problems import as_problem
from turnwise_agent.errors import AgentError, IncompatibleServer
from turnwise_envs.wire import PROBLEM_URN, PROTOCOL_VERSION, Problem

#: HTTP connections per server. One request occupies one, so this bounds the requests in flight.
_MAX_CONNECTIONS = 1024
#: Shorter than `turnwise serve` keeps an idle connection (75 s), so that the client is the one that drops it.
_KEEPALIVE_S = 60.0


class Reply(NamedTuple):
    """``value`` is the parsed JSON of the body; ``problem`` what a refusal says, if a Turnwise server said it."""

    status: int
    value: object
    problem: Problem | None = None
    retry_after: float = 0.0


class Wire(Protocol):
    """Carries requests to one server. ``target`` is a path with its query, ``content`` a body in JSON."""

    async def exchange(self, method: str, target: str, content: str | None) -> Reply:
        """Raises NotNow for whatever another attempt may cure, AgentError for all else."""
        ...


class NotNow(Exception):
    """An attempt failed in a way that the next may not. ``refusal`` is the server's own word, if it gave one."""

    def __init__(self, reason: str, refusal: AgentError | None = None, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.refusal = refusal
        self.retry_after = retry_after


class HttpWire:
    """One HTTP request per exchange. ``timeout`` bounds it, in seconds."""

    def __init__(
        self,
        url: str,
        *,
        auth: httpx.Auth,
        timeout: float,
        host: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = url
        self._http = httpx.AsyncClient(
            base_url=checked_url(url),
            auth=auth,
            headers={} if host is None else {"host": host},
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            transport=transport or _default_transport(),
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def exchange(self, method: str, target: str, content: str | None) -> Reply:
        headers = {"content-type": "application/json"} if content is not None else None
        response = await self._send(method, target, content, headers)
        problem = _problem_of(response) if response.is_error else None
        reply = Reply(response.status_code, _json(response.content), problem, _retry_after(response))
        if problem is not None or response.status_code in (429, 502, 503, 504):
            return reply
        version = self._checked_version(response)
        if version is None or not response.is_success:
            raise IncompatibleServer(
                f"{self._url} does not answer like a Turnwise server ({method} {response.url.path}: status "
                f"{response.status_code}, x-turnwise-protocol {version or 'missing'}); check the address"
            )
        return reply

    async def ready(self, timeout: float) -> bool:
        """Whether a Turnwise server is there that takes sessions. Never raises for one that is not."""
        try:
            response = await self._http.get("/readyz", timeout=timeout)
        except (httpx.TransportError, aiohttp.ClientError):
            return False
        return response.is_success and response.headers.get("x-turnwise-protocol") == PROTOCOL_VERSION

    async def _send(
        self, method: str, target: str, content: str | None, headers: dict[str, str] | None
    ) -> httpx.Response:
        try:
            response = await self._http.request(method, target, content=content, headers=headers)
        except (httpx.TransportError, aiohttp.ClientError) as error:
            raise NotNow(str(error) or type(error).__name__) from error
        self._checked_version(response)
        return response

    def _checked_version(self, response: httpx.Response) -> str | None:
        version: str | None = response.headers.get("x-turnwise-protocol")
        if version is not None and version != PROTOCOL_VERSION:
            raise IncompatibleServer(
                f"{self._url} speaks version {version} of the Turnwise protocol, this client version "
                f"{PROTOCOL_VERSION}: install matching versions of turnwise on both ends"
            )
        return version


def checked_url(url: str) -> httpx.URL:
    """Raises AgentError for what is not the address of a server."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise AgentError(f"{url!r} is not a URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise AgentError(f"{url!r} is not the address of a server; expected something like http://127.0.0.1:8000")
    return parsed


def _problem_of(response: httpx.Response) -> Problem | None:
    """The problem that an error answer carries; None if it carries none, or not one of a Turnwise server."""
    if not response.headers.get("content-type", "").startswith("application/problem+json"):
        return None
    problem = as_problem(_json(response.content))
    ours = problem is not None and (problem.type.startswith(PROBLEM_URN) or "x-turnwise-protocol" in response.headers)
    return problem if ours else None


def _retry_after(response: httpx.Response) -> float:
    """Seconds that the header asks for, 0 if it does not (a proxy may send a date: backoff does for those)."""
    header = response.headers.get("retry-after", "")
    return float(header) if header.isdecimal() else 0.0


def _json(content: bytes) -> object:
    try:
        return from_json(content) if content else None
    except ValueError:
        return None


def _default_transport() -> httpx.AsyncBaseTransport:
    """aiohttp below httpx's interface: httpx's own pool loses most of its throughput beyond ~100 in flight."""
    limits = httpx.Limits(max_connections=_MAX_CONNECTIONS, keepalive_expiry=_KEEPALIVE_S)
    return AiohttpTransport(limits=limits)
