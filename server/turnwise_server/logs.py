"""Logging: one JSON object a line (plain text at a terminal), with the request, session and trace it is about.

Modules log through ``logging.getLogger(__name__)`` as everywhere; who is being served is a context variable. Tokens
and query strings are cut out of whatever is logged, exceptions included.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterable
from contextvars import ContextVar
from typing import TextIO

from turnwise_server.defaults import LogLevel
from turnwise_server.refusal import Refusal

#: Characters of one message or traceback: an environment may quote a whole observation in an exception.
MAX_TEXT = 16_384
#: Characters of a session's id, which is whatever a path said.
MAX_ID = 80
_QUERY = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s\"'<>?]*\?)[^\s\"'<>]+", re.IGNORECASE)
_BEARER = re.compile(r"(bearer\s+)[!-~]+", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Note:
    """What is being served: the names under which logs, metrics and traces file it."""

    __slots__ = ("name", "request_id", "session_id", "status", "trace_id")

    def __init__(self, request_id: str, trace_id: str | None) -> None:
        self.request_id = request_id
        self.trace_id = trace_id
        self.session_id: str | None = None
        self.name = "unknown"
        self.status = 500

    def refused(self, refusal: Refusal) -> None:
        """It was answered with this refusal."""
        self.status = refusal.status


#: Of the current task, and of the tasks that it starts.
CURRENT: ContextVar[Note | None] = ContextVar("turnwise_note", default=None)


def about(session_id: str) -> None:
    """What this task logs from now on is about that session."""
    note = CURRENT.get()
    if note is not None:
        note.session_id = session_id


def configure(level: LogLevel, tokens: Iterable[str] = (), stream: TextIO | None = None) -> None:
    """Send all logs of ``level`` and above to ``stream`` (standard error), ``tokens`` cut out."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter((Text if stream.isatty() else Json)(tokens))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    # Anybody can make it say so, as often as they like; they are counted (``malformed``) instead.
    logging.getLogger("uvicorn.error").addFilter(_is_no_noise)


def _is_no_noise(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(("Invalid HTTP request", "Unsupported upgrade"))


class Redactor:
    """Cuts known tokens, bearer credentials and query strings out of a text, and the text itself to length."""

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        longest_first = sorted(tokens, key=len, reverse=True)
        self._tokens = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, text: str) -> str:
        if self._tokens is not None:  # first, so that a cut cannot leave half a token
            text = self._tokens.sub("[token]", text)
        if len(text) > MAX_TEXT:
            text = f"{text[: MAX_TEXT // 2]} [{len(text) - MAX_TEXT} characters left out] {text[-MAX_TEXT // 2 :]}"
        return _BEARER.sub(r"\1[token]", _QUERY.sub(r"\1[redacted]", text))


class Json(logging.Formatter):
    """One JSON object: time (UTC), level, logger, message, then the ids and ``fields`` that the record carries."""

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        super().__init__()
        self._redact = Redactor(tokens)

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._redact(record.getMessage()),
            **_ids(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["exception"] = self._redact(self.formatException(record.exc_info))
        return json.dumps(entry, default=str)


class Text(logging.Formatter):
    """The same for people."""

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        super().__init__()
        self._redact = Redactor(tokens)

    def format(self, record: logging.LogRecord) -> str:
        ids = "".join(f" {value}" for value in _ids().values())
        line = f"{_utc(record.created)} {record.levelname}{ids} {record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return _CONTROL.sub("?", self._redact(line))  # what an environment says must not steer the terminal


def _ids() -> dict[str, str]:
    note = CURRENT.get()
    if note is None:
        return {}
    named = {
        "request_id": note.request_id,
        "session_id": note.session_id and note.session_id[:MAX_ID],
        "trace_id": note.trace_id,
    }
    return {name: value for name, value in named.items() if value is not None}


def _utc(seconds: float) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds % 1 * 1000):03d}Z"
