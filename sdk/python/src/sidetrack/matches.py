"""Which requests are for this worker's pool, by host and path. The rules are sidetrack's own, so that
both come to the same answer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .head import Head

_PORT = re.compile(r"(^[^:]*|\]):[0-9]*$")


@dataclass(frozen=True)
class _Match:
    own: bool
    host: str
    """Empty for every host; with a dot in front for all that end in it."""
    path: str
    """Without the slash at its end; empty for every path."""

    def fits(self, host: str, path: str) -> bool:
        if self.host.startswith("."):
            if len(host) <= len(self.host) or not host.endswith(self.host):
                return False
        elif self.host and host != self.host:
            return False
        # A path ends where a segment does.
        return not self.path or path == self.path or path.startswith(self.path + "/")


@dataclass(frozen=True)
class Matches:
    """The matches of all pools. Of those that a request fits the first counts."""

    _all: tuple[_Match, ...]

    @classmethod
    def parse(cls, text: str) -> Matches:
        """Reads ``-/socket.io +example.com -``: own ones stand behind a plus.

        :raises ValueError: with a message that says what would be right.
        """
        matches = []
        for word in text.split():
            if word[0] not in "+-":
                raise ValueError(f'expected matches, each behind a + or a -, found "{word}"')
            host, slash, path = word[1:].partition("/")
            matches.append(_Match(word[0] == "+", host.removeprefix("*"), slash + path))
        return cls(tuple(matches))

    def is_own(self, head: Head) -> bool:
        """Whether a request is for this worker's pool."""
        host, path = _host(head), head.path
        return next((match.own for match in self._all if match.fits(host, path)), True)


def _host(head: Head) -> str:
    """An absolute target counts before the header."""
    authority = head.authority or next(head.header("host"), "")
    name = authority.rpartition("@")[2].strip().lower()
    return _PORT.sub(r"\1", name).removesuffix(".")
