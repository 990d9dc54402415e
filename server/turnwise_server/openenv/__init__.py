"""OpenEnv's wire, so that its clients drive our environments unchanged (protocol.md, "OpenEnv compatibility").

One of its sockets is one *seat*: it holds one episode at a time, and an episode is a session of ours, with all that
comes with it. Everything here is translation; what it translates to are the calls of the v1 protocol. Made after the
packages ``openenv`` 0.10 and ``openenv-core`` 0.3.0, none of which is needed.
"""

from turnwise_server.openenv.routes import add_routes

__all__ = ["add_routes"]
