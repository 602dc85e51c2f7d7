"""What all connections of this process share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.server import ServerState

from .. import engine, session
from ..head import Head
from ..learning import Learner, Request
from ..listener import Listener
from ..settings import Settings

if TYPE_CHECKING:
    from .protocol import ClientProtocol

class Worker:
    """The shared things, in one place for a connection to look at."""

    def __init__(
        self,
        listener: Listener,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
    ) -> None:
        self.config = config
        self.server_state = server_state
        self.app_state = app_state
        self.app: Any = config.loaded_app
        self.listener = listener
        self.sessions = listener.sessions
        self.learner = Learner(listener.settings.key, listener.sessions)
        listener.on_settings = self._follow
        self.clients: set[ClientProtocol] = set()
        """Connections that speak HTTP."""
        self.abandoned: set[asyncio.Task[Any]] = set()
        """Requests still being answered although their client has gone."""
        self._draining = False

    @property
    def closes_connections(self) -> bool:
        return self._draining or self.listener.settings.keepalive == "close"

    @property
    def hands_back(self) -> bool:
        return self.listener.settings.keepalive == "hand-back" and self.listener.takes_back

    def is_elsewhere(self, request: Request, head: Head) -> bool:
        """Whether a request is for another pool, or of a session that is not one of ours."""
        matches = self.listener.settings.matches
        if matches is not None and not matches.is_own(head):
            return True
        return request.sid is not None and not self.sessions.owns(request.sid)

    def abandon(self, task: asyncio.Task[Any]) -> None:
        self.abandoned.add(task)
        task.add_done_callback(self.abandoned.discard)

    def drain(self) -> None:
        """From now on every connection ends with the request under way."""
        self._draining = True
        for client in list(self.clients):
            client.drain()


    def _follow(self, settings: Settings) -> None:
        self.learner.key = settings.key
        announce_engine_io(self.listener)


def announce_engine_io(listener: Listener) -> None:
    """Has Engine.IO servers announce their sessions, if it is theirs that sidetrack asks for."""

    def tag(sid: str) -> str:
        return listener.sessions.tagged(sid) if listener.settings.key.kind == "query" else sid

    if listener.settings.key.kind == "query":
        engine.announce_all(listener.sessions, tag)
