"""One server as seen from a client: HTTP with authentication, timeouts, retries and validated answers.

Every request of the protocol may be sent twice without harm (creates and forks carry a key, steps and
finishes their turn), so a link simply asks again until it has an answer or its patience is spent.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from typing import TypeVar

import aiohttp
import httpx
import tenacity
from httpx_aiohttp import AiohttpTransport
from pydantic import BaseModel, ValidationError

from turnwise_agent.client.problems import error_for, first_fault, read_problem
from turnwise_agent.errors import AgentError, IncompatibleServer, ServerUnreachable
from turnwise_envs.wire import PROTOCOL_VERSION, Problem

logger = logging.getLogger("turnwise.client")

Answer = TypeVar("Answer", bound=BaseModel)

#: Statuses that say "not now": by the server itself (429, 503) or by a proxy before it.
_NOT_NOW = frozenset({429, 502, 503, 504})

#: Sockets per server. One request occupies one socket, so this bounds the requests in flight.
_MAX_CONNECTIONS = 1024

#: Shorter than `turnwise serve` keeps an idle socket (75 s), so that the client is the one that drops it.
_KEEPALIVE_S = 60.0

#: How long a server that did not answer is passed over when others could be asked.
_AVOID_S = 30.0


@dataclass
class ClientStats:
    """What a client did so far. ``requests`` counts every HTTP request sent, ``retries`` those sent again."""

    requests: int = 0
    retries: int = 0
    steps: int = 0
    forks: int = 0
    rebuilds: int = 0
    replayed_steps: int = 0


class Link:
    """The way to one server.

    ``timeout`` bounds one attempt, ``patience`` a request with all its attempts; both in seconds.
    """

    def __init__(
        self,
        url: str,
        *,
        auth: httpx.Auth,
        patience: float,
        timeout: float,
        transport: httpx.AsyncBaseTransport | None,
        stats: ClientStats,
    ) -> None:
        self.url = url.rstrip("/")
        self.sessions = 0  # open through this client
        self._patience = patience
        self._stats = stats
        self._avoid_until = 0.0
        self._warned = False
        self._http = httpx.AsyncClient(
            base_url=_checked_url(self.url),
            auth=auth,
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            transport=transport or _default_transport(),
        )

    @property
    def answering(self) -> bool:
        """False for a while after a request went unanswered: prefer another server, if there is one."""
        return time.monotonic() >= self._avoid_until

    async def aclose(self) -> None:
        await self._http.aclose()

    async def get(self, path: str, answer: type[Answer], **params: str | int) -> Answer:
        """GET ``path`` and validate the answer. Raises like :meth:`post`."""
        return self._parse(await self._send("GET", path, params=params), answer)

    async def post(self, path: str, body: BaseModel, answer: type[Answer]) -> Answer:
        """POST ``body`` and validate the answer.

        Raises:
            ServerUnreachable: no answer within the patience.
            IncompatibleServer: an answer that this client does not understand.
            ProtocolError: the server refused; the subclass says how.
        """
        try:
            content = body.model_dump_json()
        except ValueError as error:
            raise AgentError(f"POST {path}: the body cannot be sent as JSON: {error}") from error
        return self._parse(await self._send("POST", path, content=content), answer)

    async def delete(self, path: str, *, patience: float) -> None:
        """DELETE ``path`` with its own, usually shorter, patience. Raises like :meth:`post`."""
        await self._send("DELETE", path, patience=min(patience, self._patience))

    async def _send(
        self,
        method: str,
        path: str,
        *,
        content: str | None = None,
        params: dict[str, str | int] | None = None,
        patience: float | None = None,
    ) -> httpx.Response:
        patience = self._patience if patience is None else patience
        # One object per request: tenacity keeps the state of the attempts in it.
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_NotNow),
            stop=tenacity.stop_before_delay(patience),
            wait=_pause,
            before_sleep=lambda _: self._before_retry(patience),
            reraise=True,
        )
        headers = {"content-type": "application/json"} if content is not None else None
        request = self._http.build_request(method, path, content=content, params=params, headers=headers)
        try:
            response: httpx.Response = await attempts(self._attempt, request)
        except _NotNow as gave_up:
            self._avoid_until = time.monotonic() + _AVOID_S
            raise gave_up.final(self.url, patience) from gave_up.__cause__
        self._avoid_until = 0.0
        self._warned = False
        return response

    async def _attempt(self, request: httpx.Request) -> httpx.Response:
        """One exchange. Raises _NotNow for whatever another attempt may cure, AgentError for all else."""
        self._stats.requests += 1
        try:
            response = await self._http.send(request)
        except (httpx.TransportError, aiohttp.ClientError) as error:
            raise _NotNow(str(error) or type(error).__name__) from error
        name = f"{request.method} {request.url.path}"
        problem = read_problem(response) if response.is_error else None
        if response.status_code in _NOT_NOW:
            refusal = error_for(problem, name) if problem else None
            raise _NotNow(f"status {response.status_code}", refusal, _retry_after(response, problem))
        version = response.headers.get("x-turnwise-protocol")
        if version is not None and version != PROTOCOL_VERSION:
            raise IncompatibleServer(
                f"{self.url} speaks version {version} of the Turnwise protocol, this client version "
                f"{PROTOCOL_VERSION}: install matching versions of turnwise on both ends"
            )
        if problem is not None:
            raise error_for(problem, name)
        if version is None or not response.is_success:
            raise IncompatibleServer(
                f"{self.url} does not answer like a Turnwise server ({name}: status {response.status_code}, "
                f"x-turnwise-protocol {version or 'missing'}); check the address"
            )
        return response

    def _parse(self, response: httpx.Response, answer: type[Answer]) -> Answer:
        try:
            return answer.model_validate_json(response.content, extra="ignore")
        except ValidationError as error:
            raise IncompatibleServer(
                f"{self.url} gave a {answer.__name__} that this client cannot read: {first_fault(error)}"
            ) from error

    def _before_retry(self, patience: float) -> None:
        self._stats.retries += 1
        if not self._warned:  # one warning per outage, however many sessions wait
            logger.warning("%s is not answering or busy; trying again for up to %g s", self.url, patience)
        self._warned = True


class _NotNow(Exception):
    """An attempt failed in a way that the next may not. ``refusal`` is the server's own word, if it gave one."""

    def __init__(self, reason: str, refusal: AgentError | None = None, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.refusal = refusal
        self.retry_after = retry_after

    def final(self, url: str, patience: float) -> AgentError:
        """What the caller sees when patience is spent."""
        return self.refusal or ServerUnreachable(
            f"no answer from {url} within {patience:g} s ({self.reason}). Is the server running there? Start it "
            "with `turnwise serve ENV --port PORT`, correct the address, or wait longer with patience="
        )


def _pause(state: tenacity.RetryCallState) -> float:
    """Seconds before the next attempt: what the server asked for, plus full-jitter exponential backoff."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, _NotNow) else 0.0
    return asked + random.uniform(0.0, min(5.0, 0.1 * 2.0 ** min(state.attempt_number, 10)))


def _retry_after(response: httpx.Response, problem: Problem | None) -> float:
    """Seconds that the server asks for, 0 if it does not (a proxy may send a date: backoff does for those)."""
    if problem is not None and problem.retry_after is not None:
        asked = problem.retry_after
    else:
        header = response.headers.get("retry-after", "")
        asked = float(header) if header.isdecimal() else 0.0
    return min(max(asked, 0.0), 60.0)


def _checked_url(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise AgentError(f"{url!r} is not a URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise AgentError(f"{url!r} is not the address of a server; expected something like http://127.0.0.1:8000")
    return parsed


def _default_transport() -> httpx.AsyncBaseTransport:
    """aiohttp below httpx's interface: httpx's own pool loses most of its throughput beyond ~100 in flight."""
    limits = httpx.Limits(max_connections=_MAX_CONNECTIONS, keepalive_expiry=_KEEPALIVE_S)
    return AiohttpTransport(limits=limits)
