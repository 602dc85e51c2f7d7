"""Learning from requests and responses which sessions live here."""

from __future__ import annotations

from collections.abc import Iterable

from .head import Head
from .key import SessionKey
from .session import Sessions


class Request:
    """One request as far as its session is concerned."""

    def __init__(self, method: str, sid: str | None, final: bool) -> None:
        self.method = method
        self.sid = sid
        self.final = final
        """It is answered here whatever its session."""


class Learner:
    """Announces sessions that no library announces.

    - A header or cookie session begins with the response that gives the client its id.
    - A path session is the client's own invention: the worker that serves its first request has it.
      So has one that serves, without an error, a header or cookie nobody else knows: the id may come
      from a worker before this one, and the session itself from a store they share.
    - Such sessions end with a successful DELETE, or when this worker answers 404 to them; not those
      of a cookie, which comes with every request for anything. It ends when the client is told to
      forget it.

    What a query parameter means only a library knows (:mod:`sidetrack.engine`), or the app, which
    then announces it itself (:func:`sidetrack.sessions`).
    """

    def __init__(self, key: SessionKey, sessions: Sessions) -> None:
        self.key = key
        self._sessions = sessions

    def look(self, head: Head, final: bool) -> Request:
        return Request(head.method, self.key.find(head), final)

    def begin(self, request: Request) -> None:
        if request.sid is not None:
            self._sessions.begin_request(request.sid)

    def end(self, request: Request) -> None:
        if request.sid is not None:
            self._sessions.end_request(request.sid)

    def respond(self, request: Request, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """To be called before the response leaves."""
        if self.key.kind == "query":
            return
        sid = request.sid
        if sid is not None:
            if self._has_ended(request, status):
                self._sessions.close(sid)
            elif request.final and status < 400 and not self._sessions.owns(sid):
                self._sessions.open(sid, ends=False)
                self._sessions.begin_request(sid)
        for given in self.key.learn(headers):
            if given:
                self._sessions.open(given, ends=False)
            elif sid is not None:
                self._sessions.close(sid)

    def _has_ended(self, request: Request, status: int) -> bool:
        if self.key.kind == "cookie":
            return False
        return status == 404 or (request.method == "DELETE" and 200 <= status < 300)
