"""Taking connections from the channel, acknowledging each before it can be read."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable

from . import wire
from .channel import Arrived, Channel
from .connection import ClientSocket, Connection, adopt
from .join import Join
from .session import Sessions
from .settings import SLOT, Settings

PATIENCE = 5.0
"""How long a connection that is to be handed back waits for the next sidetrack, in seconds."""


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

    A worker that has joined outlives sidetrack, whether that ends, asks it to finish or is killed: it
    joins the next one at the same place and tells of its sessions again, and the iteration goes on.
    """

    def __init__(
        self, channel: socket.socket, settings: Settings | None = None, join: Join | None = None
    ) -> None:
        """A listener on a channel that came another way, such as one end of a socket pair in a test.
        To be called within a running event loop. ``join``: where to go when the channel ends."""
        self._loop = asyncio.get_running_loop()
        self._channel = Channel(channel, self._hear, self._hung_up)
        self.sessions = Sessions(lambda line: self._channel.say(line), lambda: self._channel.flushed())
        """Announces this worker's sessions."""
        self.on_settings: Callable[[Settings], None] | None = None
        """Called when another sidetrack has other settings, before it is told of anything."""
        self.settings = settings or Settings()
        """What sidetrack has said last."""
        self._follow(self.settings)
        self._join = join
        self._returning: asyncio.Task[None] | None = None
        # While another sidetrack may soon be there, connections to be handed back are kept for it.
        self._patience: asyncio.TimerHandle | None = None
        self._kept: list[tuple[ClientSocket, bytes, Callable[[Arrived], None]]] = []
        self.open = 0
        """Connections handed over and not yet closed, probes included."""
        self._arrivals: deque[tuple[wire.Message, int | None]] = deque()
        # Acknowledged, but the acknowledgement may not have left yet, over the channel it came on.
        self._arrived: tuple[Connection, Channel] | None = None
        self._stirred = asyncio.Event()
        self._ready = False
        self._leaving = False
        self._sent_away = False
        self._ended = False

    @classmethod
    def from_env(cls) -> Listener:
        """:raises ChannelError: as :func:`channel_from_env`, and when the settings make no sense."""
        try:
            settings = Settings.from_env()
        except ValueError as error:
            raise ChannelError(str(error)) from None
        return cls(channel_from_env(), settings, Join.from_env(settings.slot))

    @property
    def channel(self) -> Channel:
        """The present one; one that has hung up while there is none."""
        return self._channel

    @property
    def takes_back(self) -> bool:
        """Whether connections can be handed back, now or soon."""
        return not self._channel.hung_up or self._patience is not None

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
            if self._channel.hung_up:
                # Nobody is there to answer.
                self._end()

    def hand_back(self, sock: ClientSocket, data: bytes, then: Callable[[Arrived], None]) -> None:
        """Gives a client's socket back, or keeps it for the next sidetrack for a while.
        :meth:`Connection.hand_back` has the rules; ``then`` learns what became of it."""
        if self.takes_back and (self._channel.hung_up or self._sent_away):
            self._kept.append((sock, data, then))
        else:
            self._channel.hand_back(sock.fileno(), data, then, sock.announced)

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
                connection, channel = self._arrived
                left = await channel.flushed()
                self._arrived = None
                if left:
                    return connection
                # Not acknowledged, so perhaps somebody else's by now.
                connection.close()
            elif self._ended:
                return None
            elif self._sent_away and self._channel.quiet:
                # Nothing is on its way between us and a sidetrack that stops.
                self._channel.hang_up()
            else:
                self._stirred.clear()
                await self._stirred.wait()

    def close(self) -> None:
        """Leaves, and gives back what comes late."""
        self.leave()
        self._end()
        if self._arrived is not None:
            self._arrived[0].close()
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
        elif message is wire.Word.DISCONNECT and self._join is not None and not self._leaving:
            # Only this sidetrack ends, not the worker.
            self._sent_away = True
            self._channel.on_quiet = self._stirred.set
            self._stirred.set()
        elif message is wire.Word.DISCONNECT or (message is wire.Word.ANSWERED and self._leaving):
            self._end()

    def _take(self, message: wire.Message, descriptor: int | None) -> tuple[Connection, Channel] | None:
        if descriptor is None or not isinstance(message, wire.HandOff):
            self._refuse(descriptor)
            return None
        try:
            adopted = adopt(descriptor)
        except OSError:
            self._refuse(None)
            return None
        channel = self._channel
        channel.say(wire.ACK)
        if adopted is None:
            channel.socket_closed()
            return None
        sock, peer = adopted
        # Each sidetrack counts the connections that it has sent itself.
        counts = None if message.probe else channel
        self.open += 1
        sock.on_close = lambda: self._socket_closed(counts)
        return Connection(sock, peer, message, self.hand_back), channel

    def _socket_closed(self, counts: Channel | None) -> None:
        self.open -= 1
        if counts is not None:
            counts.socket_closed()

    def _refuse(self, descriptor: int | None) -> None:
        if descriptor is not None:
            os.close(descriptor)
        self._channel.say(wire.NACK)

    def _end(self) -> None:
        self._ended = True
        self._stirred.set()
        if self._returning is not None:
            self._returning.cancel()
        self._give_up()

    # --- From one sidetrack to the next --------------------------------------------------------

    def _hung_up(self) -> None:
        # What was not acknowledged is another worker's now.
        while self._arrivals:
            descriptor = self._arrivals.popleft()[1]
            if descriptor is not None:
                os.close(descriptor)
        self._sent_away = False
        if self._join is None or self._leaving or self._ended:
            self._end()
        else:
            self._patience = self._loop.call_later(PATIENCE, self._give_up)
            self._returning = self._loop.create_task(self._return(self._join))

    async def _return(self, join: Join) -> None:
        channel, settings = await join.again()
        # From here on without a pause: it is told everything before anybody can say more.
        self._channel = Channel(channel, self._hear, self._hung_up)
        if settings.slot is not None:
            os.environ[SLOT] = settings.slot
        self._follow(settings)
        # A request for a session that sidetrack does not know waits for a moment; one for a worker that
        # is not ready is refused. So sessions follow readiness at once. Where clients make the ids none
        # waits, and better refused than begun anew elsewhere.
        sessions_first = settings.key.kind == "path"
        if sessions_first:
            self.sessions.repeat()
        if self._ready:
            self._channel.say(wire.READY)
        if not sessions_first:
            self.sessions.repeat()
        kept, self._kept = self._kept, []
        if not self._channel.hung_up:
            self._give_up()
        for sock, data, then in kept:
            self.hand_back(sock, data, then)

    def _follow(self, settings: Settings) -> None:
        self.settings = settings
        self.sessions.idle, self.sessions.tag = settings.session_idle, settings.sid_tag
        if self.on_settings is not None:
            self.on_settings(settings)

    def _give_up(self) -> None:
        """Waits for no other sidetrack: what is kept for it is served here."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        kept, self._kept = self._kept, []
        for _, _, then in kept:
            then(False)
