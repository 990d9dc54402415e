"""Frames over a socket pair: four bytes of length, big-endian, and that many bytes. Bounded on both ends."""

from __future__ import annotations

import struct

HEADER = struct.Struct(">I")
#: Bytes of one frame: room for a large snapshot, and an end to an environment that answers with gigabytes.
MAX_FRAME = 64 * 1024 * 1024


class FrameTooLarge(ValueError):
    """A frame is larger than MAX_FRAME, or what was received is no frame at all."""


def frame(payload: bytes) -> bytes:
    """``payload`` with its length before it. Raises FrameTooLarge."""
    if len(payload) > MAX_FRAME:
        raise FrameTooLarge(f"{len(payload)} bytes are more than fit between server and worker ({MAX_FRAME})")
    return HEADER.pack(len(payload)) + payload


class FrameReader:
    """Puts received bytes together to frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that ``data`` completes. Raises FrameTooLarge."""
        buffer = self._buffer
        buffer += data
        frames = []
        start = 0
        while len(buffer) - start >= HEADER.size:
            (length,) = HEADER.unpack_from(buffer, start)
            if length > MAX_FRAME:
                raise FrameTooLarge(f"a frame of {length} bytes was announced; {MAX_FRAME} is the limit")
            end = start + HEADER.size + length
            if end > len(buffer):
                break
            frames.append(bytes(buffer[start + HEADER.size : end]))
            start = end
        del buffer[:start]
        return frames
