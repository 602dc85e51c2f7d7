"""One client's connection: between the socket and uvicorn's own HTTP protocol.

Everything the client sends passes a :class:`~sidetrack.framing.Framer`. uvicorn gets one request at
a time: a head is fed when every earlier response is complete. A head whose session is another
worker's is not fed at all; the connection goes back to sidetrack with it. uvicorn's protocols are
used as they are, whichever of them is configured; they see an :class:`InnerTransport` and an app
that tells this class when a response begins and ends.
"""

from __future__ import annotations

import asyncio
import copy
import socket
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, cast

from ..channel import Arrived
from ..connection import Connection
from ..framing import Framer
from ..head import Head
from ..learning import Request
from .exchange import Exchange
from .transport import InnerTransport

if TYPE_CHECKING:
    from .worker import Worker

HEAD_TIMEOUT = 10.0
"""How long a client may take to send a head, in seconds. The same as sidetrack's own default."""

# More than this is not read while an earlier request is being answered.
_MOST_HELD = 64 * 1024
# uvicorn's own timer knows nothing of bytes that are held, so ours stands in for it.
_NEVER = 10**6


class ClientProtocol(asyncio.Protocol):
    """Owns a connection until it is closed, has become a WebSocket, or is sidetrack's again."""

    def __init__(self, worker: Worker, connection: Connection) -> None:
        self._worker = worker
        self._connection = connection
        self._framer = Framer()
        self._replay = connection.data
        self._begun = False
        self._fresh = True
        """No request was served here yet."""
        self._responding = False
        self._current: Request | None = None
        self._exchange: Exchange | None = None
        self._closing = worker.closes_connections
        """The next response to start is the last."""
        self._inner_paused = False
        self._paused = False
        self.away = False
        """On its way back to sidetrack: not to be read or written."""
        self._upgraded: asyncio.Protocol | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_is_for_head = False

    # --- Called by the transport ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        self._proxy = InnerTransport(self._transport, self, self._connection.socket)
        config = copy.copy(self._worker.config)
        config.loaded_app = self._app
        config.timeout_keep_alive = _NEVER
        make: Any = config.http_protocol_class
        self._inner: asyncio.Protocol = make(
            config=config, server_state=self._worker.server_state, app_state=self._worker.app_state
        )
        self._inner.connection_made(self._proxy)
        self._worker.clients.add(self)
        # Not now: uvloop starts to read after this, even if reading was paused in it.
        self._loop.call_soon(self._begin)

    def data_received(self, data: bytes) -> None:
        self._begin()
        if self._upgraded is not None:
            # Read before the transport had its new protocol.
            self._upgraded.data_received(data)
            return
        self._framer.push(data)
        self._pump()

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
        if self.away:
            self._send_back()

    def connection_lost(self, error: Exception | None) -> None:
        self._stop_timer()
        self.away = True
        self._worker.clients.discard(self)
        if self._responding and self._exchange is not None and self._exchange.task is not None:
            self._worker.abandon(self._exchange.task)
        # Without the error: uvicorn would leave its timer running.
        self._inner.connection_lost(None)

    # --- Called by uvicorn's protocol ----------------------------------------------------------

    def set_inner_paused(self, paused: bool) -> None:
        self._inner_paused = paused
        self._apply_pause()

    def upgrade(self, protocol: asyncio.BaseProtocol) -> None:
        self._stop_timer()
        self._worker.clients.discard(self)
        self._upgraded = cast(asyncio.Protocol, protocol)
        self._proxy.release()
        self._transport.set_protocol(protocol)

    async def _app(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        request = self._current or Request(scope.get("method", ""), None, False)
        self._exchange = Exchange(self, self._worker, request)
        await self._exchange.run(scope, receive, send)

    # --- Called by the exchange ----------------------------------------------------------------

    @property
    def closes(self) -> bool:
        """Whether a response that starts now is to be the last on this connection."""
        return self._closing

    def responded(self, last: bool) -> None:
        """A response is complete. ``last``: its head said that the connection ends with it."""
        self._responding = False
        if self._transport.is_closing() or self._upgraded is not None:
            return
        if self._closing and not last:
            # It had started before we knew.
            self._transport.close()
        else:
            self._pump()

    # --- Requests, one at a time ---------------------------------------------------------------

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        replay, self._replay = self._replay, b""
        self._framer.push(replay)
        self._pump()

    def _pump(self) -> None:
        framer = self._framer
        while not (self.away or self._upgraded or self._transport.is_closing()):
            if framer.in_body:
                piece = framer.take_body()
                if piece:
                    self._inner.data_received(piece)
                elif not framer.doubtful:
                    break
            elif framer.doubtful:
                self._closing = True
                if framer.held:
                    self._inner.data_received(framer.rest())
                break
            elif self._responding:
                break
            else:
                head = framer.head()
                if head is not None:
                    self._route(head)
                elif not framer.doubtful:
                    break
        self._apply_pause()
        self._watch()

    def _route(self, head: Head) -> None:
        worker = self._worker
        final = self._fresh and self._connection.final
        request = worker.learner.look(head, final)
        if worker.hands_back and not final and worker.is_elsewhere(request, head):
            self._leave()
            return
        self._fresh = False
        self._current = request
        self._responding = True
        self._inner.data_received(self._framer.take_head())
        if self._upgraded is not None and self._framer.held:
            self._upgraded.data_received(self._framer.rest())

    # --- Back to sidetrack ---------------------------------------------------------------------

    def _leave(self) -> None:
        self.away = True
        self._stop_timer()
        self._apply_pause()
        # Earlier responses have to be out before another process writes.
        if self._transport.get_write_buffer_size():
            self._transport.set_write_buffer_limits(0)
        else:
            self._send_back()

    def _send_back(self) -> None:
        if self._transport.is_closing() or self._transport.get_write_buffer_size():
            return
        self._worker.listener.hand_back(self._connection.socket, self._framer.peek_rest(), self._sent_back)

    def _sent_back(self, arrived: Arrived) -> None:
        if self._transport.is_closing():
            return
        if arrived is False:
            # Lost on its way, so still ours: its request is answered here, as one nobody owns.
            self.away = False
            self._fresh = self._connection.final = True
            self._transport.set_write_buffer_limits()
            self._pump()
        else:
            # Closes our copy of the descriptor, and shuts nothing down.
            self._transport.abort()

    # --- The end -------------------------------------------------------------------------------

    def drain(self) -> None:
        """Ends the connection as soon as no request of it is under way or unread."""
        self._closing = True
        idle = not (self._responding or self._framer.in_body or self._framer.held or self._fresh)
        if idle and not self.away and not self._has_unread():
            self._transport.close()

    def _has_unread(self) -> bool:
        try:
            return bool(self._connection.socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    # --- Pausing and timers --------------------------------------------------------------------

    def _apply_pause(self) -> None:
        if self._upgraded is not None or self._transport.is_closing():
            return
        full = self._responding and not self._framer.in_body and self._framer.held > _MOST_HELD
        paused = self.away or self._inner_paused or full
        if paused != self._paused:
            self._paused = paused
            if paused:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _watch(self) -> None:
        """A timer for whatever the client owes us."""
        if self._responding or self.away or self._upgraded is not None or self._transport.is_closing():
            self._stop_timer()
            return
        for_head = bool(self._framer.held) or self._fresh
        if for_head and self._timer is not None and self._timer_is_for_head:
            # One time for all of it, or it could come a byte at a time for ever.
            return
        self._stop_timer()
        self._timer_is_for_head = for_head
        patience = HEAD_TIMEOUT if for_head else self._worker.config.timeout_keep_alive
        self._timer = self._loop.call_later(patience, self._transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


