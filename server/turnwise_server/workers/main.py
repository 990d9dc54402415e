"""The entry of a worker process: ``python -m turnwise_server.workers.main FD PARENT``. Started by the server only.

The process dies with the server that started it, gives the system's out-of-memory killer a better choice than that
server, and writes down where it hangs before it is killed for that.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import io
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from turnwise_server.workers.child import serve

PR_SET_PDEATHSIG = 1
#: Of -1000 to 1000, where 0 is usual: of a machine's processes a worker is one that can be replaced at once.
OOM_SCORE = "500"


def main() -> None:
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    _die_with(parent)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, encoding="ascii")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what an environment prints is not lost when the worker is killed
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    logging.basicConfig(format=f"worker {os.getpid()}: %(levelname)s %(name)s: %(message)s")
    os.set_inheritable(descriptor, False)
    # Not asyncio.run, and no ordinary exit: both would wait for a thread that hangs in an environment.
    asyncio.new_event_loop().run_until_complete(serve(socket.socket(fileno=descriptor)))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _die_with(parent: int) -> None:
    """Be killed when ``parent`` ends, however it ends; where there is no such call, the end of the socket has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before we said that
            os._exit(0)


if __name__ == "__main__":
    main()
