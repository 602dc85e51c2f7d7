"""uvicorn's server, with sidetrack in the place of its listening sockets."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import signal
import socket
import time
from collections.abc import Iterator

import uvicorn

from ..connection import Connection
from .. import session
from ..join import Join
from ..listener import Listener
from ..settings import Settings
from .protocol import ClientProtocol
from .worker import Worker, announce_engine_io

_TICK = 0.1
_TIDY_EVERY = round(60 / _TICK)
# Sidetrack answers at once. One that hangs must not keep a worker that was told to end.
_LEAVE_PATIENCE = 5.0
# At the end, a request whose client has gone gets so long to come to its own end.
_ABANDONED_PATIENCE = 2.0


class _Phase(enum.Enum):
    STARTING = enum.auto()
    SERVING = enum.auto()
    LEAVING = enum.auto()
    """Sidetrack was told to send no more; what is on its way is still taken."""
    DRAINING = enum.auto()
    """No connections come any more. Requests and WebSockets go on until they end by themselves."""
    ORPHANED = enum.auto()
    """The same without sidetrack: connections that are open stay as useful as they can."""
    STOPPING = enum.auto()
    """uvicorn's own shutdown: WebSockets are told to go."""


class Server(uvicorn.Server):
    """Serves until sidetrack asks it to finish or ends, or on SIGTERM or SIGINT, and the last connection
    has closed. A worker that has joined goes on with the next sidetrack, so only signals end it. A second signal, or ``timeout_graceful_shutdown``, closes WebSockets as well (1012); a
    third one ends at once."""

    def __init__(self, config: uvicorn.Config, settings: Settings, channel: socket.socket) -> None:
        super().__init__(config)
        self._settings = settings
        self._socket = channel
        self._phase = _Phase.STARTING
        self._since = time.monotonic()
        self._adopting: set[asyncio.Task[None]] = set()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self.listener = Listener(self._socket, self._settings, Join.from_env(self._settings.slot))
        session.set_of_this_process(self.listener.sessions)
        # Before the app is imported, which may make Engine.IO servers as it is.
        announce_engine_io(self.listener)
        await super().serve([])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        self.worker = Worker(self.listener, self.config, self.server_state, self.lifespan.state)
        # The first connection may come before the first tick, and needs the default headers.
        await self.on_tick(0)
        if not self.should_exit:
            self._enter(_Phase.SERVING)
            self._accepting = asyncio.create_task(self._accept())

    async def main_loop(self) -> None:
        counter = 0
        while not self.should_exit:
            counter += 1
            await asyncio.sleep(_TICK)
            # Keeps the Date header true.
            await self.on_tick(counter)
            if counter % _TIDY_EVERY == 0:
                self.worker.sessions.tidy()
            if self._is_over():
                self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._enter(_Phase.STOPPING)
        self.listener.close()
        # A long poll whose client has gone would otherwise be waited for until it times out.
        asyncio.get_running_loop().call_later(_ABANDONED_PATIENCE, self._cancel_abandoned)
        await super().shutdown([])
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.listener.channel.flushed(), 1)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Not uvicorn's way, which raises the signal again at the end: leaving when asked is success.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    # --- Connections ---------------------------------------------------------------------------

    async def _accept(self) -> None:
        async for connection in self.listener:
            task = asyncio.create_task(self._adopt(connection))
            self._adopting.add(task)
            task.add_done_callback(self._adopting.discard)
        if self.listener.channel.hung_up and self._phase is _Phase.SERVING:
            self._enter(_Phase.ORPHANED)
        elif self._phase is not _Phase.STOPPING:
            self._enter(_Phase.DRAINING)
            # Those that are just being adopted find out by themselves.
            self.worker.drain()

    async def _adopt(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                lambda: ClientProtocol(self.worker, connection), connection.socket
            )
        except OSError:
            # The client has gone in this moment.
            connection.close()

    def _cancel_abandoned(self) -> None:
        for task in list(self.worker.abandoned):
            task.cancel()

    # --- The end -------------------------------------------------------------------------------

    def _signalled(self) -> None:
        if self._phase is _Phase.SERVING:
            self._enter(_Phase.LEAVING)
            self.listener.leave()
        elif self._phase is _Phase.ORPHANED and not self.worker.closes_connections:
            self.worker.drain()
        elif self._phase is _Phase.STOPPING:
            self.force_exit = True
        else:
            self.should_exit = True

    def _is_over(self) -> bool:
        """Looks at everything that has an end."""
        waited = time.monotonic() - self._since
        if self._phase is _Phase.LEAVING and waited > _LEAVE_PATIENCE:
            self.listener.end()
        if self._phase not in (_Phase.DRAINING, _Phase.ORPHANED):
            return False
        if not self.listener.open:
            return True
        limit = self.config.timeout_graceful_shutdown
        if self._phase is _Phase.DRAINING and limit is not None and waited > limit:
            # The time for grace is up; what is left is for good-byes.
            self.config.timeout_graceful_shutdown = 1
            return True
        return False

    def _enter(self, phase: _Phase) -> None:
        self._phase = phase
        self._since = time.monotonic()
