"""Taking connections from the channel, acknowledging each before it can be read."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque

from . import wire
from .channel import Channel
from .connection import Connection, adopt
from .session import Sessions


class ChannelError(RuntimeError):
    """Why there is no channel to sidetrack; the message says what to do."""


_taken = False


def channel_from_env() -> socket.socket:
    """Takes the channel this process has inherited from sidetrack, once.

    It is made close-on-exec and its variable removed: this process's children are no workers.

    :raises ChannelError: when the program was not started by sidetrack, or has no channel.
    """
    global _taken
    name = wire.CHANNEL_FD
    if _taken:
        raise ChannelError("the channel to sidetrack is already in use: one process has one listener")
    value = os.environ.get(name)
    if value is None:
        raise ChannelError(
            f"{name} is not set: this program gets its connections from sidetrack, "
            "so start it with `sidetrack run -- PROGRAM`"
        )
    # 0, 1 and 2 are what every process has; none of them can be the channel.
    if not value.isascii() or not value.isdigit() or int(value) <= 2:
        raise ChannelError(
            f"{name}={value} is not a descriptor number: it is set by sidetrack, "
            "and nothing between sidetrack and this program may change it"
        )
    number = int(value)
    try:
        found = os.readlink(f"/proc/self/fd/{number}")
        if not found.startswith("socket:"):
            raise _not_a_channel(number, found)
        channel = socket.socket(fileno=number)
    except (OSError, OverflowError) as error:
        raise _not_a_channel(number, f"not open ({error})") from None
    if channel.family != socket.AF_UNIX or channel.type != socket.SOCK_STREAM:
        channel.detach()
        raise _not_a_channel(number, "a socket of another kind")
    channel.set_inheritable(False)
    del os.environ[name]
    _taken = True
    return channel


def _not_a_channel(number: int, found: str) -> ChannelError:
    return ChannelError(
        f"descriptor {number}, named by {wire.CHANNEL_FD}, is {found}, not the channel to sidetrack: "
        "a wrapper between sidetrack and this program may have closed it, "
        "so let the wrapper `exec` the program with its descriptors open"
    )


class Listener:
    """Yields the connections sidetrack hands to this worker::

        async with Listener.from_env() as listener:
            async for connection in listener:
                ...

    The iteration ends when there will be no more connections, because sidetrack asked this worker to
    finish or has ended. Leaving the block tells sidetrack that this worker leaves: connections on
    their way are given back unread, and the open ones stay so.
    """

    def __init__(self, channel: socket.socket) -> None:
        """A listener on a channel that came another way, such as one end of a socket pair in a test.
        To be called within a running event loop."""
        self._channel = Channel(channel, self._hear, self._hung_up)
        self.sessions = Sessions(self._channel.say, self._channel.flushed)
        """Announces this worker's sessions."""
        self.open = 0
        """Connections handed over and not yet closed, probes included."""
        self._arrivals: deque[tuple[wire.Message, int | None]] = deque()
        # Acknowledged, but the acknowledgement may not have left yet.
        self._arrived: Connection | None = None
        self._stirred = asyncio.Event()
        self._ready = False
        self._leaving = False
        self._ended = False

    @classmethod
    def from_env(cls) -> Listener:
        """:raises ChannelError: as :func:`channel_from_env`."""
        return cls(channel_from_env())

    @property
    def channel(self) -> Channel:
        return self._channel

    def ready(self) -> None:
        """Tells sidetrack that connections may come. The first :meth:`accept` does so too."""
        if not self._ready:
            self._ready = True
            self._channel.say(wire.READY)

    def leave(self) -> None:
        """Tells sidetrack to send no more. What was on its way is still to be accepted; then the
        iteration ends as if sidetrack had asked for it."""
        if not self._leaving and not self._ended:
            self._leaving = True
            self._channel.say(wire.LEAVING)

    async def accept(self) -> Connection | None:
        """The next connection; none when there will be no more.

        It is yielded only after its acknowledgement has left, so that it is never read here and
        given to another worker as well. Cancel safe: a connection that has arrived is kept.
        """
        self.ready()
        while True:
            if self._arrived is None and self._arrivals:
                self._arrived = self._take(*self._arrivals.popleft())
            elif self._arrived is not None:
                left = await self._channel.flushed()
                connection, self._arrived = self._arrived, None
                if left:
                    return connection
                # Not acknowledged, so perhaps somebody else's by now.
                connection.close()
            elif self._ended:
                return None
            else:
                self._stirred.clear()
                await self._stirred.wait()

    def close(self) -> None:
        """Leaves, and gives back what comes late."""
        self.leave()
        self._end()
        if self._arrived is not None:
            self._arrived.close()
            self._arrived = None
        while self._arrivals:
            self._refuse(self._arrivals.popleft()[1])

    def end(self) -> None:
        """Accepts what has arrived and no more."""
        self._end()

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> Connection:
        connection = await self.accept()
        if connection is None:
            raise StopAsyncIteration
        return connection

    async def __aenter__(self) -> Listener:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await self._channel.flushed()

    def _hear(self, message: wire.Message, descriptor: int | None) -> None:
        if isinstance(message, wire.HandOff) or message is wire.Word.UNREADABLE:
            if self._ended:
                self._refuse(descriptor)
            else:
                self._arrivals.append((message, descriptor))
                self._stirred.set()
        elif message is wire.Word.DISCONNECT or (message is wire.Word.ANSWERED and self._leaving):
            self._end()

    def _take(self, message: wire.Message, descriptor: int | None) -> Connection | None:
        if descriptor is None or not isinstance(message, wire.HandOff):
            self._refuse(descriptor)
            return None
        try:
            adopted = adopt(descriptor)
        except OSError:
            self._refuse(None)
            return None
        self._channel.say(wire.ACK)
        if adopted is None:
            self._channel.socket_closed()
            return None
        sock, peer = adopted
        counted = not message.probe
        self.open += 1
        sock.on_close = lambda: self._socket_closed(counted)
        return Connection(sock, peer, message, self._channel)

    def _socket_closed(self, counted: bool) -> None:
        self.open -= 1
        if counted:
            self._channel.socket_closed()

    def _refuse(self, descriptor: int | None) -> None:
        if descriptor is not None:
            os.close(descriptor)
        self._channel.say(wire.NACK)

    def _end(self) -> None:
        self._ended = True
        self._stirred.set()

    def _hung_up(self) -> None:
        # What was not acknowledged is another worker's now.
        while self._arrivals:
            descriptor = self._arrivals.popleft()[1]
            if descriptor is not None:
                os.close(descriptor)
        self._end()
