"""A chat server on several processes. Nothing in it knows of sidetrack."""

import os
from pathlib import Path

import socketio

sio = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins="*")
app = socketio.ASGIApp(sio, static_files={"/": str(Path(__file__).with_name("index.html"))})


@sio.event
async def connect(sid, environ, auth=None):
    name = (auth or {}).get("name") or f"guest-{sid[:4]}"
    await sio.save_session(sid, {"name": name})
    await sio.emit("news", f"{name} joined (process {os.getpid()})")
    await sio.emit("you", {"name": name, "pid": os.getpid()}, to=sid)


@sio.event
async def say(sid, text):
    """Everybody of this process reads it. To reach those of other processes as well, give the server a
    `client_manager`, such as `socketio.AsyncRedisManager`."""
    session = await sio.get_session(sid)
    await sio.emit("said", {"name": session["name"], "text": str(text)[:500], "pid": os.getpid()})


@sio.event
async def echo(sid, data):
    return data


@sio.event
async def disconnect(sid, reason=None):
    session = await sio.get_session(sid)
    await sio.emit("news", f"{session['name']} left")
