"""Splitting a connection's stream at the boundaries of its requests. Knows no socket."""

from __future__ import annotations

from . import head as heads
from .body import Chunked, Length
from .head import Doubtful, Head


class Framer:
    """Holds what has arrived and gives it out piece by piece, byte for byte as it came.

    Where a request has ended, :meth:`head` shows the next one before anybody else reads it; then
    either :meth:`take_head` and :meth:`take_body` give it to the server, or :meth:`rest` gives
    everything from it on to somebody else.

    Once :attr:`doubtful`, there are no boundaries any more: all that comes is to go to the server
    as it is, and the connection is to end with the response.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: Head | None = None
        self._body: Length | Chunked | None = None
        self.doubtful = False

    def push(self, data: bytes) -> None:
        """Takes what one read brought."""
        self._buffer += data

    @property
    def held(self) -> int:
        """How many bytes have not been given out."""
        return len(self._buffer)

    @property
    def in_body(self) -> bool:
        """Whether a request has begun and not ended."""
        return self._body is not None

    def head(self) -> Head | None:
        """The next request's head, once it is complete. Looking takes nothing."""
        if self.doubtful or self.in_body:
            return None
        if self._head is None:
            # RFC 9112, section 2.2: empty lines before a request are to be ignored.
            while self._buffer.startswith(b"\r\n"):
                del self._buffer[:2]
            if self._buffer == b"\r":
                return None
            try:
                self._head = heads.parse(self._buffer)
            except Doubtful:
                self.doubtful = True
        return self._head

    def take_head(self) -> bytes:
        """The bytes of the head that :meth:`head` has shown; its body comes next."""
        head, self._head = self._head, None
        assert head is not None, "there is a head to take only where head() has shown one"
        self._body = Chunked() if head.length is None else Length(head.length)
        if self._body.done:
            self._body = None
        return self._take(head.size)

    def take_body(self) -> bytes:
        """What has arrived of the body and was not taken; empty if nothing."""
        if self._body is None:
            return b""
        try:
            size = self._body.consume(self._buffer)
        except Doubtful:
            self.doubtful = True
            self._body = None
            return b""
        if self._body.done:
            self._body = None
        return self._take(size)

    def rest(self) -> bytes:
        """Takes all that has not been given out."""
        self._head = None
        return self._take(len(self._buffer))

    def peek_rest(self) -> bytes:
        """All that has not been given out. Looking takes nothing."""
        return bytes(self._buffer)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken
