"""Where a request's body ends. Knows no socket and changes no byte."""

from __future__ import annotations

import enum
import re

from .head import Doubtful

# A chunk's size with its extensions, or a line of the trailer section.
_LONGEST_LINE = 16 * 1024
_MOST_TRAILERS = 64 * 1024
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")


class Length:
    """A body of a known length."""

    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def done(self) -> bool:
        return self._left == 0

    def consume(self, buffer: bytearray) -> int:
        """How many bytes at the beginning of ``buffer`` belong to the body. They count as taken."""
        size = min(self._left, len(buffer))
        self._left -= size
        return size


class _Expected(enum.Enum):
    SIZE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILER = enum.auto()
    NOTHING = enum.auto()


class Chunked:
    """A chunked body, with extensions and trailers."""

    def __init__(self) -> None:
        self._expected = _Expected.SIZE
        self._left = 0
        self._trailers = 0

    @property
    def done(self) -> bool:
        return self._expected is _Expected.NOTHING

    def consume(self, buffer: bytearray) -> int:
        """As :meth:`Length.consume`. A line that is not complete yet is left alone.

        :raises Doubtful: when it is no chunked body. Nothing is taken then.
        """
        at = 0
        while not self.done:
            if self._expected is _Expected.DATA:
                size = min(self._left, len(buffer) - at)
                at += size
                self._left -= size
                if self._left:
                    break
                self._expected = _Expected.DATA_END
            elif self._expected is _Expected.DATA_END:
                if len(buffer) - at < 2:
                    break
                if buffer[at : at + 2] != b"\r\n":
                    raise Doubtful
                at += 2
                self._expected = _Expected.SIZE
            else:
                line = _line(buffer, at)
                if line is None:
                    break
                at += len(line) + 2
                self._read(line)
        return at

    def _read(self, line: bytes) -> None:
        if self._expected is _Expected.SIZE:
            size = _CHUNK_SIZE.fullmatch(line)
            if size is None:
                raise Doubtful
            self._left = int(size[1], 16)
            self._expected = _Expected.DATA if self._left else _Expected.TRAILER
        elif not line:
            self._expected = _Expected.NOTHING
        else:
            self._trailers += len(line)
            if self._trailers > _MOST_TRAILERS:
                raise Doubtful


def _line(buffer: bytearray, at: int) -> bytes | None:
    end = buffer.find(b"\n", at, at + _LONGEST_LINE)
    if end < 0:
        if len(buffer) - at >= _LONGEST_LINE:
            raise Doubtful
        return None
    if end == at or buffer[end - 1] != ord("\r"):
        raise Doubtful
    return bytes(buffer[at : end - 1])
