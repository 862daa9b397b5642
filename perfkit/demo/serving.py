"""Serving an ASGI application on the loopback interface, with a ready file and a clean end."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

HOST = "127.0.0.1"


class Server(uvicorn.Server):
    """A uvicorn server that writes a ready file when it accepts connections."""

    def __init__(self, config: uvicorn.Config, ready_file: Path | None) -> None:
        super().__init__(config)
        self._ready_file = ready_file

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start serving and say so."""
        await super().startup(sockets)
        assert sockets is not None
        port = sockets[0].getsockname()[1]
        if self._ready_file is not None:
            write_ready_file(self._ready_file, port)
        print(f"serving on {base_url(port)}", file=sys.stderr)


def base_url(port: int) -> str:
    """Return the URL of a service on this machine."""
    return f"http://{HOST}:{port}"


def write_ready_file(path: Path, port: int) -> None:
    """Write URL, port and process id as JSON, whole or not at all."""
    unfinished = path.with_name(path.name + ".part")
    ready = {"url": base_url(port), "port": port, "pid": os.getpid()}
    unfinished.write_text(json.dumps(ready) + "\n")
    unfinished.rename(path)


def serve(app: Starlette, port: int, ready_file: Path | None) -> None:
    """Serve `app` on a loopback port (0: a free one) until a signal ends it.

    A port that is taken ends the process with one line.
    """
    # asyncio sends small answers at once (TCP_NODELAY) only where the protocol is given; without it
    # each would wait up to 40 ms for an acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        sys.exit(f"cannot listen on {HOST}:{port}: {error.strerror}; choose another --port")
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=3,
    )
    with listener:
        Server(config, ready_file).run(sockets=[listener])
