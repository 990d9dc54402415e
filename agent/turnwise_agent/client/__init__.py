"""Clients of environment servers: drive remote episodes as if nothing could go wrong with the network.

Every call is retried until the server's answer arrives or patience runs out; a session that its server has
forgotten is rebuilt by replaying its action log and goes on. What this room does not do: choose actions
(``turnwise_agent.engines``) or schedule episodes (``turnwise_agent.rollout``).
"""

from turnwise_agent.client.client import TurnwiseClient
from turnwise_agent.client.link import ClientStats
from turnwise_agent.client.session import Session
from turnwise_agent.client.sync import SyncClient, SyncSession

__all__ = ["ClientStats", "Session", "SyncClient", "SyncSession", "TurnwiseClient"]
