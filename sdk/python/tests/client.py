"""A plain HTTP/1.1 client on one connection."""

from __future__ import annotations

import socket
from dataclasses import dataclass


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def pid(self) -> int:
        return int(self.headers["x-pid"])


class Client:
    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.file = sock.makefile("rb")

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.socket.sendall(piece)

    def read(self) -> Answer:
        status = self.file.readline()
        assert status.startswith(b"HTTP/1.1 "), status
        headers = {}
        while (line := self.file.readline()) != b"\r\n":
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.file.readline(), 16):
                body += self.file.read(size)
                self.file.readline()
            self.file.readline()
        else:
            body = self.file.read(int(headers.get("content-length", 0)))
        return Answer(int(status.split()[1]), headers, body)

    def get(self, target: str, *headers: str) -> Answer:
        self.send(get(target, *headers))
        return self.read()

    def closed(self) -> bool:
        """Waits for the end of the connection; false if more data comes."""
        return self.file.read(1) == b""

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def get(target: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: test", *headers, "", ""]).encode()


def post(target: str, body: bytes) -> bytes:
    return f"POST {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def chunked(target: str, body: bytes, sizes) -> bytes:
    """The body in chunks of these sizes, in turn; with extensions and a trailer."""
    parts = [f"POST {target} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nTrailer: End\r\n\r\n".encode()]
    while body:
        size = next(sizes)
        piece, body = body[:size], body[size:]
        parts.append(b"%x;a=b\r\n%s\r\n" % (len(piece), piece))
    return b"".join(parts) + b"0\r\nEnd: yes\r\n\r\n"
