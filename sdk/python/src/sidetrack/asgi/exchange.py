"""One request and its response, between uvicorn and the app."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Protocol

from ..learning import Request

if TYPE_CHECKING:
    from .worker import Worker

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_CLOSE = (b"connection", b"close")


class Client(Protocol):
    """The connection, as its exchange needs it."""

    @property
    def closes(self) -> bool: ...

    def responded(self, last: bool) -> None: ...


class Exchange:
    """Lets a response go only after what it tells about sessions was announced, and tells the
    connection when it is complete. The app sees what uvicorn gives it, unchanged."""

    def __init__(self, client: Client, worker: Worker, request: Request) -> None:
        self._client = client
        self._worker = worker
        self._request = request
        self._last = False
        self.task: asyncio.Task[Any] | None = None
        """Set while the app is running."""

    async def run(self, scope: Message, receive: Receive, send: Send) -> None:
        async def send_http(message: Message) -> None:
            kind = message["type"]
            if kind == "http.response.start":
                await self._announce(message["status"], message)
                self._last = self._client.closes
                if self._last:
                    message = {**message, "headers": _closing(message.get("headers", ()))}
            await send(message)
            if kind == "http.response.body" and not message.get("more_body", False):
                self._client.responded(self._last)

        async def send_websocket(message: Message) -> None:
            if message["type"] == "websocket.accept":
                await self._announce(101, message)
            await send(message)

        learner = self._worker.learner
        learner.begin(self._request)
        self.task = asyncio.current_task()
        try:
            await self._worker.app(scope, receive, send_http if scope["type"] == "http" else send_websocket)
        finally:
            self.task = None
            learner.end(self._request)

    async def _announce(self, status: int, message: Message) -> None:
        self._worker.learner.respond(self._request, status, message.get("headers", ()))
        await self._worker.sessions.flushed()


def _closing(headers: Any) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if bytes(name).lower() != b"connection"] + [_CLOSE]
