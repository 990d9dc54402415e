"""The sandbox against programs that mean harm: each ends as a clear outcome in time, and the host stays as it was."""

import contextlib
import os
import platform
import re
import shutil
import socket
import sys
import time
from pathlib import Path

import pytest

from turnwise_envs.tools.maths.env import shown
from turnwise_envs.tools.sandbox import Limits, Outcome, SandboxUnavailable, bwrap, run_python, seccomp

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs PROGRAM: bwrap")

LIMITS = Limits(cpu_seconds=1, wall_seconds=60)

#: name, program, how it may end, what must be in its words. {port}, {secret} and {pid} are this test's own.
HOSTILE: list[tuple[str, str, str, str]] = [
    # processes and threads
    ("fork", "import os\nos.fork()", "error", "PermissionError"),
    ("fork bomb", "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", "time", "1 s of computing"),
    ("subprocess", "import subprocess\nsubprocess.run(['/python/bin/python3', '-c', '1'])", "error", "PermissionError"),
    ("os.system", "import os\nprint(os.system('echo hello'))", "ok", r"^(-1|32512)$"),
    ("posix_spawn", "import os\nos.posix_spawn('/python/bin/python3', ['p'], {})", "error", "Error"),
    ("multiprocessing", "import multiprocessing as m\nm.Process(target=print).start()", "error", "Error"),
    ("threads", "import threading\nfor _ in range(10**6): threading.Thread(target=input).start()", "error", "start new thread"),
    ("raw clone", "import ctypes\nprint(ctypes.CDLL(None).syscall(56, 17, 0, 0, 0, 0))", "ok", "^-1$"),
    ("exec a shell", "import os\nos.execv('/bin/sh', ['sh', '-c', 'echo out'])", "error", "FileNotFoundError"),
    ("exec itself", "import os\nos.execv('/python/bin/python3', ['p', '-c', 'while True: pass'])", "time", "computing"),
    # memory
    ("memory bomb", "x = bytearray(10**10)", "error", "MemoryError"),
    ("growing list", "x = [0]\nwhile True: x += x", "error", "MemoryError"),
    ("growing text", "x = 'a'\nwhile True: x = x * 10", "error", "MemoryError"),
    ("zip bomb", "import zlib\nc = zlib.compressobj(9)\nb = b''.join([c.compress(bytes(10**6)) for _ in range(100)] + [c.flush()])\nprint(len(zlib.decompress(b * 1) * 9))", "error time", "MemoryError"),
    ("memfd", "import os\nos.memfd_create('x')", "error", "PermissionError"),
    ("shared memory", "import ctypes\nprint(ctypes.CDLL(None).shmget(0, 1 << 30, 0o1600))", "ok", "^-1$"),
    ("raised limit", "import resource as r\nr.setrlimit(r.RLIMIT_AS, (-1, -1))", "error", "not allowed to raise"),
    # time
    ("endless loop", "while True: pass", "time", "1 s of computing"),
    ("huge power", "print(len(str(9 ** 9 ** 9)))", "time error", "computing|MemoryError"),
    ("bad pattern", "import re\nre.match('(a+)+$', 'a' * 60 + 'b')", "time", "1 s of computing"),
    ("caught signals", "import signal\nfor s in range(1, 32):\n    try: signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError): pass\nwhile True: pass", "time", "computing"),
    ("swallowed errors", "while True:\n    try: raise KeyboardInterrupt\n    except BaseException: pass", "time", "computing"),
    ("endless finally", "try: 1/0\nfinally:\n    while True: pass", "time", "computing"),
    ("endless at exit", "import atexit\n@atexit.register\ndef f():\n    while True: pass", "time", "computing"),
    ("hostile repr", "class A:\n    def __repr__(self):\n        while True: pass\nA()", "time", "computing"),
    # output
    ("huge output", "while True: print('x' * 10**6)", "output", "65536 bytes"),
    ("huge error", "raise ValueError('x' * 10**7)", "output", "65536 bytes"),
    ("raw output", "import os\nwhile True: os.write(1, b'\\xff\\x00' * 4096)", "output", "65536 bytes"),
    ("output at exit", "import atexit\natexit.register(lambda: print('y' * 10**6))", "output", "65536 bytes"),
    ("surrogates", "import sys\nsys.stdout.buffer.write(b'\\xed\\xa0\\x80 ok')", "ok", "ok"),
    ("closed output", "import os\nos.close(1); os.close(2)\nwhile True: pass", "time", "computing"),
    ("swapped output", "import sys, io\nsys.stdout = sys.stderr = io.StringIO()\nprint('gone')", "ok", "^$"),
    ("no output at all", "import sys\nsys.stdout = sys.stderr = None\n1/0", "error", "^exit status 1$"),
    # the machine
    ("host files", "print(open('/etc/passwd').read())", "error", "FileNotFoundError"),
    ("secret file", "print(open({secret!r}).read())", "error", "FileNotFoundError"),
    ("listing", "import os\nprint(sorted(os.listdir('/')))", "ok", r"^\['dev', (.*, )?'python', (.*, )?'tmp', 'usr'\]$"),
    ("proc", "import os\nprint(os.path.exists('/proc/1'), os.path.exists('/sys'))", "ok", "^False False$"),
    ("devices", "import os\nprint(sorted(os.listdir('/dev')))", "ok", r"^\['null', 'urandom', 'zero'\]$"),
    ("environment", "import os\nprint(os.environ.get('TURNWISE_SECRET'), 'PATH' in os.environ)", "ok", "^None False$"),
    ("inherited files", "import os\nfor n in range(3, 1024):\n    try: print(os.fstat(n))\n    except OSError: pass", "ok", "^$"),
    ("write to root", "open('/x', 'w')", "error", "Read-only"),
    ("write to python", "open('/python/lib/x', 'w')", "error", "Read-only"),
    ("write to shm", "open('/dev/shm/x', 'w')", "error", "Error"),
    ("fill the disk", "f = open('/tmp/x', 'wb')\nwhile True: f.write(bytes(1 << 20)); f.flush()", "error", "File too large|No space"),
    ("many files", "for n in range(99): open(f'/tmp/{{n}}', 'wb').write(bytes(1 << 20))", "error", "No space"),
    ("many open files", "x = [open('/dev/null') for _ in range(10**4)]", "error", "Too many open files"),
    ("link out", "import os\nos.symlink('/../../etc/shadow', '/tmp/l')\nopen('/tmp/l')", "error", "FileNotFoundError"),
    ("set-uid", "import os\nos.setuid(0)", "error", "PermissionError|Invalid argument"),
    ("mount", "import ctypes\nprint(ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, 0))", "ok", "^-1$"),
    ("new namespace", "import ctypes\nprint(ctypes.CDLL(None).unshare(0x10000000))", "ok", "^-1$"),
    ("trace", "import ctypes\nprint(ctypes.CDLL(None).ptrace(16, 1, 0, 0))", "ok", "^-1$"),
    ("kill parent", "import os\nos.kill(os.getppid(), 9)\nprint('alive')", "ok error", "alive|PermissionError"),
    ("kill all", "import os\nos.kill(-1, 9)", "ok error time", ""),
    ("kill the host's", "import os\nos.kill({pid}, 9)", "error", "ProcessLookupError"),
    ("kill itself", "import os\nos.kill(os.getpid(), 11)", "crash", "SIGSEGV"),
    # network
    ("connect", "import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)", "error", "PermissionError"),
    ("download", "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:{port}/', timeout=2)", "error", "Error"),
    ("listen", "import socket\nsocket.socket().bind(('0.0.0.0', 0))", "error", "PermissionError"),
    ("unix socket", "import socket\nsocket.socket(socket.AF_UNIX)", "error", "PermissionError"),
    # the interpreter
    ("recursion", "def f(): f()\nf()", "error", "RecursionError"),
    ("deep recursion", "import sys\nsys.setrecursionlimit(10**9)\nf = lambda: f()\nf()", "crash error time", "SIGSEGV|MemoryError"),
    ("null pointer", "import ctypes\nctypes.string_at(0)", "crash", "SIGSEGV"),
    ("deep nesting", "(" * 5000 + ")" * 5000, "error", "too many nested|MemoryError|Recursion"),
    ("deep expression", "-" * 15000 + "1", "error crash", "Recursion|MemoryError|SIGSEGV|nested"),
    ("null bytes", "print(1)\x00", "error", "null bytes|NUL"),
    ("lone surrogate", "print('\ud800')", "ok error", ""),
    ("hidden exit", "import os\nos._exit(0)", "ok", "^$"),
    ("reading input", "input()", "error", "EOFError"),
    ("too long", "#" * 16_001, "error", "longer than 16000"),
    ("broken builtins", "import builtins\nbuiltins.print = builtins.repr = None\n1 + 1", "error ok", ""),
    ("frames", "import sys\nsys._getframe(1).f_globals.clear()\n1 + 1", "ok error", ""),
]  # fmt: skip


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory):
    """A listener that nobody may reach, a file that nobody may read, and a working directory that nobody may write to."""
    secret = tmp_path_factory.mktemp("secret") / "key"
    secret.write_text("4711")
    here = tmp_path_factory.mktemp("here")
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TURNWISE_SECRET", "4711")
        patch.chdir(here)
        listener.settimeout(0)
        yield listener, secret
        with pytest.raises(BlockingIOError):
            listener.accept()
        assert secret.read_text() == "4711"
        assert [*secret.parent.iterdir()] == [secret]
        assert [*here.iterdir()] == []


