"""Whoever waits for an answer or reads a stream is asked about again and again: what a credential loses it
loses for what is under way, too; and so do visitors with their bot.
"""

from __future__ import annotations

import asyncio
from contextvars import Context

import structlog

from openapi.exchange import Exchange
from storage import identity, visitors
from storage.threads import in_thread

log = structlog.get_logger("booga.readers")

ASKED_SECONDS = 0.8
"""Between two questions, so that the answer, too, is there within a second."""

_open: dict[asyncio.Future[None], Exchange] = {}
"""What is under way in this process, by what ends it."""
_asking: asyncio.Task[None] | None = None


async def refused(exchange: Exchange) -> None:
    """Return when the caller may no longer do what it does, or the visitor's bot is not what it was."""
    global _asking
    end = asyncio.get_running_loop().create_future()
    if exchange.caller is not None:
        _open[end] = exchange
        if _asking is None or _asking.done():
            _asking = asyncio.create_task(_ask(), context=Context())
    try:
        await end
    finally:
        _open.pop(end, None)


async def _ask() -> None:
    """One look at the database for all that is under way, for as long as something is."""
    while _open:
        await asyncio.sleep(ASKED_SECONDS)
        asked = dict(_open)
        try:
            may = await in_thread(_allowed, list(asked.values()))
        except Exception as fault:  # the database is away: who reads goes on meanwhile
            log.error("asking failed", exc_info=fault)
            continue
        for end, is_allowed in zip(asked, may, strict=True):
            if not is_allowed and not end.done():
                end.set_result(None)


def _allowed(asked: list[Exchange]) -> list[bool]:
    """Whether each may go on."""
    callers = {exchange.caller for exchange in asked if exchange.caller is not None and not exchange.visit}
    bots = {exchange.visit.bot.id for exchange in asked if exchange.visit}
    held = identity.held(callers) if callers else {}
    epochs = visitors.epochs(bots) if bots else {}

    def may(exchange: Exchange) -> bool:
        if exchange.visit is not None:
            return epochs.get(exchange.visit.bot.id) == exchange.visit.bot.epoch
        scope = exchange.operation.scope if exchange.operation else None
        caller = exchange.caller
        return caller in held and (scope in (None, "any") or scope in held[caller])

    return [may(exchange) for exchange in asked]
