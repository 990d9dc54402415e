"""Start a program in the sandbox, read what it says, and end it in time."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from turnwise_envs.tools.sandbox import bwrap, seccomp
from turnwise_envs.tools.sandbox.bwrap import SandboxUnavailable

Status = Literal["ok", "error", "time", "output", "crash"]


@dataclass(frozen=True)
class Limits:
    """What one program may use. ``wall_seconds`` stands behind ``cpu_seconds``, for programs that wait."""

    cpu_seconds: int = 2
    wall_seconds: float = 10.0
    memory_bytes: int = 256 << 20
    output_bytes: int = 64 << 10
    scratch_bytes: int = 8 << 20
    open_files: int = 32
    program_characters: int = 16_000  # in UTF-8 they fit into a pipe


LIMITS = Limits()


@dataclass(frozen=True)
class Outcome:
    """What a program said on both of its outputs, cut at ``output_bytes``, and how it ended.

    ``ok``: by itself. ``error``: with an exception or another exit status than 0. ``time``: its time was up.
    ``output``: it said too much. ``crash``: a signal ended the interpreter. ``detail`` says so in words, "" when ok.
    """

    text: str
    status: Status
    detail: str = ""


def run_python(program: str, limits: Limits = LIMITS, *, before: Sequence[str] = ()) -> Outcome:
    """Run ``program`` in a sandbox of its own. Blocks for at most ``wall_seconds``.

    Those ``before`` it are run first, unheard, and it sees what they defined, as in a notebook; the limits are for all of
    them together. Raises SandboxUnavailable.
    """
    require_sandbox()
    if len(program) + sum(map(len, before)) > limits.program_characters:
        those = "it and those before it are" if before else "it is"
        return Outcome(
            "", "error", f"the program is too long: {those} longer than {limits.program_characters} characters"
        )
    return _run([*before, program], limits)


@lru_cache(maxsize=1)
def require_sandbox() -> None:
    """Raise SandboxUnavailable, saying why, unless a program can be run here. Tried once a process."""
    tried = _run(["print(6 * 7)"], LIMITS)
    if (tried.status, tried.text) != ("ok", "42\n"):
        said = tried.text.strip().splitlines()
        raise SandboxUnavailable(
            f"bubblewrap is installed but makes no sandbox here: {said[-1] if said else tried.detail or 'no output'}; "
            "it needs user namespaces (in a container: a seccomp profile that permits them)"
        )


def _run(programs: Sequence[str], limits: Limits) -> Outcome:
    filter_fd = _readable(seccomp.program())
    try:
        words = [
            *bwrap.command(filter_fd, limits.scratch_bytes),
            "-c", _inside(), str(limits.cpu_seconds), str(limits.memory_bytes), str(limits.scratch_bytes),
            str(limits.open_files),
        ]  # fmt: skip
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(filter_fd,),
            env={},
            start_new_session=True,
        )
    finally:
        os.close(filter_fd)
    deadline = time.monotonic() + limits.wall_seconds
    with process:
        try:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(_script(programs))
            said, stopped = _listen(process, deadline, limits.output_bytes)
            if stopped is None:
                try:
                    process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    stopped = "time"
        finally:
            process.kill()  # the sandbox's first process dies with it, and all others with that
    text = said[: limits.output_bytes].decode(errors="replace")
    return Outcome(text, *_ending(stopped, process.returncode, limits))


def _script(programs: Sequence[str]) -> bytes:
    """Their lengths in a line, and then the programs: a separator could stand in one of them."""
    encoded = [program.encode(errors="replace") for program in programs]
    return " ".join(str(len(each)) for each in encoded).encode() + b"\n" + b"".join(encoded)


def _listen(process: subprocess.Popen[bytes], deadline: float, most: int) -> tuple[bytes, Status | None]:
    """What it says until it closes its output, and why it had to be stopped, if so."""
    assert process.stdout is not None
    said = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                return bytes(said), "time"
            chunk = os.read(process.stdout.fileno(), 1 << 16)
            if not chunk:
                return bytes(said), None
            said += chunk
            if len(said) > most:
                return bytes(said), "output"


def _ending(stopped: Status | None, code: int, limits: Limits) -> tuple[Status, str]:
    if stopped == "output":
        return "output", f"more than {limits.output_bytes} bytes of output"
    if stopped == "time":
        return "time", f"not done after {limits.wall_seconds:g} s"
    if code == 0:
        return "ok", ""
    number = code - 128  # bwrap tells a signal as a shell does
    if number == signal.SIGXCPU or number == signal.SIGKILL:
        return "time", f"more than {limits.cpu_seconds} s of computing"
    if number in {known.value for known in signal.Signals}:
        return "crash", f"the interpreter was ended by {signal.Signals(number).name}"
    return "error", f"exit status {code}"


def _readable(data: bytes) -> int:
    """A file descriptor to read ``data`` from (less than a pipe holds)."""
    reader, writer = os.pipe()
    try:
        os.write(writer, data)
    finally:
        os.close(writer)
    return reader


@lru_cache(maxsize=1)
def _inside() -> str:
    return Path(__file__).with_name("inside.py").read_text()


__all__ = ["LIMITS", "Limits", "Outcome", "SandboxUnavailable", "require_sandbox", "run_python"]
