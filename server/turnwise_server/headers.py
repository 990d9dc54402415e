"""Headers: the few of a request that the gate needs, and those that every answer carries."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import count
from secrets import token_hex

from turnwise_envs.wire import PROTOCOL_VERSION
from turnwise_server.refusal import Refusal

Raw = tuple[bytes, bytes]

#: An answer is for whoever asked: not to be guessed at, stored, framed, or read by another site.
ALWAYS: tuple[Raw, ...] = (
    (b"x-turnwise-protocol", PROTOCOL_VERSION.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
#: For answers that do not say themselves what a page made of them may do.
POLICY: Raw = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
#: Of these, two would be one too many: who is asked for, and by whom, must have one answer.
ONCE = frozenset({b"host", b"authorization", b"origin"})

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_PREFIX = token_hex(4)
_NUMBERS = count(1)


class Asked:
    """The request headers that matter before anything is routed."""

    __slots__ = ("authorization", "chunked", "forwarded", "host", "length", "origin", "traceparent")

    def __init__(self, headers: Sequence[Raw]) -> None:
        """Raises Refusal ``forbidden`` if one of :data:`ONCE` came twice."""
        found = dict(headers)
        if len(found) < len(headers):
            names = [name for name, _ in headers]
            if twice := [name.decode() for name in ONCE if names.count(name) > 1]:
                raise Refusal("forbidden", f"the header {twice[0]} came twice")
        self.host = found.get(b"host", b"").decode("latin-1")
        self.authorization = _text(found.get(b"authorization"))
        self.origin = _text(found.get(b"origin"))
        self.traceparent = _text(found.get(b"traceparent"))
        #: A proxy says that it asks for somebody else.
        self.forwarded = b"x-forwarded-for" in found or b"forwarded" in found
        #: The body comes in pieces of unknown number; otherwise it has ``length`` bytes.
        self.chunked = b"transfer-encoding" in found
        self.length = _length(found.get(b"content-length", b"0"))


def request_id(headers: Sequence[Raw]) -> str:
    """The id that the client gave the request, if it is a tame one, or a new one."""
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value.decode("ascii")
    return f"{_PREFIX}-{next(_NUMBERS):x}"


def completed(headers: Sequence[Raw], request_id: str) -> list[Raw]:
    """The headers of an answer with :data:`ALWAYS` and the request's id, and :data:`POLICY` where it has none."""
    whole = [*headers, *ALWAYS, (b"x-request-id", request_id.encode("ascii"))]
    if not any(name == b"content-security-policy" for name, _ in headers):
        whole.append(POLICY)
    return whole


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _length(digits: bytes) -> int:
    """What ``content-length`` says. The HTTP parser has refused what is no number, and another is not trusted."""
    return int(digits) if digits.isdigit() and len(digits) < 20 else 0
