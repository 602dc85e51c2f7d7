"""Which sessions live here, and telling sidetrack so."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from . import wire

REFRESH = 60.0
"""A session without an announced end is announced again so often, in seconds, while it is used."""

IDLE = 30 * 60.0
"""… and is forgotten after so many seconds without a request, unless sidetrack says otherwise."""


class _Session:
    """What is known of a session whose end nobody announces."""

    def __init__(self, now: float) -> None:
        self.seen = now
        self.said = now
        self.requests = 0


class Sessions:
    """Announces the sessions this worker owns, so that their later connections come here.

    Saying a thing twice is the same as saying it once. An announcement has to leave before the
    client can know the id, because the client's next connection may come at once:
    ``python -m sidetrack.asgi`` sees to that for whatever is announced before a response starts;
    elsewhere, await :meth:`flushed` before the response goes out.
    """

    def __init__(
        self,
        say: Callable[[bytes], None],
        flushed: Callable[[], Awaitable[bool]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._flushed = flushed
        self._clock = clock
        self.idle = IDLE
        """After so many seconds without a request a session without an announced end is forgotten."""
        self.tag: str | None = None
        """What ids of new sessions are to begin with, followed by a dot; none when nothing is wanted."""
        # None for a session whose end will be announced.
        self._open: dict[str, _Session | None] = {}

    def open(self, sid: str, ends: bool = True) -> None:
        """Announces a session. ``ends=False`` if nobody will :meth:`close` it: then it is announced
        again while it is used and forgotten when it is not."""
        if sid in self._open:
            self._refresh(sid)
            return
        self._open[sid] = None if ends else _Session(self._clock())
        self._say(wire.opened(sid, ends))

    def close(self, sid: str) -> None:
        """Announces that a session has ended. Nothing happens if it is not one of ours."""
        if sid in self._open:
            del self._open[sid]
            self._say(wire.closed(sid))

    def owns(self, sid: str) -> bool:
        """Whether this worker has announced the session and not its end."""
        return sid in self._open

    def tagged(self, sid: str) -> str:
        """The id that a new session shall have instead of this one: it begins with the tag of this
        worker where sidetrack wants that, so that requests find their way without a table."""
        tag = self.tag
        return sid if tag is None or sid.startswith(f"{tag}.") else f"{tag}.{sid}"

    def __len__(self) -> int:
        return len(self._open)

    async def flushed(self) -> bool:
        """Waits until all announcements have left; false when sidetrack has ended."""
        return await self._flushed()

    def begin_request(self, sid: str) -> None:
        """A request of this session is being served. Pairs with :meth:`end_request`."""
        self._refresh(sid)
        session = self._open.get(sid)
        if session is not None:
            session.requests += 1

    def end_request(self, sid: str) -> None:
        session = self._open.get(sid)
        if session is not None:
            session.seen = self._clock()
            session.requests = max(session.requests - 1, 0)

    def tidy(self) -> None:
        """Forgets what has not been used, and announces again what has a request open. To be called
        about once a minute."""
        now = self._clock()
        for sid, session in list(self._open.items()):
            if session is None:
                continue
            if session.requests:
                self._refresh(sid)
            elif now - session.seen >= self.idle:
                self.close(sid)

    def repeat(self) -> None:
        """Announces all of them again, to a sidetrack that knows none. That is no use of them."""
        now = self._clock()
        for sid, session in list(self._open.items()):
            if session is None:
                self._say(wire.opened(sid))
            elif session.requests or now - session.seen < self.idle:
                session.said = now
                self._say(wire.opened(sid, ends=False))

    def _refresh(self, sid: str) -> None:
        session = self._open.get(sid)
        if session is None:
            return
        session.seen = self._clock()
        if session.seen - session.said >= REFRESH:
            session.said = session.seen
            self._say(wire.opened(sid, ends=False))


async def _nobody() -> bool:
    return False


_of_this_process: Sessions | None = None


def of_this_process() -> Sessions:
    """The sessions of the worker that serves this process.

    Where there is none, as when the same app runs without sidetrack, what is announced is only
    remembered.
    """
    global _of_this_process
    if _of_this_process is None:
        _of_this_process = Sessions(lambda line: None, _nobody)
    return _of_this_process


def tagged(sid: str) -> str:
    """:meth:`Sessions.tagged` of the worker that serves this process. To be used by apps that make
    the ids of their sessions, and by those only: python-engineio's are tagged by themselves."""
    return of_this_process().tagged(sid)


def set_of_this_process(sessions: Sessions) -> None:
    global _of_this_process
    _of_this_process = sessions
