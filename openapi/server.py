"""The server process: gunicorn's worker, and the application made in it."""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp
from uvicorn_worker import UvicornWorker

from handlers import lifecycle

GRACE = 8
"""Seconds for open requests to end after SIGTERM; below gunicorn's own limit."""


class Worker(UvicornWorker):
    """A uvicorn worker that tells open streams to end before it waits for them."""

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


def application() -> ASGIApp:
    """What gunicorn serves."""
    from openapi.app import create  # after the fork: each worker makes its own

    lifecycle.configure_logs()
    return create()
