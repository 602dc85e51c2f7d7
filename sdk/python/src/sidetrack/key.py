"""Where a request carries its session id. The rules are sidetrack's own, so that both read the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from .head import Head

_LONGEST = 256
"""In bytes. A longer id is treated as unknown."""

_REPLACEMENT = "\ufffd"

DEFAULT = "query:sid"


@dataclass(frozen=True)
class SessionKey:
    """The part of a request's head that names the session."""

    kind: str
    """``query``, ``cookie``, ``header`` or ``path``."""
    name: str
    """Of the parameter, cookie or header; for ``path`` the number of the segment, counted from 1."""

    @classmethod
    def parse(cls, text: str) -> SessionKey:
        """:raises ValueError: with a message that says what would be right."""
        kind, _, name = text.partition(":")
        right = kind in ("query", "cookie", "header") and name
        if right or (kind == "path" and name.isascii() and name.isdigit() and int(name) > 0):
            return cls(kind, name)
        raise ValueError(
            f'expected query:NAME, cookie:NAME, header:NAME or path:N (counted from 1), found "{text}"'
        )

    def find(self, head: Head) -> str | None:
        """The session id of a request. None if there is no id, or no single one: different values, bytes
        that do not decode, an id out of bounds are not guessed about."""
        return _one_of(self._values(head))

    def learn(self, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[str]:
        """The session ids that a response with these headers gives to the client. An empty one takes
        the client's id away. Only cookies and headers are given this way."""
        wanted = {"cookie": b"set-cookie", "header": self.name.lower().encode()}.get(self.kind)
        for name, value in headers:
            if name.lower() != wanted:
                continue
            text = value.decode("utf-8", "replace")
            if self.kind == "header":
                yield _one_of([text.strip()]) or ""
            else:
                pair, *attributes = text.split(";")
                key, separator, content = pair.partition("=")
                if separator and key.strip() == self.name:
                    gone = any(a.replace(" ", "").lower() in ("max-age=0", "max-age=-1") for a in attributes)
                    # An empty value is how frameworks unset a cookie; some of them quote it.
                    content = "" if gone or content.strip() == '""' else content
                    yield _one_of([unquote(content.strip())]) or ""

    def _values(self, head: Head) -> list[str]:
        if self.kind == "query":
            pairs = parse_qsl(head.query, keep_blank_values=True)
            return [value for name, value in pairs if name == self.name]
        if self.kind == "cookie":
            cookies = (pair.partition("=") for line in head.header("cookie") for pair in line.split(";"))
            return [unquote(value.strip()) for name, _, value in cookies if name.strip() == self.name]
        if self.kind == "header":
            return list(head.header(self.name))
        return [unquote(part) for part in head.path.split("/")[int(self.name) : int(self.name) + 1]]

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


def _one_of(values: list[str]) -> str | None:
    """The one value all of them agree on."""
    if not values or any(value != values[0] for value in values):
        return None
    first = values[0]
    if len(first.encode("utf-8", "replace")) > _LONGEST or _REPLACEMENT in first:
        return None
    return first or None