def test_the_list_is_long_enough() -> None:
    assert len({name for name, *_ in HOSTILE}) == len(HOSTILE) >= 60


@pytest.mark.parametrize(("program", "ends", "says"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_hostile_programs_end_as_outcomes(host, program: str, ends: str, says: str) -> None:
    listener, secret = host
    for name, value in (("port", listener.getsockname()[1]), ("pid", os.getpid())):
        program = program.replace(f"{{{name}}}", str(value))
    program = program.replace("{secret!r}", repr(str(secret))).replace("{{n}}", "{n}")
    before, files, began = _children(), _open_files(), time.monotonic()
    outcome = run_python(program, LIMITS)
    assert time.monotonic() - began < LIMITS.wall_seconds + 60
    assert outcome.status in ends.split(), outcome
    if outcome.status == "time":  # on a busy machine the clock may come first
        assert outcome.detail in ("more than 1 s of computing", "not done after 60 s")
    else:
        said = outcome.text if outcome.text and outcome.status in ("ok", "error") else outcome.detail
        assert re.search(says, said.strip(), re.MULTILINE), outcome
    assert "4711" not in outcome.text
    assert len(outcome.text) <= LIMITS.output_bytes
    outcome.text.encode()  # what goes over the wire
    assert shown(outcome).strip(), "the policy must be told something"
    assert outcome.status == "ok" or outcome.detail
    assert _children() <= before
    assert _open_files() == files


def test_programs_that_wait_are_ended_by_the_clock() -> None:
    before, began = _children(), time.monotonic()
    outcome = run_python("import time\nprint('before', flush=True)\ntime.sleep(600)", Limits(wall_seconds=10))
    assert (outcome.status, outcome.text, outcome.detail) == ("time", "before\n", "not done after 10 s")
    assert time.monotonic() - began < 100
    assert _children() <= before


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("print(6 * 7)", "42\n"),
        ("6 * 7", "42\n"),
        ("x = 6\nx * 7", "42\n"),
        ("None", ""),
        ("x = 6", ""),
        ("", ""),
        ("import sys\nprint('a')\nprint('b', file=sys.stderr)\nprint('c', flush=True)", "b\na\nc\n"),
        ("print('ä\u2028€')", "ä\u2028€\n"),
        ("import sys\nprint(sys.argv, __name__)", "['-c'] __main__\n"),
        ("sorted({'b', 'a', 'c'}, key=hash) == sorted({'c', 'b', 'a'}, key=hash), hash('a')", None),
        ("import math, fractions, decimal, itertools, statistics, collections\nmath.comb(5, 2)", "10\n"),
    ],
)
def test_programs_say_what_they_compute(program: str, text: str | None) -> None:
    first, second = run_python(program), run_python(program)
    assert first == second
    assert first.status == "ok"
    assert text is None or first.text == text


