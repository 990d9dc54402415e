"""Single steps as HTTP requests, each on its own: driven by ``wrk``, or by a few lines of asyncio where that is missing.

Steps of one session must come in order, so requests go round many sessions: turn 0 of each, then turn 1 of each, and so
on. With several sessions for each connection the last step of a session has long been answered when the next is sent.
"""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

#: So many that a request which is late by this many rounds of its connection would be the first to fail.
SESSIONS_PER_CONNECTION = 8

_SCRIPT = """
local ids, i, turn, tried = {}, 0, 0, false
for line in io.lines("%(ids)s") do ids[#ids + 1] = line end
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
function request()
  if not tried then tried = true; return wrk.format() end  -- wrk only looks at the first one
  i = i + 1
  if i > #ids then i = 1; turn = turn + 1 end
  local path = string.gsub("%(path)s", "{}", ids[i])
  return wrk.format(nil, path, nil, string.format('%(body)s', turn))
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format('\\nRESULT {"steps":%%d,"seconds":%%f,"p50_ms":%%f,"p99_ms":%%f,"failures":%%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """Requests to ``path`` at ``url``, in which ``{}`` stands for each of ``ids`` in turn."""

    url: str
    path: str
    text: str
    ids: list[str] = field(default_factory=lambda: ["-"])

    @property
    def body(self) -> str:
        """With ``%d`` for the turn."""
        said = json.dumps(self.text)
        return f'{{"turn":%d,"action":{{"text":{said}}}}}' if "{}" in self.path else f'{{"turn":%d,"text":{said}}}'


def driver() -> str:
    return "wrk" if shutil.which("wrk") else "asyncio"


async def drive(load: Load, connections: int, seconds: float) -> dict[str, Any]:
    """Keep ``connections`` busy for so long: steps, seconds, latencies, failures and the driver's CPU seconds."""
    return await (_wrk if driver() == "wrk" else _asyncio)(load, connections, seconds)


async def _wrk(load: Load, connections: int, seconds: float) -> dict[str, Any]:
    return await asyncio.to_thread(_run_wrk, load, connections, seconds)


def _run_wrk(load: Load, connections: int, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        ids, script = Path(place, "ids"), Path(place, "load.lua")
        ids.write_text("\n".join(load.ids))
        script.write_text(_SCRIPT % {"ids": ids, "path": load.path, "body": load.body})
        before = _cpu(resource.RUSAGE_CHILDREN)
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(script), load.url]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    [result] = [line for line in out.splitlines() if line.startswith("RESULT ")]
    return {**json.loads(result.removeprefix("RESULT ")), "client_cpu_s": _cpu(resource.RUSAGE_CHILDREN) - before}


async def _asyncio(load: Load, connections: int, seconds: float) -> dict[str, Any]:
    target = urlsplit(load.url)
    requests = _requests(load, target.netloc)
    latencies: list[float] = []
    failures = 0
    before, began = _cpu(resource.RUSAGE_SELF), time.perf_counter()
    until = began + seconds

    async def connection() -> None:
        nonlocal failures
        reader, writer = await asyncio.open_connection(target.hostname, target.port)
        while (sent := time.perf_counter()) < until:
            writer.write(next(requests))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            latencies.append(time.perf_counter() - sent)
            failures += not head.startswith(b"http/1.1 200")
        writer.close()

    await asyncio.gather(*(connection() for _ in range(connections)))
    elapsed = time.perf_counter() - began
    ranked = sorted(latencies) or [0.0]
    return {
        "steps": len(latencies),
        "seconds": elapsed,
        "p50_ms": 1e3 * ranked[len(ranked) // 2],
        "p99_ms": 1e3 * ranked[int(len(ranked) * 0.99)],
        "failures": failures,
        "client_cpu_s": _cpu(resource.RUSAGE_SELF) - before,
    }


def _requests(load: Load, host: str) -> Iterator[bytes]:
    turn = 0
    while True:
        body = (load.body % turn).encode()
        for name in load.ids:
            head = f"POST {load.path.format(name)} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
            yield b"%bcontent-length: %d\r\n\r\n%b" % (head.encode(), len(body), body)
        turn += 1


def _cpu(whose: int) -> float:
    used = resource.getrusage(whose)
    return used.ru_utime + used.ru_stime
