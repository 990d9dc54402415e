"""A seccomp filter, as the bytes that bubblewrap takes: no new processes or threads, no sockets, no kernel adventures.

Resource limits alone do not stop a fork bomb (a root user's processes are not counted) nor memory that belongs to no
process (memfd, System V shared memory). So the calls that make them are answered with EPERM.
"""

from __future__ import annotations

import platform
import struct
from typing import NamedTuple

EPERM, ENOSYS = 1, 38


class Machine(NamedTuple):
    """The kernel's name for an architecture, and its numbers of the calls that are refused."""

    audit_arch: int
    refused: dict[str, int]


#: The same numbers on all architectures (they were added after 2018).
_COMMON = {
    "io_uring_setup": 425, "open_tree": 428, "move_mount": 429, "fsopen": 430, "mount_setattr": 442, "memfd_secret": 447,
}  # fmt: skip

MACHINES = {
    "x86_64": Machine(
        0xC000003E,
        {
            "clone": 56, "fork": 57, "vfork": 58, "socket": 41, "connect": 42, "socketpair": 53,
            "shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240, "memfd_create": 319,
            "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "personality": 135,
            "unshare": 272, "setns": 308, "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161,
            "syslog": 103, "quotactl": 179, "add_key": 248, "request_key": 249, "keyctl": 250, "bpf": 321,
            "perf_event_open": 298, "userfaultfd": 323, "open_by_handle_at": 304, "inotify_init": 253,
            "inotify_init1": 294, "fanotify_init": 300, **_COMMON,
        },
    ),
    "aarch64": Machine(
        0xC00000B7,
        {
            "clone": 220, "socket": 198, "connect": 203, "socketpair": 199,
            "shmget": 194, "semget": 190, "msgget": 186, "mq_open": 180, "memfd_create": 279,
            "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "personality": 92,
            "unshare": 97, "setns": 268, "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51,
            "syslog": 116, "quotactl": 60, "add_key": 217, "request_key": 218, "keyctl": 219, "bpf": 280,
            "perf_event_open": 241, "userfaultfd": 282, "open_by_handle_at": 265, "inotify_init1": 26,
            "fanotify_init": 262, **_COMMON,
        },
    ),
}  # fmt: skip

_CLONE3 = 435
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_NUMBER, _ARCH = 0, 4  # offsets in struct seccomp_data
_X32 = 0x40000000  # x86-64's second table of calls has this bit


def program(machine: str | None = None) -> bytes:
    """The filter for this machine. Raises KeyError for an architecture whose calls are not known here."""
    arch, refused = MACHINES[machine or platform.machine()]
    lines = [
        (_LOAD, 0, 0, _ARCH),
        (_JUMP_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
        (_JUMP_EQUAL, 0, 1, _CLONE3),
        (_RETURN, 0, 0, _ERRNO | ENOSYS),  # the C library then falls back to clone
    ]
    for left, number in zip(range(len(refused) - 1, -1, -1), sorted(refused.values()), strict=True):
        lines.append((_JUMP_EQUAL, left + 1, 0, number))  # to the last line
    lines += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | EPERM)]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
