"""What tests/node/workers/app.js serves, as a python-socketio app: nothing here knows sidetrack."""

import hashlib
import json
import os

import socketio

sio = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins="*", max_http_buffer_size=4_000_000)
PID = str(os.getpid()).encode()


@sio.event
async def echo(sid, payload):
    return payload


@sio.event
async def whoami(sid):
    return os.getpid()


async def answer(send, value, status=200):
    body = json.dumps(value).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def routes(scope, receive, send):
    if scope["path"] == "/pid":
        await answer(send, {"pid": os.getpid()})
    elif scope["path"] == "/peer":
        address, port = scope["client"]
        await answer(send, {"pid": os.getpid(), "address": address, "port": port})
    elif scope["path"] == "/upload" and scope["method"] == "POST":
        sha1, count, more = hashlib.sha1(), 0, True
        while more:
            message = await receive()
            sha1.update(message.get("body", b""))
            count += len(message.get("body", b""))
            more = message.get("more_body", False)
        await answer(send, {"pid": os.getpid(), "bytes": count, "sha1": sha1.hexdigest()})
    else:
        await answer(send, {"error": "not found", "pid": os.getpid()}, 404)


engine = socketio.ASGIApp(sio, other_asgi_app=routes)


async def app(scope, receive, send):
    """The pid in a header of every response."""

    async def named(message):
        if message["type"] in ("http.response.start", "websocket.accept"):
            message = {**message, "headers": [*message.get("headers", []), (b"x-worker-pid", PID)]}
        await send(message)

    await engine(scope, receive, named)
