"""What sidetrack says about a worker's surroundings: in its environment, or when it joins."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

from .key import DEFAULT, SessionKey
from .matches import Matches
from .session import IDLE

SLOT = "SIDETRACK_SLOT"
SESSION_KEY = "SIDETRACK_SESSION_KEY"
KEEPALIVE = "SIDETRACK_KEEPALIVE"
SESSION_IDLE = "SIDETRACK_SESSION_IDLE"
SID_TAG = "SIDETRACK_SID_TAG"
MATCHES = "SIDETRACK_MATCHES"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """A worker's surroundings. Another sidetrack may have others."""

    slot: str | None = None
    """``w0``, ``w1``, …"""
    key: SessionKey = SessionKey.parse(DEFAULT)
    """Where a request carries its session id."""
    keepalive: str = "worker"
    """``hand-back``, ``close`` or ``worker``. A sidetrack that says nothing takes nothing back."""
    session_idle: float = IDLE
    """After so many seconds without a request a session whose end nobody announces is forgotten."""
    sid_tag: str | None = None
    """What ids of new sessions begin with, followed by a dot; none when sidetrack wants no tags."""
    matches: Matches | None = None
    """Which requests are for this worker's pool, where there are several."""

    @classmethod
    def from_env(cls) -> Settings:
        """:raises ValueError: when a variable holds none of what sidetrack says."""
        return cls._read(os.environ, SLOT, SESSION_KEY, KEEPALIVE, SESSION_IDLE, SID_TAG, MATCHES)

    @classmethod
    def from_answer(cls, answer: Mapping[str, object]) -> Settings:
        """What sidetrack has answered to a worker that joins it.

        :raises ValueError: when it is none of what sidetrack says.
        """
        return cls._read(answer, "slot", "session_key", "keepalive", "session_idle", "sid_tag", "matches")

    @classmethod
    def _read(
        cls,
        said: Mapping[str, object],
        slot: str,
        key: str,
        keepalive: str,
        session_idle: str,
        sid_tag: str,
        matches: str,
    ) -> Settings:
        try:
            found = SessionKey.parse(str(said.get(key) or DEFAULT))
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
        mode = str(said.get(keepalive) or cls.keepalive)
        if mode not in ("hand-back", "close", "worker"):
            raise ValueError(f'{keepalive}: expected hand-back, close or worker, found "{mode}"')
        pools = _text(said.get(matches))
        try:
            own = Matches.parse(pools) if pools else None
        except ValueError as error:
            raise ValueError(f"{matches}: {error}") from None
        return cls(
            slot=_text(said.get(slot)),
            key=found,
            keepalive=mode,
            session_idle=_seconds(session_idle, said.get(session_idle)),
            sid_tag=_text(said.get(sid_tag)),
            matches=own,
        )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _seconds(name: str, value: object) -> float:
    """A whole number above 0, or the default: no reason not to serve."""
    if value is None or value == "":
        return IDLE
    text = str(value)
    if text.isascii() and text.isdigit() and int(text) > 0:
        return float(text)
    _logger.warning('%s: expected a number of seconds, found "%s"; %d it is', name, text, IDLE)
    return IDLE