def test_errors_show_the_programs_own_lines_only() -> None:
    outcome = run_python("def f():\n    return 1 / 0\nf()")
    assert outcome.status == "error"
    assert outcome.text == (
        'Traceback (most recent call last):\n  File "<program>", line 3, in <module>\n'
        '  File "<program>", line 2, in f\nZeroDivisionError: division by zero\n'
    )
    assert "<string>" not in run_python("x = (").text
    assert sys.base_prefix not in run_python("import json\njson.loads('{')").text


def test_nothing_is_kept_between_programs() -> None:
    run_python("open('/tmp/kept', 'w').write('x')")
    assert "FileNotFoundError" in run_python("open('/tmp/kept')").text


def test_without_bubblewrap_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match=r"needs bubblewrap.*apt-get install bubblewrap"):
        bwrap.command(3, 1)


def test_a_bubblewrap_that_may_not_work_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    from turnwise_envs.tools.sandbox.run import require_sandbox

    require_sandbox.cache_clear()
    with pytest.raises(SandboxUnavailable, match="No permissions to create a new namespace; it needs user namespaces"):
        run_python("1")
    monkeypatch.undo()
    require_sandbox()


#: Calls that need no privilege, or only one inside a namespace, by the kernel's table; none of them has a hostile
#: program above.
REFUSED_X86_64 = {
    "socketpair": 53, "semget": 64, "msgget": 68, "personality": 135, "pivot_root": 155, "chroot": 161, "umount2": 166,
    "mq_open": 240, "add_key": 248, "request_key": 249, "keyctl": 250, "inotify_init": 253, "inotify_init1": 294,
    "perf_event_open": 298, "open_by_handle_at": 304, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311,
    "memfd_create": 319, "bpf": 321, "userfaultfd": 323, "io_uring_setup": 425, "open_tree": 428, "fsopen": 430,
    "memfd_secret": 447,
}  # fmt: skip

