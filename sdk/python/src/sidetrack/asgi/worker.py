"""What all connections of this process share."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.server import ServerState

from .. import engine, session
from ..key import DEFAULT, SessionKey
from ..learning import Learner, Request
from ..listener import Listener

if TYPE_CHECKING:
    from .protocol import ClientProtocol

KEEPALIVE = "SIDETRACK_KEEPALIVE"
SESSION_KEY = "SIDETRACK_SESSION_KEY"


class Settings:
    """What sidetrack says in the environment.

    :raises ValueError: when it is none of what sidetrack says.
    """

    def __init__(self) -> None:
        try:
            self.key = SessionKey.parse(os.environ.get(SESSION_KEY) or DEFAULT)
        except ValueError as error:
            raise ValueError(f"{SESSION_KEY}: {error}") from None
        # A sidetrack that says nothing takes nothing back.
        self.keepalive = os.environ.get(KEEPALIVE) or "worker"
        if self.keepalive not in ("hand-back", "close", "worker"):
            raise ValueError(f'{KEEPALIVE}: expected hand-back, close or worker, found "{self.keepalive}"')


class Worker:
    """The shared things, in one place for a connection to look at."""

    def __init__(
        self,
        settings: Settings,
        listener: Listener,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
    ) -> None:
        self.config = config
        self.server_state = server_state
        self.app_state = app_state
        self.app: Any = config.loaded_app
        self.channel = listener.channel
        self.sessions = listener.sessions
        self.learner = Learner(settings.key, listener.sessions)
        self.closes_connections = settings.keepalive == "close"
        self.clients: set[ClientProtocol] = set()
        """Connections that speak HTTP."""
        self.abandoned: set[asyncio.Task[Any]] = set()
        """Requests still being answered although their client has gone."""
        self._may_hand_back = settings.keepalive == "hand-back"

    @property
    def hands_back(self) -> bool:
        return self._may_hand_back and not self.channel.hung_up

    def is_elsewhere(self, request: Request) -> bool:
        """Whether a request's session is not one of ours."""
        return request.sid is not None and not self.sessions.owns(request.sid)

    def abandon(self, task: asyncio.Task[Any]) -> None:
        self.abandoned.add(task)
        task.add_done_callback(self.abandoned.discard)

    def drain(self) -> None:
        """From now on every connection ends with the request under way."""
        self.closes_connections = True
        for client in list(self.clients):
            client.drain()


def announce_engine_io(settings: Settings, listener: Listener) -> None:
    """Has Engine.IO servers announce their sessions, if it is theirs that sidetrack asks for."""
    session.set_of_this_process(listener.sessions)
    if settings.key.kind == "query":
        engine.announce_all(listener.sessions)
