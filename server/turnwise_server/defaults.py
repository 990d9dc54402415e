"""Default settings, apart from :mod:`turnwise_server.settings` so that ``turnwise --help`` imports nothing heavy."""

import os
from typing import Literal

Sync = Literal["normal", "full"]
LogLevel = Literal["debug", "info", "warning", "error"]


HOST = "127.0.0.1"
PORT = 8000
#: Seconds for one call into an environment. A model's tool call rarely needs more, and a hung one frees its turn.
STEP_TIMEOUT = 30.0
#: Live sessions; finished ones are kept besides, up to the same number again.
MAX_SESSIONS = 4096
#: Seconds without a request after which a session is given up: longer than a slow model or a weight update.
IDLE_TIMEOUT = 3600.0
#: Seconds after which a session that nobody asks for leaves memory, if there is a journal to come back from.
PASSIVATE_AFTER = 60.0
#: Time from the beginning of a session to its end, whatever happens in it.
LIFETIME = "7d"
#: Turns between two snapshots of an environment that has them: bounds what a replay has to repeat.
SNAPSHOT_EVERY = 16
#: Bytes of a session's history.
MAX_HISTORY = 64 * 1024 * 1024
SYNC: Sync = "normal"
#: For how long the answers of a finished session are kept, and how large a journal may grow before they go early.
RETAIN = "7d"
RETAIN_BYTES = 16 * 1024**3
#: Bytes of a request body: a replayed log of some hundred turns fits.
MAX_BODY = 4 * 1024 * 1024
#: Operations in flight, and of one client: all sessions may be stepped at once, and one client leaves room for others.
MAX_REQUESTS = 8192
MAX_CLIENT_REQUESTS = 6144
#: Bytes of large bodies on their way at a time: some dozen replays of the largest kind.
MAX_BUFFERED = 256 * 1024 * 1024
#: Open connections; each costs a descriptor and some kilobytes.
MAX_CONNECTIONS = 8192
#: Seconds a client gets to send a request, or to take the next piece of an answer.
CLIENT_TIMEOUT = 60.0
#: Processes for blocking environments: one a core, and on a large machine no more than most people have use for.
WORKERS = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
LOG_LEVEL: LogLevel = "warning"
