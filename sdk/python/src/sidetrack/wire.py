"""The channel's wire, as a worker speaks it: lines in, lines out.

Newline-delimited JSON over a Unix stream socket, descriptors beside it: Node's own IPC format.
This module knows no socket and no descriptor; :mod:`sidetrack.channel` does. What is not visible
in the shapes:

- A message that carries a descriptor is one ``sendmsg`` with exactly one descriptor.
- Acknowledgements carry no number: they come in the order of the hand-offs.
- An acknowledgement must have left before the first byte of its connection is read.
"""

from __future__ import annotations

import base64
import binascii
import enum
import ipaddress
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

CHANNEL_FD = "NODE_CHANNEL_FD"
"""The environment variable that names the channel's descriptor, as Node calls it."""

LONGEST_LINE = 16 << 20
"""A longer line ends the channel."""

READY = b'{"type":"sidetrack:ready","replays":true}\n'
ACK = b'{"cmd":"NODE_HANDLE_ACK"}\n'
NACK = b'{"cmd":"NODE_HANDLE_NACK"}\n'
LEAVING = b'{"cmd":"NODE_CLUSTER","act":"exitedAfterDisconnect","seq":0}\n'


@dataclass(frozen=True)
class HandOff:
    """A connection; its descriptor comes along."""

    data: bytes = b""
    """Already read from it by another worker; comes before what is in the socket."""
    final: bool = False
    """The first request is to be answered here, whatever its session."""
    peer: tuple[str, int] | None = None
    """The client, where the socket's own peer is a proxy that has told sidetrack of it."""
    probe: bool = False
    """A socket of sidetrack's own, to see whether this worker answers. Not counted."""


class Word(enum.Enum):
    """A message without a content of its own."""

    ARRIVED = enum.auto()
    """The oldest connection handed back is sidetrack's now."""
    LOST = enum.auto()
    """The oldest connection handed back came without its descriptor."""
    DISCONNECT = enum.auto()
    """Take no more connections, finish the open ones, end."""
    ANSWERED = enum.auto()
    """The answer to :data:`LEAVING`: what was sent before it is all."""
    UNREADABLE = enum.auto()
    """A hand-off whose data makes no sense. Its descriptor is to be refused."""
    OTHER = enum.auto()
    """Safe to ignore."""


Message = HandOff | Word


class LineTooLong(ValueError):
    """The stream cannot be followed any further."""


class Decoder:
    """Cuts a byte stream into lines."""

    def __init__(self, limit: int = LONGEST_LINE) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._limit = limit

    def push(self, data: bytes) -> None:
        """Takes what one read brought."""
        self._buffer += data

    def lines(self) -> Iterator[bytes]:
        """Yields the whole lines there are, without their newline.

        :raises LineTooLong: when the line under way is over the limit.
        """
        while True:
            end = self._buffer.find(b"\n", self._scanned)
            length = len(self._buffer) if end < 0 else end
            if length > self._limit:
                raise LineTooLong(f"a line of more than {self._limit} bytes")
            if end < 0:
                self._scanned = length
                return
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._scanned = 0
            yield line

    @property
    def between_lines(self) -> bool:
        """True when no line is under way."""
        return not self._buffer


def parse(line: bytes) -> Message:
    """Reads one line from sidetrack. What is none of a worker's concern is :attr:`Word.OTHER`."""
    try:
        message = json.loads(line)
    except ValueError:
        return Word.OTHER
    if not isinstance(message, dict):
        return Word.OTHER
    command, act = message.get("cmd"), message.get("act")
    if command == "NODE_HANDLE":
        return _hand_off(message.get("msg"))
    if command == "NODE_HANDLE_ACK":
        return Word.ARRIVED
    if command == "NODE_HANDLE_NACK":
        return Word.LOST
    if command == "NODE_CLUSTER" and act == "disconnect":
        return Word.DISCONNECT
    if command == "NODE_CLUSTER" and act is None and isinstance(message.get("ack"), int):
        return Word.ANSWERED
    return Word.OTHER


def _hand_off(message: Any) -> Message:
    ours = message.get("sidetrack") if isinstance(message, dict) else None
    if ours == "probe":
        return HandOff(probe=True)
    if not isinstance(ours, dict):
        return HandOff()
    data = ours.get("data", "")
    if not isinstance(data, str):
        return Word.UNREADABLE
    try:
        return HandOff(
            base64.b64decode(data, validate=True), ours.get("final") is True, _peer(ours.get("peer"))
        )
    except (binascii.Error, ValueError):
        return Word.UNREADABLE


def _peer(peer: Any) -> tuple[str, int] | None:
    """:raises ValueError: when it is no address and port."""
    if peer is None:
        return None
    if not isinstance(peer, list) or [type(part) for part in peer] != [str, int]:
        raise ValueError("not an address and a port")
    return str(ipaddress.ip_address(peer[0])), peer[1]


def opened(sid: str, ends: bool = True) -> bytes:
    """This worker owns a session; ``ends`` tells whether its end will be announced too."""
    message: dict[str, object] = {"type": "sidetrack:opened", "sid": sid}
    return _line(message if ends else message | {"ends": False})


def closed(sid: str) -> bytes:
    """A session has ended."""
    return _line({"type": "sidetrack:closed", "sid": sid})


def sockets_closed(count: int) -> bytes:
    """So many connections were closed or handed back since the last report."""
    return _line({"type": "sidetrack:sockets-closed", "count": count})


def hand_back(data: bytes, peer: tuple[str, int] | None = None) -> bytes:
    """The next request of the connection beside this line belongs elsewhere.

    ``data`` is every byte read from it, from the first one of that request on; ``peer`` is that of its
    :class:`HandOff`.
    """
    text = base64.b64encode(data).decode("ascii")
    message: dict[str, object] = {"type": "sidetrack:hand-back", "data": text}
    if peer is not None:
        message["peer"] = peer
    return _line({"cmd": "NODE_HANDLE", "type": "net.Socket", "msg": message})


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"
