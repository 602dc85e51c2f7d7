"""Serve connections that sidetrack hands over.

``python -m sidetrack.asgi app:app`` serves any ASGI app on uvicorn and needs no code. What follows
is for those who write a worker of another kind: :class:`Listener` yields connections, and
:func:`sessions` is where an app announces sessions that nothing else would find; :func:`tagged` is for
apps that make session ids themselves.
"""

from .connection import Connection
from .listener import ChannelError, Listener
from .session import Sessions
from .session import of_this_process as sessions
from .session import tagged
from .settings import Settings

__all__ = ["ChannelError", "Connection", "Listener", "Sessions", "Settings", "sessions", "tagged"]
