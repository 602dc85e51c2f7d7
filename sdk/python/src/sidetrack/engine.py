"""Announcing the sessions of python-engineio, and so of python-socketio, at their birth.

An Engine.IO server keeps its sessions in ``sockets``, by the id the client gets. (``generate_id``
would be the other place to look, but python-socketio draws an id of its own from it for each
namespace.) It puts a session there before it answers the handshake and removes it when it has ended.
So the attribute is replaced, for all servers there are and will be, by a dictionary that tells.

Where ids are to be tagged, ``generate_id`` is replaced for just the one call a handshake makes first.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable
from typing import Any

from .session import Sessions

_logger = logging.getLogger(__name__)


class Announcing(dict[str, Any]):
    """A dictionary of sessions that announces what comes and goes."""

    def __init__(self, sessions: Sessions, content: dict[str, Any]) -> None:
        super().__init__()
        self._sessions = sessions
        for sid, session in content.items():
            self[sid] = session

    def __setitem__(self, sid: str, session: Any) -> None:
        super().__setitem__(sid, session)
        self._sessions.open(sid)

    def __delitem__(self, sid: str) -> None:
        super().__delitem__(sid)
        self._sessions.close(sid)

    def pop(self, sid: str, *default: Any) -> Any:
        session = super().pop(sid, *default)
        self._sessions.close(sid)
        return session

    def clear(self) -> None:
        for sid in list(self):
            del self[sid]


def announce_from(server: type[Any], sessions: Sessions, tag: Callable[[str], str] | None = None) -> None:
    """Has every instance of ``server``, an ``engineio.AsyncServer``, announce its sessions. ``tag`` makes
    the id of a new one out of that which the server has made."""
    if "sockets" in server.__dict__:
        return  # they do

    def get(self: Any) -> Announcing:
        current = self.__dict__["sockets"]
        if not isinstance(current, Announcing):
            # A server that was made before.
            current = self.__dict__["sockets"] = Announcing(sessions, current)
        return current

    def set(self: Any, content: dict[str, Any]) -> None:
        previous = self.__dict__.get("sockets")
        self.__dict__["sockets"] = Announcing(sessions, content)
        for sid in previous or ():
            if sid not in content:
                sessions.close(sid)

    server.sockets = property(get, set)
    if tag is not None:
        _tag_ids(server, tag)


def _tag_ids(server: type[Any], tag: Callable[[str], str]) -> None:
    handshake = server._handle_connect

    async def tagging(self: Any, *arguments: Any, **named: Any) -> Any:
        # The app may override generate_id anywhere in the chain, or in the instance. A handshake calls
        # it before it awaits anything, so nobody else meets the stand-in.
        generate = self.generate_id
        own = self.__dict__.get("generate_id")

        def restore() -> None:
            if self.__dict__.get("generate_id") is generate_tagged:
                if own is None:
                    del self.generate_id
                else:
                    self.generate_id = own

        def generate_tagged() -> str:
            restore()
            return tag(generate())

        self.generate_id = generate_tagged
        try:
            return await handshake(self, *arguments, **named)
        finally:
            restore()

    server._handle_connect = tagging


def announce_all(
    sessions: Sessions,
    tag: Callable[[str], str] | None = None,
    find: Callable[[str], Any] = importlib.util.find_spec,
) -> bool:
    """Announces the sessions of every asyncio Engine.IO server in this process. False if the package
    is not there or is none that we know."""
    if find("engineio") is None:
        return False
    try:
        server = importlib.import_module("engineio.async_server").AsyncServer
    except Exception:
        # The app finds out by itself, if it needs it.
        _logger.debug("engineio cannot be imported", exc_info=True)
        return False
    announce_from(server, sessions, tag)
    return True
