"""Clients that send nonsense, dawdle, hang up or forget: the server is afterwards where it was before.

Each round is the same abuse again: what a first round leaves behind may be a cache, what a second one adds is a leak.
``TURNWISE_PROOF=full`` abandons 10,000 sessions; what was measured is printed (``-rP`` shows it).
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import httpx
import pytest
from crashes import Server
from waiting import until

pytestmark = pytest.mark.slow

FULL = os.environ.get("TURNWISE_PROOF") == "full"
SESSIONS = 10_000 if FULL else 1_000
CONNECTIONS = 400 if FULL else 60
PATIENCE = 1.0
#: Bytes that a round may leave: less than a kilobyte a session at full counts, and the noise of an allocator.
GROWTH = 8 * 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    server = Server(
        tmp_path_factory.mktemp("abuse") / "journal",
        "toy_environments:Guess",
        "toy_environments:Slow",
        TURNWISE_MAX_SESSIONS=str(SESSIONS),
        TURNWISE_IDLE_TIMEOUT="10",
        TURNWISE_PASSIVATE_AFTER="1",
        TURNWISE_CLIENT_TIMEOUT=str(PATIENCE),
        TURNWISE_MAX_BODY=str(256 * 1024),
    )
    try:
        server.start()
        yield server
        assert server.stop() == 0
    finally:
        server.kill()


def memory(server: Server) -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{server.pid}/status").read_text())[1]) * 1024


def descriptors(server: Server) -> int:
    """Open files and sockets, but for those of the journal, whose few readers open it when they are first needed."""
    count = 0
    for descriptor in Path(f"/proc/{server.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            count += ".sqlite" not in str(descriptor.readlink())
    return count


def hung_up_on(server: Server, there: socket.socket) -> bool:
    """The system knows the server's end of this connection no longer as one that is open."""
    ends = (server.port, there.getsockname()[1])
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_ = line.split()
        if tuple(int(end.partition(":")[2], 16) for end in (local, remote)) == ends:
            return state not in ("01", "03")  # established, or about to be
    return True


def connect(server: Server, first: bytes = b"") -> socket.socket:
    there = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    there.sendall(first)
    return there


def answer(there: socket.socket) -> bytes:
    """Everything until the server hangs up."""
    content = b""
    try:
        while chunk := there.recv(65536):
            content += chunk
    except ConnectionResetError:
        pass
    return content


def head(line: bytes, *more: bytes) -> bytes:
    return b"\r\n".join([line, b"host: 127.0.0.1", *more, b"", b""])


POST = b"POST /v1/sessions HTTP/1.1"
JSON = b"content-type: application/json"


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100, 400),  # TLS
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (head(POST, JSON, b"content-length: -1"), 400),
        (head(POST, JSON, b"content-length: 5", b"content-length: 6"), 400),
        (head(POST, JSON, b"transfer-encoding: chunked") + b"zz\r\n", 400),
        (b"GET /v1/envs HTTP/1.1\r\nhost: 127.0.0.1\r\nx: " + b"x" * 70_000, 431),
        (b"GET /" + b"x" * 70_000, 431),
        (b"GET /v1/envs HTTP/1.1\r\nhost: 127.0.0.1\r\n" + b"x: y\r\n" * 12_000, 431),
        (head(POST, JSON, b"transfer-encoding: chunked") + b"1\r\na\r\n" * 150_000, 413),
    ],
)
def test_what_is_no_request_is_answered_and_hung_up_on(server, first, status):
    with closing(connect(server)) as there:
        try:
            there.sendall(first)
        except (BrokenPipeError, ConnectionResetError):
            return  # it has heard enough
        assert answer(there).startswith(b"HTTP/1.1 %d " % status) or status == 413
    assert httpx.get(f"{server.url}/healthz", timeout=60).status_code == 200


def test_a_head_and_a_large_body_may_arrive_at_once(server):
    """A busy server finds both in its socket, and reads more than a head may have."""
    body = json.dumps({"requests": [{"method": "GET", "path": "/v1/envs" + " " * 200_000}]}).encode()
    request = head(b"POST /v1/batch HTTP/1.1", JSON, b"content-length: %d" % len(body)) + body
    last = head(b"GET /healthz HTTP/1.1", b"connection: close")
    with closing(connect(server, request + request + last)) as there:
        said = answer(there)
    assert said.count(b"HTTP/1.1 200 ") == 3, said[:1000]
    assert b"431" not in said


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"GET /v1/en",
        head(b"GET /v1/envs HTTP/1.1")[:-2],
        head(POST, JSON, b"content-length: 100") + b'{"env',
        head(POST, JSON, b"transfer-encoding: chunked") + b"5\r\n{",
        head(b"GET /healthz HTTP/1.1") + b"GET /v1/en",  # together with a whole one
    ],
)
def test_who_dawdles_is_hung_up_on(server, first):
    began = time.monotonic()
    with closing(connect(server, first)) as there:
        answer(there)
    assert PATIENCE * 0.9 < time.monotonic() - began < PATIENCE + 30
    trickling = connect(server, head(POST, JSON, b"content-length: 100"))
    with closing(trickling), pytest.raises((BrokenPipeError, ConnectionResetError)):
        trickle(trickling)


def trickle(there: socket.socket) -> None:
    """A byte now and then is no progress."""
    for _ in range(1000):
        there.sendall(b" ")
        time.sleep(PATIENCE / 10)


