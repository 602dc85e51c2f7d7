"""The command line of ``python -m sidetrack.asgi``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from ..listener import ChannelError, channel_from_env
from ..wire import CHANNEL_FD

START = "sidetrack run --listen :3000 -- python -m sidetrack.asgi app:app"

# As uvicorn's own command has it; newer versions raise it themselves.
_LIFESPAN_FAILED = 3

_DESCRIPTION = """\
Serve an ASGI app on uvicorn, with connections that sidetrack hands over.

This program binds no port and is not started by hand: sidetrack starts one for each worker, accepts
the connections, and gives each to the worker that owns its session.

  sidetrack run --workers 4 --listen :3000 -- python -m sidetrack.asgi app:app
"""

_EPILOG = """\
Sessions of python-socketio and python-engineio are announced by themselves. For other apps, tell
sidetrack where requests carry their session id (--session-key cookie:NAME, header:NAME or path:N).

Exit codes: 0 finished   1 the app failed   2 wrong use   3 the app's lifespan failed
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m sidetrack.asgi",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    on_off = argparse.BooleanOptionalAction
    p.add_argument("app", metavar="MODULE:APP", help="where the app is, such as app:app")
    p.add_argument("--factory", action="store_true", help="APP is a function that returns the app")
    p.add_argument("--app-dir", default="", metavar="DIR", help="look for MODULE here (default: the current folder)")
    p.add_argument("--http", default="auto", choices=["auto", "httptools", "h11"])
    p.add_argument("--loop", default="auto", choices=["auto", "asyncio", "uvloop"])
    p.add_argument("--ws", default="auto", choices=["auto", "none", "websockets", "websockets-sansio", "wsproto"])
    p.add_argument("--lifespan", default="auto", choices=["auto", "on", "off"])
    p.add_argument("--interface", default="auto", choices=["auto", "asgi3", "asgi2", "wsgi"])
    p.add_argument("--root-path", default="", metavar="PATH", help="where a proxy has mounted the app")
    p.add_argument(
        "--proxy-headers", action=on_off, default=True, help="believe X-Forwarded-For and -Proto of trusted peers"
    )
    p.add_argument("--forwarded-allow-ips", metavar="IPS", help="the trusted peers (default: 127.0.0.1,::1)")
    p.add_argument("--log-level", choices=["critical", "error", "warning", "info", "debug", "trace"])
    p.add_argument("--log-config", metavar="FILE", help="a logging configuration, as uvicorn takes it")
    p.add_argument("--access-log", action=on_off, default=True, help="a line for each request")
    p.add_argument("--server-header", action=on_off, default=True)
    p.add_argument("--date-header", action=on_off, default=True)
    p.add_argument(
        "--timeout-keep-alive", type=int, default=5, metavar="S", help="close idle connections after (default: 5)"
    )
    p.add_argument(
        "--timeout-graceful-shutdown",
        type=int,
        metavar="S",
        help="how long WebSockets may go on when this worker is to end (default: until sidetrack ends it)",
    )
    p.add_argument("--limit-concurrency", type=int, metavar="N", help="answer 503 beyond so many connections")
    p.add_argument("--ws-max-size", type=int, default=16777216, metavar="BYTES")
    p.add_argument("--ws-ping-interval", type=float, default=20.0, metavar="S")
    p.add_argument("--ws-ping-timeout", type=float, default=20.0, metavar="S")
    p.add_argument("--ws-per-message-deflate", action=on_off, default=True)
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until the end. Returns the exit code."""
    options = vars(parser().parse_args(arguments))
    if CHANNEL_FD not in os.environ:
        return _wrong(f"not started by sidetrack; start it with: {START}")
    try:
        # After the first look at the environment: most of those who come here by mistake lack that.
        import uvicorn
        from uvicorn.importer import ImportFromStringError, import_from_string

        from ..settings import Settings
        from .server import Server
    except ModuleNotFoundError as error:
        return _wrong(f"{error}; install it with: pip install 'sidetrack[asgi]'")
    sys.path.insert(0, options.pop("app_dir"))
    if options["log_config"] is None:
        del options["log_config"]
    try:
        settings = Settings.from_env()
        channel = channel_from_env()
        config = uvicorn.Config(**options)
        _check_choices(options)
        import_from_string(options["app"])
    except (ChannelError, ImportFromStringError, _Missing, ValueError) as error:
        return _wrong(str(error))
    server = Server(config, settings, channel)
    server.run()
    return 0 if server.started else _LIFESPAN_FAILED


class _Missing(Exception):
    """An option asks for a package that is not installed."""


def _check_choices(options: dict[str, Any]) -> None:
    wanted = {"http": {"httptools", "h11"}, "loop": {"uvloop"}, "ws": {"wsproto", "websockets"}}
    for option, modules in wanted.items():
        module = options[option].removesuffix("-sansio")
        if module in modules:
            try:
                __import__(module)
            except ImportError as error:
                raise _Missing(f"--{option} {options[option]}: {error}; install it with: pip install {module}") from None


def _wrong(message: str) -> int:
    print(f"sidetrack.asgi: {message}", file=sys.stderr)
    return 2
