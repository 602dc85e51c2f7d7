"""Serving an ASGI app on uvicorn with handed-off sockets. ``python -m sidetrack.asgi --help``."""
