"""Looks out for a socket's file, so that a sidetrack which starts again is found at once."""

from __future__ import annotations

import asyncio
import os
import random

# In seconds. Python's own library watches no folder, and a look costs microseconds.
_LOOK_EVERY = 0.05


class Lookout:
    """For one file, from now on."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen = self._look()

    async def wait(self, seconds: float) -> bool:
        """Waits about so long, or until something has happened to the file, which is true then."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds * random.uniform(0.5, 1)
        while True:
            seen, self._seen = self._seen, self._look()
            if self._seen != seen:
                # Not all workers come at the very same moment.
                await asyncio.sleep(random.uniform(0.005, 0.025))
                return True
            left = until - loop.time()
            if left <= 0:
                return False
            await asyncio.sleep(min(left, _LOOK_EVERY))

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_ctime_ns
