"""Waiting for what must come: look again and again, with a patience that only a hang uses up.

A test that sleeps for a while instead, and presumes that it has happened by then, fails on a busy machine.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

#: Seconds. Nothing that works takes as long, and pytest gives up on a test only after 600.
PATIENCE = 90.0


async def eventually(check: Callable[[], object | Awaitable[object]], patience: float = PATIENCE) -> None:
    """Return as soon as ``check()`` is true, awaited if it can be. Raises TimeoutError."""
    async with asyncio.timeout(patience):
        while True:
            found = check()
            if await found if inspect.isawaitable(found) else found:
                return
            await asyncio.sleep(0.01)


def until(check: Callable[[], object], patience: float = PATIENCE) -> None:
    """The same without an event loop. Raises TimeoutError."""
    end = time.monotonic() + patience
    while not check():
        if time.monotonic() > end:
            raise TimeoutError(f"it did not come to that in {patience:g} s")
        time.sleep(0.02)
