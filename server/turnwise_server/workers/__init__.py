"""Worker processes for blocking environments: a hung thread cannot be killed, a process can.

A worker is a :class:`~turnwise_server.hosts.LocalHost` behind a socket pair. Each session is pinned to one worker, a
worker does one call at a time in the order of asking, and so it is always known which call was running when a worker
is lost: that one failed, and all others are merely moved (:class:`~turnwise_server.hosts.EnvironmentGone`).

- ``host``: :class:`~turnwise_server.workers.host.WorkerHost`, what the session store sees
- ``pool``: which worker gets a new session; replaces workers that end
- ``process``: one worker as the server sees it, from spawn to death
- ``child``: the loop in the worker itself; ``main`` starts it
- ``messages`` and ``frames``: what goes over the socket pair
"""
