"""Ports that stay one's own."""

from __future__ import annotations

import socket


class Holder(socket.socket):
    """Is closed with the last reference to it, and that is no reason for a warning."""

    def __del__(self) -> None:
        self.close()


def held() -> Holder:
    """A socket that holds a port of 127.0.0.1 and does not listen: connections are refused until a server does.

    A server that is given the port may listen there, end and come again; meanwhile the system gives the port to nobody
    else, as it may with one that was only looked for and let go.
    """
    holder = Holder()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


def listens(port: int) -> bool:
    """Somebody takes connections at this port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
