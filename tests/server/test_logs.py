"""Logs: one JSON object a line, about the right request and session, and never a secret."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest

from turnwise_server.logs import CURRENT, MAX_TEXT, Json, Redactor, Text, configure

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def lines():
    """``lines()``: what was logged since, as JSON, at every level."""
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    stream = io.StringIO()
    configure("info", ["very-secret-token-1", "very-secret-token-12"], stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    logging.captureWarnings(False)


def record(message: str, *arguments: object, error: BaseException | None = None) -> logging.LogRecord:
    known = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("turnwise.test", logging.WARNING, __file__, 1, message, arguments, known)


async def test_an_operation_is_one_line_with_its_ids(api, lines):
    headers = {"x-request-id": "r-1", "traceparent": TRACE}
    sid = (await api.create(headers=headers)).json()["session_id"]
    await api.step(sid, 0, "1", headers={"x-request-id": "r-2"})
    await api.http.get(f"/v1/sessions?limit=5&secret={'x' * 8}")
    created, stepped, listed = (line for line in lines() if line["logger"] == "turnwise_server.desk")
    assert created["message"] == "create_session 201"
    assert (created["operation"], created["status"], created["request_id"]) == ("create_session", 201, "r-1")
    assert created["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert (stepped["session_id"], stepped["request_id"], stepped["level"]) == (sid, "r-2", "info")
    assert 0 <= stepped["seconds"] < 60
    assert "trace_id" not in stepped
    assert "xxxxxxxx" not in json.dumps(listed)


async def test_a_fault_deep_inside_names_its_session(api, lines):
    sid = await api.open("crashing")
    await api.step(sid, 0, "crash", headers={"x-request-id": "r-3"})
    ours = [line for line in lines() if line["logger"].startswith("turnwise")]  # Python may warn of something meanwhile
    faults = [line for line in ours if line["level"] == "warning"]
    assert faults
    assert all((line["session_id"], line["request_id"]) == (sid, "r-3") for line in faults)
    assert "KeyError" in faults[0]["exception"]


async def test_calls_of_a_batch_have_ids_of_their_own(api, lines):
    sid = await api.open()
    calls = [
        {"method": "GET", "path": f"/v1/sessions/{sid}", "trace": TRACE},
        {"method": "GET", "path": "/v1/sessions/s_0"},
    ]
    await api.http.post("/v1/batch", json={"requests": calls}, headers={"x-request-id": "our-batch"})
    ours = [line for line in lines() if line["logger"] == "turnwise_server.desk"]
    seen = {line["request_id"]: line for line in ours if line["request_id"].startswith("our-batch")}
    assert sorted(seen) == ["our-batch", "our-batch.1", "our-batch.2"]
    assert (seen["our-batch.1"]["session_id"], seen["our-batch.1"]["trace_id"]) == (sid, TRACE.split("-")[1])
    assert seen["our-batch.2"]["status"] == 404


def test_secrets_are_cut_out(lines):
    logger = logging.getLogger("turnwise.test")
    logger.warning("the token very-secret-token-12 of %s", "Bearer abcdefghijklmnop")
    try:
        raise ValueError("GET https://api.example/v1?key=hunter2&x=1 with very-secret-token-1")
    except ValueError:
        logger.exception("failed")
    text = json.dumps(lines())
    assert "the token [token] of Bearer [token]" in text
    assert "https://api.example/v1?[redacted] with [token]" in text
    for secret in ("very-secret", "abcdefghijklmnop", "hunter2"):
        assert secret not in text


def test_what_is_long_is_cut_without_leaving_half_a_secret():
    redact = Redactor(["very-secret-token-1"])
    text = redact("x" * (MAX_TEXT // 2 - 5) + "very-secret-token-1" + "y" * MAX_TEXT)
    assert len(text) < MAX_TEXT + 100
    assert "very" not in text
    assert "characters left out" in text


def test_one_line_whatever_is_in_it():
    line = Json().format(record("two\nlines %s", "and \x1b[31m red"))
    assert "\n" not in line
    assert json.loads(line)["message"] == "two\nlines and \x1b[31m red"
    assert CURRENT.get() is None
    assert "request_id" not in json.loads(line)


def test_a_terminal_is_not_steered():
    text = Text().format(record("red \x1b[31m and \x9b5n", error=ValueError("\x07")))
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert "\x07" not in text
    assert "ValueError" in text


def test_at_a_terminal_lines_are_text(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    root = logging.getLogger()
    before = root.level, root.handlers[:]
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    try:
        configure("warning")
        logging.getLogger("turnwise.test").warning("hello")
    finally:
        root.setLevel(before[0])
        root.handlers[:] = before[1]
        logging.captureWarnings(False)
    assert stream.getvalue().endswith("Z WARNING hello\n")
