"""The causes of faults that workers report, so that a server's log says what happened there."""

from __future__ import annotations


class WorkerDied(Exception):
    """The cause of a fault: the worker's process ended by itself or was killed from outside."""


class RemoteError(Exception):
    """The cause of a fault: an exception inside a worker. Its notes hold the traceback from there."""


def remote_error(kind: str, text: str, trace: str) -> RemoteError:
    """An exception whose class has the name that the original one had in the worker."""
    error: RemoteError = type(kind if kind.isidentifier() else "RemoteError", (RemoteError,), {})(text)
    error.add_note(f"in the worker:\n{trace.rstrip()}")
    return error
