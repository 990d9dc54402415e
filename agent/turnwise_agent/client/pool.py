"""Several servers that serve the same environments: which there are, how they are, and where something new goes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import httpx

from turnwise_agent.client.exchange import checked_url
from turnwise_agent.client.link import Link
from turnwise_agent.errors import AgentError, Overloaded, ServerUnreachable

logger = logging.getLogger("turnwise.client")

T = TypeVar("T")

#: An address that begins with this stands for all addresses of its host name, each of them a server.
NAME = "dns+"
#: Seconds between looks at how the servers are, and at which addresses a name has.
_WATCH_S = 5.0
#: Seconds, at least, until servers that are all full are asked again.
_FULL_S = 0.1
#: Seconds between attempts to resolve a name that nobody knows yet.
_RESOLVE_AGAIN_S = 1.0


class Pool:
    """Links to ``servers``, made by ``connect(url, host)``; ``host`` is the name behind an address that was looked up.

    Raises:
        AgentError: an address is not one.
    """

    def __init__(self, servers: Sequence[str], connect: Callable[[str, str | None], Link], patience: float) -> None:
        if not servers:
            raise AgentError("a client needs the address of at least one server")
        self._connect = connect
        self._patience = patience
        self._names = [_checked_name(server) for server in servers if server.startswith(NAME)]
        self._links = {url: connect(url, None) for url in servers if not url.startswith(NAME)}
        self._retired: list[Link] = []
        self._starting = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None

    @property
    def plural(self) -> bool:
        """There are other servers to go on with, or there may be."""
        return len(self._links) > 1 or bool(self._names)

    async def aclose(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        for link in [*self._links.values(), *self._retired]:
            await link.aclose()

    async def anywhere(self, call: Callable[[Link, bool], Awaitable[T]]) -> T:
        """``call(link, others)`` with the least loaded server that answers.

        With ``others``, one that does not answer or has no room hands over to the next; where none has any, all are
        asked again after a while, as long as patience lasts. Raises what ``call`` raises.
        """
        if self.plural and self._watching is None:
            await self._start()
        deadline = time.monotonic() + self._patience
        while True:
            full: Overloaded | None = None
            *others, last = sorted(self._links.values(), key=lambda link: link.rank)
            for link in others:
                try:
                    return await call(link, True)
                except ServerUnreachable:
                    continue
                except Overloaded as error:
                    full = error
            if full is None:
                return await call(last, False)
            try:
                return await call(last, True)
            except ServerUnreachable:
                pass
            except Overloaded as error:
                full = error
            pause = random.uniform(1.0, 1.5) * max(full.problem.retry_after or 0.0, _FULL_S)
            if time.monotonic() + pause >= deadline:
                raise full
            await asyncio.sleep(pause)

    async def _start(self) -> None:
        """Look all names up and begin to watch. Raises ServerUnreachable for names that stay unknown."""
        async with self._starting:
            if self._watching is not None:
                return
            deadline = time.monotonic() + self._patience
            while True:
                try:
                    await self._look_up()
                    break
                except OSError as error:
                    if time.monotonic() + _RESOLVE_AGAIN_S >= deadline:
                        raise ServerUnreachable(f"cannot find the servers: {error}") from error
                await asyncio.sleep(_RESOLVE_AGAIN_S)
            self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_S)
            with contextlib.suppress(OSError):  # the name server may come back; until then we keep what we know
                await self._look_up()
            await asyncio.gather(*(link.probe() for link in self._links.values()))
            for link in [link for link in self._retired if link.sessions == 0]:
                self._retired.remove(link)
                await link.aclose()

    async def _look_up(self) -> None:
        """Make links to new addresses of our names, and give none that is gone anything new. Raises OSError."""
        for name in self._names:
            urls = await addresses(name)
            for url in urls - self._links.keys():
                logger.info("%s is also at %s", name, url)
                self._links[url] = self._connect(url, name.netloc.decode())
            known = {url for url, link in self._links.items() if link.host == name.netloc.decode()}
            for url in known - urls:
                self._retired.append(self._links.pop(url))


async def addresses(name: httpx.URL) -> set[str]:
    """The URLs of all addresses that a host name has: IPv4 if there are any, else IPv6, for a server with both is one.

    Raises:
        OSError: nobody knows the name.
    """
    port = name.port or 80
    found = await asyncio.get_running_loop().getaddrinfo(name.host, port, type=socket.SOCK_STREAM)
    hosts = {str(place[0]) for family, _, _, _, place in found if family == socket.AF_INET}
    hosts = hosts or {f"[{place[0]}]" for family, _, _, _, place in found if family == socket.AF_INET6}
    return {f"http://{host}:{port}" for host in hosts}


def _checked_name(server: str) -> httpx.URL:
    url = checked_url(server.removeprefix(NAME))
    if url.scheme != "http":
        raise AgentError(f"{server!r}: a name with several addresses is spoken to without TLS; use {NAME}http://")
    return url
