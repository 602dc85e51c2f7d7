"""A request's head: where its parts are, and how long its body is. Knows no socket."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST_HEAD = 64 * 1024
"""A longer head is not looked at. sidetrack's own limit is lower by default."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([!-~\x80-\xff]+) HTTP/1\.([01])")
_HEADER_LINE = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_BARE_NEWLINE = re.compile(rb"(?<!\r)\n")


class Doubtful(Exception):
    """Bytes that servers read in different ways, or not at all. To be left to the server, which is
    then to close the connection."""


@dataclass(frozen=True)
class Head:
    """A complete head of an HTTP/1.x request."""

    size: int
    """How many bytes it has."""
    method: str
    target: str
    headers: tuple[tuple[bytes, bytes], ...]
    """Names in lower case."""
    length: int | None
    """Length of the body; none if it is chunked."""

    @property
    def authority(self) -> str:
        """The authority of an absolute target; empty when there is none."""
        scheme, _, rest = self.target.partition("://")
        return "" if "/" in scheme or "?" in scheme else re.split(r"[/?]", rest, maxsplit=1)[0]

    @property
    def path(self) -> str:
        """The path part of the target, without scheme, authority and query."""
        return self._origin().partition("?")[0]

    @property
    def query(self) -> str:
        """The raw query, without the question mark; empty when there is none."""
        return self._origin().partition("?")[2].partition("#")[0]

    def header(self, name: str) -> Iterator[str]:
        """Every value of a header, in order. Values that are not UTF-8 are left out."""
        wanted = name.lower().encode()
        for key, value in self.headers:
            if key == wanted:
                try:
                    yield value.decode()
                except UnicodeDecodeError:
                    continue

    def _origin(self) -> str:
        scheme, separator, rest = self.target.partition("://")
        if not separator or "/" in scheme or "?" in scheme:
            return self.target
        start = re.search(r"[/?]", rest)
        return rest[start.start() :] if start else ""


def parse(buffer: bytearray) -> Head | None:
    """Reads the head at the beginning of ``buffer``; none if more bytes are needed.

    :raises Doubtful: when it is no head that every server reads in the same way.
    """
    end = buffer.find(b"\r\n\r\n", 0, LONGEST_HEAD)
    if end < 0:
        if len(buffer) >= LONGEST_HEAD or _BARE_NEWLINE.search(buffer) or not _may_begin(buffer):
            raise Doubtful
        return None
    request_line, *lines = bytes(buffer[:end]).split(b"\r\n")
    request = _REQUEST_LINE.fullmatch(request_line)
    if request is None or request[1] == b"CONNECT":
        raise Doubtful
    headers = []
    for line in lines:
        header = _HEADER_LINE.fullmatch(line)
        if header is None:
            raise Doubtful
        headers.append((header[1].lower(), header[2]))
    return Head(
        size=end + 4,
        method=request[1].decode("ascii"),
        target=request[2].decode("utf-8", "replace"),
        headers=tuple(headers),
        length=_length(headers, chunks=request[3] == b"1"),
    )


def _may_begin(buffer: bytearray) -> bool:
    # A method is a token, which tells TLS and other protocols apart at once.
    return not buffer or re.match(_TOKEN, buffer) is not None


def _length(headers: list[tuple[bytes, bytes]], chunks: bool) -> int | None:
    lengths = {value for name, value in headers if name == b"content-length"}
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings:
        # Both together is how requests are smuggled.
        if lengths or not chunks or [coding.lower() for coding in codings] != [b"chunked"]:
            raise Doubtful
        return None
    if not lengths:
        return 0
    if len(lengths) > 1:
        raise Doubtful
    (length,) = lengths
    if not _LENGTH.fullmatch(length):
        raise Doubtful
    return int(length)
