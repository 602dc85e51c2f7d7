"""Apps for the workers under test."""

from __future__ import annotations

import asyncio
import os
from urllib.parse import parse_qs

import socketio

import sidetrack

PID = str(os.getpid()).encode()


async def _body(receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def _answer(send, body: bytes, status: int = 200, headers=()) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [(b"x-pid", PID), length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive, send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def plain(scope, receive, send) -> None:
    """Sessions of its own kind: /new opens one, and a request with another's sid gets a 400, as from
    an Engine.IO server. /slow answers when /go has been called."""
    if scope["type"] == "lifespan":
        return await _lifespan(receive, send)
    sid = parse_qs(scope["query_string"].decode()).get("sid", [None])[0]
    if scope["type"] == "websocket":
        await receive()
        if sid and not sidetrack.sessions().owns(sid):
            return await send({"type": "websocket.close"})
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            await send({"type": "websocket.send", "text": f"{os.getpid()} {text}"})
    path = scope["path"]
    if path == "/crash":
        raise RuntimeError("as asked")
    if path == "/early":
        return await _answer(send, b"early")
    body = await _body(receive)
    if path == "/new":
        sid = os.urandom(8).hex()
        sidetrack.sessions().open(sid)
        return await _answer(send, sid.encode())
    if sid and not sidetrack.sessions().owns(sid):
        return await _answer(send, b"unknown", 400)
    if path == "/slow":
        await _gate().wait()
    if path == "/go":
        _gate().set()
    if path == "/big":
        return await _answer(send, b"x" * 16_000_000)
    if path == "/client":
        return await _answer(send, repr(scope["client"]).encode())
    await _answer(send, body)


_gates: dict = {}


def _gate() -> asyncio.Event:
    return _gates.setdefault("gate", asyncio.Event())


def factory():
    return plain


async def header(scope, receive, send) -> None:
    """Sessions in a header, as MCP has them: POST without one begins a session, DELETE ends it."""
    if scope["type"] == "lifespan":
        return await _lifespan(receive, send)
    await _body(receive)
    sid = dict(scope["headers"]).get(b"mcp-session-id", b"").decode()
    known = _gates.setdefault("known", set())
    if not sid:
        sid = os.urandom(8).hex()
        known.add(sid)
        return await _answer(send, b"begun", headers=[(b"Mcp-Session-Id", sid.encode())])
    if sid not in known:
        return await _answer(send, b"gone", 404)
    if scope["method"] == "DELETE":
        known.discard(sid)
    await _answer(send, b"known")


async def cookie(scope, receive, send) -> None:
    """A session in a cookie; /leave takes it away."""
    if scope["type"] == "lifespan":
        return await _lifespan(receive, send)
    await _body(receive)
    carried = b"at=" in dict(scope["headers"]).get(b"cookie", b"")
    if scope["path"] == "/leave":
        return await _answer(send, PID, headers=[(b"set-cookie", b'at=""; Max-Age=0; Path=/')])
    given = [] if carried else [(b"set-cookie", b"at=%s; Path=/" % os.urandom(8).hex().encode())]
    await _answer(send, PID, 404 if scope["path"] == "/favicon.ico" else 200, given)


async def path(scope, receive, send) -> None:
    """Sessions in the path, as SockJS has them: /echo/SERVER/SESSION/TRANSPORT."""
    if scope["type"] == "lifespan":
        return await _lifespan(receive, send)
    await _body(receive)
    await _answer(send, PID, 404 if scope["path"].endswith("/gone") else 200)


# Polling clients that have left are noticed by their missing pongs, so those are not waited for long.
sio = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins="*", ping_interval=2, ping_timeout=5)


@sio.on("echo")
async def echo(sid, data):
    return [os.getpid(), data]


socketio_app = socketio.ASGIApp(sio, plain)
