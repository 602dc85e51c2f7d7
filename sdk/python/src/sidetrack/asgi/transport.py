"""The transport as uvicorn's HTTP protocol sees it."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from ..connection import ClientSocket


class Owner(Protocol):
    """Who stands between the real transport and uvicorn's protocol."""

    def set_inner_paused(self, paused: bool) -> None: ...

    def upgrade(self, protocol: asyncio.BaseProtocol) -> None: ...

    @property
    def away(self) -> bool: ...


class InnerTransport(asyncio.Transport):
    """Passes everything on, but for four things: two may pause reading, not one; a change of
    protocol is an upgrade; nothing is written or closed while the connection is on its way back; and
    the peer is the client, also when a proxy has connected for it.
    """

    def __init__(self, transport: asyncio.Transport, owner: Owner, sock: ClientSocket) -> None:
        super().__init__()
        self._transport = transport
        self._socket = sock
        self._owner: Owner | None = owner

    def release(self) -> None:
        """From now on everything passes."""
        self._owner = None

    # --- What differs ------------------------------------------------------------------------

    def pause_reading(self) -> None:
        if self._owner is None:
            self._transport.pause_reading()
        else:
            self._owner.set_inner_paused(True)

    def resume_reading(self) -> None:
        if self._owner is None:
            self._transport.resume_reading()
        else:
            self._owner.set_inner_paused(False)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        if self._owner is None:
            self._transport.set_protocol(protocol)
        else:
            self._owner.upgrade(protocol)

    def write(self, data: Any) -> None:
        if not self._away:
            self._transport.write(data)

    def writelines(self, list_of_data: Any) -> None:
        if not self._away:
            self._transport.writelines(list_of_data)

    def write_eof(self) -> None:
        if not self._away:
            self._transport.write_eof()

    def close(self) -> None:
        if not self._away:
            self._transport.close()

    def abort(self) -> None:
        if not self._away:
            self._transport.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if self._socket.announced is not None:
            # An event loop's own socket object may ask the kernel.
            if name == "peername":
                return self._socket.getpeername()
            if name == "socket":
                return self._socket
        return self._transport.get_extra_info(name, default)

    @property
    def _away(self) -> bool:
        return self._owner is not None and self._owner.away

    # --- What does not -----------------------------------------------------------------------

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def is_reading(self) -> bool:
        return self._transport.is_reading()

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._transport.get_protocol()

    def can_write_eof(self) -> bool:
        return self._transport.can_write_eof()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._transport.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)