ASK_THE_KERNEL = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for number in {numbers}:
    ctypes.set_errno(0)
    print(number, libc.syscall(number, 0, 0, 0, 0, 0, 0), ctypes.get_errno())
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="its numbers are those of x86-64")
def test_calls_to_the_kernel_are_refused_by_number() -> None:
    """EPERM for each, ENOSYS for clone3, and the end of the program for x86-64's second table of calls."""
    said = run_python(ASK_THE_KERNEL.format(numbers=[39, 435, *REFUSED_X86_64.values()])).text.splitlines()
    assert said[0].split()[::2] == ["39", "0"]  # getpid is harmless
    assert said[1] == "435 -1 38"
    assert said[2:] == [f"{number} -1 1" for number in REFUSED_X86_64.values()]
    second = run_python(ASK_THE_KERNEL.format(numbers=[0x40000000 + 39]))
    assert (second.status, second.detail) == ("crash", "the interpreter was ended by SIGSYS")


def test_the_filter_knows_both_architectures() -> None:
    for machine, (arch, refused) in seccomp.MACHINES.items():
        lines = seccomp.program(machine)
        assert len(lines) == 8 * (len(refused) + 10)
        assert arch.to_bytes(4, sys.byteorder) in lines
    with pytest.raises(KeyError):
        seccomp.program("pdp11")


def _children() -> set[str]:
    """Processes that this one has started and not yet buried."""
    found: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found.update((task / "children").read_text().split())
    return found


def _open_files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_a_program_sees_what_those_before_it_defined_and_nothing_of_what_they_said() -> None:
    before = ["x = 41\nprint('unheard')", "y = 1\n1 / 0", "import sys\nsys.exit(0)"]
    assert run_python("x + y", before=before) == Outcome("42\n", "ok")
    assert "NameError" in run_python("x").text
    assert run_python("print('\u00e9\\n7')", before=["z = '\u00e9'"]).text == "\u00e9\n7\n"  # lengths are in bytes
    long = "#" * LIMITS.program_characters
    assert "it and those before it are longer than" in run_python("1", before=[long]).detail
    slow = "import time\nend = time.process_time() + 1.5\nwhile time.process_time() < end: pass"
    assert run_python(slow, before=[slow]).status == "time"  # one limit for all of them
