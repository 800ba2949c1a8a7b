"""What runs beside requests for as long as the server does, and how it writes its log."""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
import sys
import threading
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import structlog

from handlers import turns
from handlers.jobs import KINDS
from storage import audit, couriers, database, provision, queue, vectors, visitors
from storage.settings import settings
from storage.threads import in_thread

log = structlog.get_logger("booga.lifecycle")

JOBS_LEAVE_WITHIN = 3.0
"""Seconds in which a job may come to its next step; then it is left for the next start."""

SECRET_FIELDS = frozenset(
    {
        "api_key",
        "key",
        "password",
        "token",
        "access_token",
        "refresh_token",
        "secret",
        "authorization",
        "content",
        "text",
        "prompt",
    }
)


def _redact(logger: Any, method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Never a secret nor a word of a conversation, whoever logs it."""
    for name in entry:
        if name in SECRET_FIELDS:
            entry[name] = "[redacted]"
    return entry


def configure_logs() -> None:
    """One structured line per event on stderr: JSON unless a terminal reads it."""
    shown = (
        structlog.processors.JSONRenderer()
        if settings().json_logs
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _redact,
            structlog.processors.format_exc_info,
            shown,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


@asynccontextmanager
async def running() -> AsyncIterator[None]:
    """Start the background work of this process, and end it in order."""
    database.engine()  # before several threads ask for it at once and each makes its own
    turns.house().open()
    provision.prepare()
    runner = queue.Runner(KINDS)
    runner.start()
    sending = couriers.Couriers()
    sending.start()
    forgetting = asyncio.create_task(_forget_what_is_old(), name="forgetting")
    try:
        yield
    finally:
        forgetting.cancel()
        await turns.house().close()
        await asyncio.to_thread(runner.stop, JOBS_LEAVE_WITHIN)
        await asyncio.to_thread(sending.stop, JOBS_LEAVE_WITHIN)
        await asyncio.to_thread(vectors.close)
        await provision.close()


async def _forget_what_is_old() -> None:
    """Delete visitors' conversations and entries of the audit log past their days, and settle what nobody
    will.
    """
    for minute in itertools.count():
        try:
            await in_thread(visitors.sweep)
            if minute % 60 == 0:
                await in_thread(audit.prune)
        except Exception as fault:
            log.error("forgetting failed", exc_info=fault)
        await asyncio.sleep(60)


def drain() -> None:
    """The server is about to stop: open streams get their last event."""
    turns.house().drain()


def work() -> None:
    """Run jobs in this process until SIGTERM or SIGINT."""
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: told.set())
    runner = queue.Runner(KINDS)
    runner.start(patient=False)
    sending = couriers.Couriers()
    sending.start()
    told.wait()
    runner.stop(JOBS_LEAVE_WITHIN)
    sending.stop(JOBS_LEAVE_WITHIN)
    vectors.close()
