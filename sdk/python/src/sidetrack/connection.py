"""A client's connection as the worker gets it."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from . import wire
from .channel import Arrived

Peer = tuple[str, int] | None
"""The client's own address, also when a proxy has told sidetrack of it; none when it came over a Unix
socket."""


class ClientSocket(socket.socket):
    """A socket that tells once when it is closed, whoever closes it: an event loop's transport does."""

    on_close: Callable[[], None] | None = None
    announced: Peer = None
    """The client, where the socket's own peer is a proxy."""

    def getpeername(self) -> Any:
        if self.announced is None:
            return super().getpeername()
        return (*self.announced, 0, 0) if ":" in self.announced[0] else self.announced

    def close(self) -> None:
        super().close()
        self._tell()

    def detach(self) -> int:
        # uvloop closes a socket by taking its descriptor away.
        number = super().detach()
        self._tell()
        return number

    def _tell(self) -> None:
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            on_close()


HandBack = Callable[[ClientSocket, bytes, Callable[[Arrived], None]], None]
"""Gives a client's socket back with the bytes that were read from it; the function learns what became
of that. The socket stays the caller's."""


class Connection:
    """A connection with every byte the client has sent still to come: first :attr:`data`, then what
    is in :attr:`socket`. sidetrack is told when the socket is closed."""

    def __init__(
        self, sock: ClientSocket, peer: Peer, hand_off: wire.HandOff, hand_back: HandBack
    ) -> None:
        sock.announced = hand_off.peer
        self.socket = sock
        """Non-blocking; nothing was read from it here."""
        self.peer = hand_off.peer or peer
        self.data = hand_off.data
        """What another worker has read. To be taken before anything from the socket."""
        self.final = hand_off.final
        """The first request stays here whatever its session: nobody knows a better worker."""
        self._hand_back = hand_back

    async def hand_back(self, data: bytes = b"") -> bool:
        """Gives the connection back because its next request belongs elsewhere.

        ``data`` is every byte read from it, from the first one of that request on. Every earlier
        response must have been written. Nothing may read from or write to the socket during the call.

        True: it is no longer yours, and closed here. False: it was lost on its way to sidetrack,
        so it is still yours and to be served here.
        """
        came: asyncio.Future[Arrived] = asyncio.get_running_loop().create_future()
        self._hand_back(
            self.socket, data, lambda arrived: None if came.done() else came.set_result(arrived)
        )
        if await came is False:
            return False
        self.close()
        return True

    def close(self) -> None:
        """Closes the socket."""
        self.socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def adopt(descriptor: int) -> tuple[ClientSocket, Peer] | None:
    """Makes a client's socket of a descriptor without reading from it; none if the client has gone.

    :raises OSError: when it is no connection. The descriptor is closed.
    """
    try:
        sock = ClientSocket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        raise
    try:
        if sock.type != socket.SOCK_STREAM:
            raise OSError("not a stream socket")
        sock.setblocking(False)
        name = sock.getpeername()
    except OSError as error:
        sock.close()
        if error.errno == errno.ENOTCONN:
            return None
        raise
    return sock, (str(name[0]), int(name[1])) if isinstance(name, tuple) else None