def test_who_does_not_read_is_hung_up_on(server):
    """Long answers to a client with a small window that never reads."""
    calls = [{"method": "GET", "path": "/v1/envs/guess/tasks?limit=1000"}] * 1000
    body = json.dumps({"requests": calls}).encode()
    there = socket.socket()
    there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with closing(there):
        there.connect(("127.0.0.1", server.port))
        assert not hung_up_on(server, there)
        there.sendall(head(b"POST /v1/batch HTTP/1.1", JSON, b"content-length: %d" % len(body)) + body)
        until(lambda: hung_up_on(server, there))
    assert httpx.get(f"{server.url}/healthz", timeout=60).status_code == 200


def test_work_in_hand_is_no_dawdling(server):
    """Steps of 0.2 s over several times the patience, on one connection that is idle in between."""
    with httpx.Client(base_url=server.url, timeout=60) as http:
        sid = http.post("/v1/sessions", json={"env": "slow"}).json()["session_id"]
        for turn in range(3):
            time.sleep(PATIENCE * 0.6)
            step = http.post(f"/v1/sessions/{sid}/step", json={"turn": turn, "action": {"text": "x"}})
            assert step.status_code == 200


def rude(server: Server, rng: random.Random) -> None:
    """One connection of each kind, many times, and all of them left behind."""
    sid = httpx.post(f"{server.url}/v1/sessions", json={"env": "slow"}, timeout=60).json()["session_id"]
    step = b'{"turn": 0, "action": {"text": "x"}}'
    whole = head(b"POST /v1/sessions/%b/step HTTP/1.1" % sid.encode(), JSON, b"content-length: %d" % len(step)) + step
    key = b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA=="
    upgrade = head(
        b"GET /v1/ws HTTP/1.1", b"connection: upgrade", b"upgrade: websocket", b"sec-websocket-version: 13", key
    )
    with ExitStack() as stack:
        for number in range(CONNECTIONS):
            noise = rng.randbytes(200)
            first = [
                b"",
                noise,
                whole[: rng.randrange(len(whole))],
                whole,
                upgrade,
                upgrade + noise,
                upgrade + b"\x81\x85\x00\x00\x00\x00hello",  # a text frame that is no call
                head(POST, JSON, b"content-length: 262144") + b"[" * 100_000,
            ][number % 8]
            there = stack.enter_context(closing(connect(server, first)))
            if number % 3 == 0:
                there.shutdown(socket.SHUT_WR)  # half-open: nothing more comes, and it waits
            elif number % 3 == 1:
                there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # a reset
                there.close()
        time.sleep(PATIENCE * 2)


def abandon(server: Server) -> None:
    """Open ``SESSIONS`` sessions, step each, and forget them."""
    with httpx.Client(base_url=server.url, timeout=60) as http:
        for _ in range(SESSIONS // 200):
            calls = [{"method": "POST", "path": "/v1/sessions", "body": {"env": "guess", "index": 50}}] * 200
            opened = http.post("/v1/batch", json={"requests": calls}).json()["responses"]
            assert {reply["status"] for reply in opened} == {201}, opened[-1]
            body = {"turn": 0, "action": {"text": "1"}}
            calls = [
                {"method": "POST", "path": f"/v1/sessions/{reply['body']['session_id']}/step", "body": body}
                for reply in opened
            ]
            stepped = http.post("/v1/batch", json={"requests": calls}).json()["responses"]
            assert {reply["status"] for reply in stepped} == {200}


def in_memory(server: Server) -> dict[str, float]:
    page = httpx.get(f"{server.url}/metrics", timeout=60).text
    return {state: float(number) for state, number in re.findall(r'turnwise_sessions\{state="(\w+)"\} (\S+)', page)}


def remembered(server: Server) -> int:
    return httpx.get(f"{server.url}/v1/sessions", timeout=60).json()["total"]


def test_the_server_is_where_it_was(server):
    rng = random.Random(7)
    measured = []
    for _ in range(3):
        rude(server, rng)
        abandon(server)
        full = memory(server)
        until(lambda: sum(in_memory(server).values()) == 0)  # whoever forgets takes no room
        until(lambda: remembered(server) == 0)
        time.sleep(1.0)
        if measured:
            until(lambda: descriptors(server) <= measured[0][2])
        measured.append((full, memory(server), descriptors(server)))
    for number, (full, after, open_files) in enumerate(measured, start=1):
        print(
            f"round {number}: {SESSIONS} abandoned sessions and {CONNECTIONS} rude connections: {full / 2**20:.1f} MiB "
            f"in the middle, {after / 2**20:.1f} MiB afterwards, {open_files} descriptors"
        )
    _, (_, second, _), (_, third, _) = measured
    assert third - second < GROWTH


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_a_signal_lets_a_step_finish(tmp_path, stack):
    server = Server(tmp_path / "journal", "toy_environments:Slow")
    stack.callback(server.kill)
    server.start()
    with (
        httpx.Client(base_url=server.url, timeout=60) as http,
        httpx.Client(base_url=server.url, timeout=60) as watch,
        ThreadPoolExecutor() as threads,
    ):
        watch.get("/metrics")
        sid = http.post("/v1/sessions", json={"env": "slow"}).json()["session_id"]
        body = {"turn": 0, "action": {"text": f"until {tmp_path / 'gate'}"}}
        step = threads.submit(lambda: http.post(f"/v1/sessions/{sid}/step", json=body))
        until(lambda: "turnwise_operations_in_flight 1.0" in watch.get("/metrics").text)
        stopping = threads.submit(server.stop)
        until(lambda: watch.get("/readyz").status_code == 503)
        assert not step.done()
        (tmp_path / "gate").touch()
        assert stopping.result() == 0
        assert step.result().status_code == 200
    server.start()
    history = httpx.get(f"{server.url}/v1/sessions/{sid}/history", timeout=60).json()
    assert [step["turn"] for step in history["steps"]] == [1]
    assert server.stop() == 0
