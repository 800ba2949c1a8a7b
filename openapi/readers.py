"""Whoever waits for an answer or reads a stream is asked about again and again: what a credential loses it
loses for what is under way, too.
"""

from __future__ import annotations

import asyncio
from contextvars import Context

import structlog

from models.access import Caller
from openapi.exchange import Exchange
from storage import identity
from storage.threads import in_thread

log = structlog.get_logger("booga.readers")

ASKED_SECONDS = 0.8
"""Between two questions, so that the answer, too, is there within a second."""

_open: dict[asyncio.Future[None], tuple[Caller, str | None]] = {}
"""Who reads in this process, by what ends it: the caller as it came, and the scope that it needs."""
_asking: asyncio.Task[None] | None = None


async def refused(exchange: Exchange) -> None:
    """Return when the caller may no longer do what it does; about visitors and strangers nobody is asked."""
    global _asking
    caller, operation = exchange.caller, exchange.operation
    end = asyncio.get_running_loop().create_future()
    if caller is None or operation is None or not (caller.key_id or caller.sign_in_id):
        await end
        return
    _open[end] = caller, operation.scope
    try:
        if _asking is None or _asking.done():
            _asking = asyncio.create_task(_ask(), context=Context())
        await end
    finally:
        _open.pop(end, None)


async def _ask() -> None:
    """One look at the database for all who read, for as long as somebody does."""
    while _open:
        await asyncio.sleep(ASKED_SECONDS)
        asked = dict(_open)
        try:
            held = await in_thread(identity.held, {caller for caller, _ in asked.values()})
        except Exception as fault:  # the database is away: who reads goes on meanwhile
            log.error("asking failed", exc_info=fault)
            continue
        for end, (caller, scope) in asked.items():
            may = caller in held and (scope in (None, "any") or scope in held[caller])
            if not may and not end.done():
                end.set_result(None)
