"""The server process: gunicorn's worker, and the application made in it."""

from __future__ import annotations

import gc
import os
import socket
import sys
from typing import Any

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import Server
from uvicorn_worker import UvicornWorker

BOOT_ERROR = 3
"""The exit status by which gunicorn knows that a worker cannot start."""
GRACE = 8
"""Seconds for open requests to end after SIGTERM; below gunicorn's own limit."""
GARBAGE = (10_000, 20, 20)
"""New objects, then rounds, between the collector's looks for cycles: Python's own are for small programs."""


class DrainingServer(Server):
    """A uvicorn server that ends open streams with a last event before it waits for their connections.

    It ends, too, when gunicorn's master was killed: nobody else would ever stop it, and it would keep the
    port and the vector store from the next start.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._master = os.getppid()

    async def on_tick(self, counter: int) -> bool:
        """Asked ten times a second whether to end."""
        if os.getppid() != self._master:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called once, at the first SIGTERM or SIGINT."""
        from handlers import lifecycle  # gunicorn's master loads this module, and needs none of that

        lifecycle.drain()
        await super().shutdown(sockets)


class Worker(UvicornWorker):
    """gunicorn's worker around the draining server."""

    CONFIG_KWARGS: dict[str, Any] = {
        "loop": "uvloop",
        "http": "httptools",
        "lifespan": "on",
        "server_header": False,
        "timeout_graceful_shutdown": GRACE,
        "h11_max_incomplete_event_size": 65_536,
        "ws": "none",
        "access_log": False,
    }

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = DrainingServer(config=self.config)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(BOOT_ERROR)


def application() -> ASGIApp:
    """What gunicorn serves."""
    # After the fork: each worker makes its own, and the master stays small.
    from handlers import lifecycle
    from openapi.app import create

    lifecycle.configure_logs()
    served = create()
    # What is made by now stays for good. Left to the collector, each of its full rounds would look through
    # all of it and stop every stream meanwhile, and more than once while many requests begin together.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE)
    return served
