"""Coming back to a sidetrack that this worker has joined.

``sidetrack join`` does the asking the first time, before it becomes the worker's program, and names
the place in the environment. From then on the worker asks by itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import socket
import time
from collections.abc import Callable

from .lookout import Lookout
from .settings import Settings

PLACE = "SIDETRACK_JOIN"
"""The environment variable that names the socket this worker has joined at."""

SHORTEST = 0.1
"""The first pause between two attempts, in seconds …"""
LONGEST = 5.0
"""… and the longest."""
PROVEN_AFTER = 10.0
"""A channel that ends sooner was no success: the pauses go on growing."""
SLOT_PATIENCE = 5.0
"""How long a slot that was given, not chosen, is asked for while somebody else has it."""

_GIVEN = re.compile(r"(?:[\w-]+\.)?w\d+")
_LONGEST_ANSWER = 4096
_ANSWER_WITHIN = 10.0
_MOST_DOUBLINGS = 16

_logger = logging.getLogger(__name__)


class JoinRefused(Exception):
    """sidetrack itself has said no, and why."""


class Join:
    """Where this worker has joined, in which slot, and how its attempts to come back went."""

    def __init__(self, path: str, slot: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self.slot = slot
        self._clock = clock
        self._attempts = 0
        self._since = clock()

    @classmethod
    def from_env(cls, slot: str | None) -> Join | None:
        """None for a worker that has not joined."""
        path = os.environ.get(PLACE)
        return cls(path, slot) if path else None

    async def again(self) -> tuple[socket.socket, Settings]:
        """Tries until there is a sidetrack that takes this worker. Cancel safe."""
        _logger.info("sidetrack has gone; open connections are served on")
        if self._clock() - self._since >= PROVEN_AFTER:
            self._attempts = 0
        lookout = Lookout(self.path)
        refused: float | None = None
        trouble = ""
        while True:
            news = await lookout.wait(self.pause())
            self._attempts = 0 if news else min(self._attempts + 1, _MOST_DOUBLINGS)
            try:
                channel, settings = await self._attempt(self.wish(refused))
            except JoinRefused as error:
                refused = self._clock() if refused is None else refused
                found = f"it refuses this worker: {error}"
            except (OSError, asyncio.TimeoutError):
                # Not there yet, or going again.
                refused, found = None, ""
            except ValueError as error:
                refused, found = None, f"it does not answer as sidetrack does: {error}"
            else:
                _logger.info("sidetrack is back")
                self.slot, self._since = settings.slot, self._clock()
                return channel, settings
            if found and found != trouble:
                _logger.warning("%s: not back yet: %s", self.path, found)
                trouble = found

    def pause(self) -> float:
        """How long to wait before the next attempt, in seconds."""
        return float(min(LONGEST, SHORTEST * 2**self._attempts))

    def wish(self, refused: float | None) -> str | None:
        """The slot to ask for; none for any. ``refused``: since when it is refused."""
        if self.slot is None or refused is None or not _GIVEN.fullmatch(self.slot):
            return self.slot
        return None if self._clock() - refused > SLOT_PATIENCE else self.slot

    async def _attempt(self, slot: str | None) -> tuple[socket.socket, Settings]:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            channel.setblocking(False)
            answer = await asyncio.wait_for(_ask(channel, self.path, slot), _ANSWER_WITHIN)
            return channel, Settings.from_answer(answer)
        except BaseException:
            channel.close()
            raise


async def _ask(channel: socket.socket, path: str, slot: str | None) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    await loop.sock_connect(channel, path)
    request = {"type": "sidetrack:join", "pid": os.getpid()} | ({} if slot is None else {"slot": slot})
    await loop.sock_sendall(channel, json.dumps(request).encode() + b"\n")
    line = b""
    # What follows the answer is for the channel, and may bring descriptors: one byte at a time.
    while not line.endswith(b"\n"):
        byte = await loop.sock_recv(channel, 1)
        if not byte:
            raise ConnectionResetError("sidetrack has closed the connection")
        line += byte
        if len(line) > _LONGEST_ANSWER:
            raise ValueError("a line that does not end")
    answer = json.loads(line)
    kind = answer.get("type") if isinstance(answer, dict) else None
    if kind == "sidetrack:refused":
        raise JoinRefused(answer.get("reason"))
    if kind != "sidetrack:joined":
        raise ValueError(line.decode("utf-8", "backslashreplace").strip())
    return dict(answer)
