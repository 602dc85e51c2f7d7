"""The channel to sidetrack: whole lines and descriptors over a socket, within an event loop.

Owns the socket and every descriptor from its arrival until somebody takes it. Does not know what
a connection is; :mod:`sidetrack.listener` does.
"""

from __future__ import annotations

import array
import asyncio
import errno
import os
import socket
import threading
from collections import deque
from collections.abc import Callable

from . import wire

Arrived = bool | None
"""What became of a connection handed back: it has arrived, it was lost and is still ours, or nobody
can tell since sidetrack has ended."""

_READ_SIZE = 65536
# The most descriptors that Linux puts in one message (SCM_MAX_FD).
_MOST_DESCRIPTORS = 253
# So that a busy channel does not keep the connections waiting.
_READS_AT_ONCE = 32
# Reports of closed sockets are let gather for so long.
_GATHER = 0.01
# Too many descriptors in flight: the socket is writable all the same, so it is tried again later.
_RETRY = 0.01


class _Waiting:
    """A line that has not left yet."""

    def __init__(self, line: bytes, descriptor: int | None) -> None:
        self.rest = memoryview(line)
        self.descriptor = descriptor
        self.then: list[Callable[[bool], None]] = []

    def done(self, left: bool) -> None:
        self.drop_descriptor()
        for callback in self.then:
            callback(left)

    def drop_descriptor(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


class Channel:
    """One worker's end. To be made and used within a running event loop; only :meth:`say` may be
    called from other threads."""

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[wire.Message, int | None], None],
        on_end: Callable[[], None],
    ) -> None:
        """``on_message`` gets each message and owns the descriptor that comes with a hand-off (none
        if it was lost). ``on_end`` is called once, when sidetrack has ended or speaks nonsense."""
        sock.setblocking(False)
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._on_message = on_message
        self._on_end = on_end
        self._decoder = wire.Decoder()
        self._descriptors: deque[int | None] = deque()
        self._outbox: deque[_Waiting] = deque()
        self._handed_back: deque[Callable[[Arrived], None]] = deque()
        self.on_quiet: Callable[[], None] | None = None
        """Called each time the channel has become :attr:`quiet`."""
        self._closed_sockets = 0
        self.hung_up = False
        """Nobody listens any more."""
        self._loop.add_reader(sock, self._readable)

    # --- Speaking ------------------------------------------------------------------------------

    def say(self, line: bytes, descriptor: int | None = None) -> None:
        """Writes a line, or lets it wait behind what already waits. A descriptor is sent with the
        first byte and then closed here."""
        if threading.get_ident() != self._thread:
            # An app may announce a session from a thread. Whatever the thread leads to, such as a
            # response, comes to the loop after this.
            self._loop.call_soon_threadsafe(self.say, line, descriptor)
            return
        waiting = _Waiting(line, descriptor)
        if self.hung_up:
            waiting.drop_descriptor()
            return
        self._outbox.append(waiting)
        if len(self._outbox) == 1:
            self._write()

    async def flushed(self) -> bool:
        """Waits until all that was said has left; false when it never will. Cancel safe."""
        if self._outbox:
            left: asyncio.Future[bool] = self._loop.create_future()
            self._outbox[-1].then.append(lambda ok: None if left.done() else left.set_result(ok))
            return await left
        return not self.hung_up

    @property
    def quiet(self) -> bool:
        """All that was said has left, and all that was handed back has arrived."""
        return not self._outbox and not self._handed_back

    def hand_back(
        self,
        descriptor: int,
        data: bytes,
        then: Callable[[Arrived], None],
        peer: tuple[str, int] | None = None,
    ) -> None:
        """Gives a connection back; ``then`` learns what became of it. ``descriptor`` is the caller's:
        a copy of it is sent. It must not be read or written until ``then`` was told that it was lost."""
        if self.hung_up:
            then(False)
            return
        try:
            copy = os.dup(descriptor)
        except OSError:
            # Out of descriptors: it never left.
            then(False)
            return
        self._handed_back.append(then)
        self.say(wire.hand_back(data, peer), copy)

    def socket_closed(self) -> None:
        """Reports that a connection was closed. Reports gather for a moment and go as one line."""
        if self.hung_up:
            return
        if self._closed_sockets == 0:
            self._loop.call_later(_GATHER, self._report_closed)
        self._closed_sockets += 1

    def _report_closed(self) -> None:
        count, self._closed_sockets = self._closed_sockets, 0
        if count:
            self.say(wire.sockets_closed(count))

    def _write(self) -> None:
        while self._outbox:
            first = self._outbox[0]
            try:
                if first.descriptor is None:
                    sent = self._socket.send(first.rest)
                else:
                    sent = socket.send_fds(self._socket, [first.rest], [first.descriptor])
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._socket, self._write)
                return
            except OSError as error:
                if error.errno == errno.ETOOMANYREFS:
                    self._loop.remove_writer(self._socket)
                    self._loop.call_later(_RETRY, self._write)
                else:
                    self.hang_up()
                return
            first.drop_descriptor()
            first.rest = first.rest[sent:]
            if not first.rest:
                self._outbox.popleft()
                first.done(True)
        if not self.hung_up:
            self._loop.remove_writer(self._socket)
            self._look_whether_quiet()

    # --- Hearing -------------------------------------------------------------------------------

    def _readable(self) -> None:
        for _ in range(_READS_AT_ONCE):
            if self.hung_up:
                return
            try:
                data, lost, descriptors = _receive(self._socket)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # The other end was closed with lines of ours unread.
                data, lost, descriptors = b"", False, []
            self._descriptors.extend(descriptors)
            if lost:
                self._descriptors.append(None)
            if not data:
                self.hang_up()
                return
            self._decoder.push(data)
            try:
                for line in self._decoder.lines():
                    self._hear(wire.parse(line))
            except wire.LineTooLong:
                self.hang_up()
                return
            if self._decoder.between_lines:
                self._close_strays()

    def _hear(self, message: wire.Message) -> None:
        if isinstance(message, wire.HandOff) or message is wire.Word.UNREADABLE:
            self._on_message(message, self._descriptors.popleft() if self._descriptors else None)
        elif message is wire.Word.ARRIVED or message is wire.Word.LOST:
            if self._handed_back:
                self._handed_back.popleft()(message is wire.Word.ARRIVED)
                self._look_whether_quiet()
        else:
            self._on_message(message, None)

    def _look_whether_quiet(self) -> None:
        if self.on_quiet is not None and self.quiet:
            self.on_quiet()

    def _close_strays(self) -> None:
        # No line is under way that might still speak of them.
        while self._descriptors:
            stray = self._descriptors.popleft()
            if stray is not None:
                os.close(stray)

    # --- The end -------------------------------------------------------------------------------

    def hang_up(self) -> None:
        """Ends the channel from this side: what waits is dropped, who waits is told."""
        if self.hung_up:
            return
        self.hung_up = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._close_strays()
        self._socket.close()
        waiting, self._outbox = self._outbox, deque()
        handed_back, self._handed_back = self._handed_back, deque()
        never_left = sum(line.descriptor is not None for line in waiting)
        for line in waiting:
            line.done(False)
        for number, then in enumerate(handed_back, never_left - len(handed_back)):
            then(False if number >= 0 else None)
        self._on_end()


def _receive(sock: socket.socket) -> tuple[bytes, bool, list[int]]:
    """Reads once: bytes, whether a descriptor was lost on the way, and those that were not."""
    # Not `socket.recv_fds`, which leaves its flags out in some versions: a child must not get a client.
    size = socket.CMSG_SPACE(_MOST_DESCRIPTORS * array.array("i").itemsize)
    data, control, flags, _ = sock.recvmsg(_READ_SIZE, size, socket.MSG_CMSG_CLOEXEC)
    numbers = array.array("i")
    for level, kind, content in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
    return data, bool(flags & socket.MSG_CTRUNC), list(numbers)
