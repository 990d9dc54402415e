"""The walls: bubblewrap's arguments for a Python that sees nothing of this machine but its own files, read-only.

New user, mount, pid, network, IPC, UTS and cgroup namespaces; no capabilities; an empty root with the interpreter at
``/python`` (so that no path of this machine shows up in a traceback), the C library beside it, no ``/proc``, three
harmless devices and one small temporary directory. Nothing of the environment is inherited.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path

from turnwise_envs.errors import TurnwiseError
from turnwise_envs.tools.sandbox import seccomp


class SandboxUnavailable(TurnwiseError):
    """Programs of strangers cannot be run safely here; the text says why and what to do."""


_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")


def command(seccomp_fd: int, scratch_bytes: int) -> list[str]:
    """The argv up to and including the interpreter with its flags. Raises SandboxUnavailable."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise SandboxUnavailable(
            "the python tool needs bubblewrap to run a model's programs safely, and there is no `bwrap` on the PATH; "
            "install it (apt-get install bubblewrap)"
        )
    if sys.platform != "linux" or platform.machine() not in seccomp.MACHINES:
        known = " and ".join(seccomp.MACHINES)
        raise SandboxUnavailable(f"the python tool runs on Linux on {known} only, not on {platform.machine()}")
    prefix, python = Path(sys.base_prefix).resolve(), Path(os.path.realpath(sys.executable))
    if not python.is_relative_to(prefix):
        raise SandboxUnavailable(f"the interpreter {python} does not lie inside its own prefix {prefix}")
    return [
        bwrap, "--unshare-user", "--unshare-all", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL",
        "--die-with-parent", "--new-session", "--hostname", "sandbox", "--seccomp", str(seccomp_fd),
        *_libraries(), "--ro-bind", str(prefix), "/python",
        *(word for device in _DEVICES for word in ("--dev-bind", device, device)),
        "--size", str(scratch_bytes), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp",
        "--clearenv", "--setenv", "PYTHONHASHSEED", "0", "--setenv", "LC_ALL", "C.UTF-8", "--setenv", "HOME", "/tmp",
        "--setenv", "LD_LIBRARY_PATH", "/python/lib", "--setenv", "PYTHONHOME", "/python",
        f"/python/{python.relative_to(prefix)}", "-s", "-S", "-P", "-B", "-X", "utf8",
    ]  # fmt: skip


def _libraries() -> list[str]:
    words: list[str] = []
    for path in map(Path, _LIBRARIES):
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            words += ["--ro-bind", str(path), str(path)]
    return [*words, "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
