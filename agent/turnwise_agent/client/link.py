"""One server as seen from a client: authentication, timeouts, retries and validated answers.

Every request of the protocol may be sent twice without harm (creates and forks carry a key, steps and
finishes their turn), so a link simply asks again until it has an answer or its patience is spent. Requests go over a
WebSocket; over HTTP where there is none.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlencode

import httpx
from pydantic import BaseModel, ValidationError

from turnwise_agent.client.exchange import HttpWire, NotNow, Reply
from turnwise_agent.client.problems import error_for, first_fault
from turnwise_agent.client.socket import NoSocket, SocketWire
from turnwise_agent.client.tokens import BearerAuth
from turnwise_agent.errors import AgentError, IncompatibleServer, ServerUnreachable

logger = logging.getLogger("turnwise.client")

Answer = TypeVar("Answer", bound=BaseModel)
Query = Mapping[str, str | int]

#: Statuses that say "not now": by the server itself (429, 503) or by a proxy before it.
_NOT_NOW = frozenset({429, 502, 503, 504})
#: How long a server that did not answer is passed over when others could be asked.
_AVOID_S = 30.0
#: Seconds of silence after which a server counts as lost for whoever can go on elsewhere. A killed server that starts
#: again with its journal takes less, and then nothing has to be replayed.
_LOST_S = 15.0
#: Seconds that a probe waits.
_PROBE_S = 5.0


@dataclass
class ClientStats:
    """What a client did so far. ``requests`` counts every request sent, ``retries`` those sent again."""

    requests: int = 0
    retries: int = 0
    sessions: int = 0
    steps: int = 0
    forks: int = 0
    rebuilds: int = 0
    replayed_steps: int = 0


class Link:
    """The way to one server.

    ``timeout`` bounds one attempt, ``patience`` a request with all its attempts; both in seconds. ``host`` is the name
    to call the server by if that is not the one in ``url``. With a ``transport`` all goes over that, without sockets.
    """

    def __init__(
        self,
        url: str,
        *,
        auth: BearerAuth,
        patience: float,
        timeout: float,
        transport: httpx.AsyncBaseTransport | None,
        stats: ClientStats,
        host: str | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.host = host
        self.sessions = 0  # open through this client
        self.opening = 0  # being opened through it
        self._patience = patience
        self._stats = stats
        self._avoid_until = 0.0
        self._silent_since: float | None = None
        self._warned = False
        self._http = HttpWire(self.url, auth=auth, timeout=timeout, host=host, transport=transport)
        self._socket = None
        if transport is None:
            self._socket = SocketWire(self.url, auth=auth, timeout=timeout, host=host, check=self._check)

    @property
    def rank(self) -> tuple[bool, bool, int]:
        """Links in this order are the best choice for a new session: those that answer, then those with fewest."""
        return time.monotonic() < self._avoid_until, self._silent_since is not None, self.sessions + self.opening

    @property
    def lost(self) -> bool:
        """Nothing was heard from the server for so long that whoever can go on elsewhere should."""
        return self._silent_since is not None and time.monotonic() - self._silent_since >= _LOST_S

    async def aclose(self) -> None:
        if self._socket is not None:
            await self._socket.aclose()
        await self._http.aclose()

    async def probe(self) -> None:
        """Find out whether the server takes sessions, and remember it."""
        if await self._http.ready(_PROBE_S):
            self._heard()
        else:
            self._unheard()

    async def get(
        self,
        path: str,
        answer: type[Answer],
        query: Query | None = None,
        *,
        movable: bool = False,
        hand_over: bool = False,
    ) -> Answer:
        """GET ``path`` and validate the answer. Raises like :meth:`post`."""
        target = f"{path}?{urlencode(query)}" if query else path
        return self._parse(await self._send("GET", target, None, movable=movable, hand_over=hand_over), answer)

    async def post(
        self, path: str, body: BaseModel, answer: type[Answer], *, movable: bool = False, hand_over: bool = False
    ) -> Answer:
        """POST ``body`` and validate the answer.

        ``movable`` says that another server could go on with it, ``hand_over`` that another is asked at once if this
        one has no room.

        Raises:
            ServerUnreachable: no answer within the patience, or for something movable from a server that is lost.
            Overloaded: the server has been full for the patience, or at once with ``hand_over``.
            IncompatibleServer: an answer that this client does not understand.
            ProtocolError: the server refused; the subclass says how.
        """
        try:
            content = body.model_dump_json()
        except ValueError as error:
            raise AgentError(f"POST {path}: the body cannot be sent as JSON: {error}") from error
        return self._parse(await self._send("POST", path, content, movable=movable, hand_over=hand_over), answer)

    async def delete(self, path: str, *, patience: float) -> None:
        """DELETE ``path`` with its own, usually shorter, patience. Raises like :meth:`post`."""
        await self._send("DELETE", path, None, patience=min(patience, self._patience))

    async def _send(
        self,
        method: str,
        target: str,
        content: str | None,
        *,
        patience: float | None = None,
        movable: bool = False,
        hand_over: bool = False,
    ) -> Reply:
        patience = self._patience if patience is None else patience
        deadline = time.monotonic() + patience
        attempt = 0
        while True:
            try:
                reply = await self._attempt(method, target, content)
            except NotNow as fault:
                attempt += 1
                left = deadline - time.monotonic()
                asked = min(max(fault.retry_after, 0.0), 60.0)
                if fault.refusal is None:
                    self._unheard()
                else:
                    self._silent_since = None
                elsewhere = ((movable or hand_over) and self.lost) or (hand_over and fault.refusal is not None)
                if left <= asked or elsewhere:
                    raise self._final(fault, patience) from fault.__cause__
            else:
                self._heard()
                return reply
            self._stats.retries += 1
            if not self._warned:  # one warning per outage, however many sessions wait
                logger.warning("%s is not answering or busy; trying again for up to %g s", self.url, patience)
            self._warned = True
            await asyncio.sleep(min(asked + _backoff(attempt), left))  # the last attempt is made when patience ends

    async def _attempt(self, method: str, target: str, content: str | None) -> Reply:
        """One exchange. Raises NotNow for whatever another attempt may cure, AgentError for all else."""
        self._stats.requests += 1
        reply = await self._exchange(method, target, content)
        if reply.status < 400:
            return reply
        name = f"{method} {target.partition('?')[0]}"
        refusal = error_for(reply.problem, name) if reply.problem else None
        if refusal is None or reply.status in _NOT_NOW:
            asked = reply.problem.retry_after if reply.problem else None
            raise NotNow(f"status {reply.status}", refusal, reply.retry_after if asked is None else asked)
        raise refusal

    async def _exchange(self, method: str, target: str, content: str | None) -> Reply:
        if self._socket is not None:
            try:
                return await self._socket.exchange(method, target, content)
            except NoSocket:
                pass
        return await self._http.exchange(method, target, content)

    async def _check(self) -> None:
        """Raises NotNow or IncompatibleServer unless a Turnwise server of our version is there."""
        reply = await self._http.exchange("GET", "/healthz", None)
        if reply.status >= 400:
            raise NotNow(f"status {reply.status}", retry_after=reply.retry_after)

    def _parse(self, reply: Reply, answer: type[Answer]) -> Answer:
        try:
            return answer.model_validate(reply.value, extra="ignore")
        except ValidationError as error:
            raise IncompatibleServer(
                f"{self.url} gave a {answer.__name__} that this client cannot read: {first_fault(error)}"
            ) from error

    def _heard(self) -> None:
        self._silent_since = None
        self._avoid_until = 0.0
        self._warned = False

    def _unheard(self) -> None:
        if self._silent_since is None:
            self._silent_since = time.monotonic()

    def _final(self, fault: NotNow, patience: float) -> AgentError:
        """What the caller sees when patience is spent."""
        self._avoid_until = time.monotonic() + _AVOID_S
        return fault.refusal or ServerUnreachable(
            f"no answer from {self.url} within {patience:g} s ({fault.reason}). Is the server running there? Start it "
            "with `turnwise serve ENV --port PORT`, correct the address, or wait longer with patience="
        )


def _backoff(attempt: int) -> float:
    """Seconds to wait beyond what the server asked for: exponential, with full jitter."""
    return random.uniform(0.0, min(5.0, 0.1 * 2.0 ** min(attempt, 10)))
