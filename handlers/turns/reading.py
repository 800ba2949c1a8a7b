"""What readers are told of a reply, as events: from a turn of this process, or from the row in SQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from handlers import problems
from handlers.replies import event
from handlers.turns.turn import Turn
from models.chat import engine
from models.chat.conversations import MessageStatus
from models.chat.ports import ProviderError

HEARTBEAT_SECONDS = 10.0
FIRST_WAIT_SECONDS = 1.0
"""How long a stream's status waits for the provider's, so that a call refused at once is a proper problem."""
COMMENT = b": still here\n\n"


@dataclass(slots=True)
class Stored:
    """A reply as SQL holds it: what the contract shows, and what was retrieved for it."""

    message: dict[str, Any]
    retrieved: dict[str, Any] | None


Shown = Callable[[str], Awaitable[Stored]]
"""Reads a stored reply by its id."""


class Reading:
    """The events that one reader is told of a turn.

    The reader counts from the moment this is made, before the first event is asked for, until ``aclose``.
    """

    def __init__(self, turn: Turn, parts: Callable[[asyncio.Event], AsyncGenerator[bytes, None]]) -> None:
        self._turn = turn
        self._reader = turn.attach()
        self._parts = parts(self._reader)

    def __aiter__(self) -> Reading:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._parts)

    async def aclose(self) -> None:
        """The reader leaves."""
        await self._parts.aclose()
        self._turn.detach(self._reader)


async def changes(turn: Turn, reader: asyncio.Event) -> AsyncGenerator[bool, None]:
    """True whenever there is more of a turn, False after each quiet while; ends when the turn is stored."""
    ended = False
    while not ended:
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                await reader.wait()
        except TimeoutError:
            yield False
            continue
        reader.clear()
        ended = turn.stored.is_set()
        yield True


def follow(turn: Turn, position: int, shown: Shown, path: str) -> Reading:
    """The events of a running turn behind ``position`` (-1: all)."""
    return Reading(turn, partial(_told, turn, position, shown, path))


async def _told(
    turn: Turn, position: int, shown: Shown, path: str, reader: asyncio.Event
) -> AsyncGenerator[bytes, None]:
    order, reply = turn.order, turn.reply
    sent = max(0, position - engine.TEXT)
    if position < engine.CREATED:
        yield _created((order.session_id or "", order.question_id, order.reply_id))
    told_retrieval = position >= engine.RETRIEVED
    async with aclosing(changes(turn, reader)) as changed:
        async for more in changed:
            if not more:
                yield COMMENT
                continue
            if not told_retrieval and reply.retrieved is not None:
                told_retrieval = True
                shows = order.cites or dict
                told = [shows(citation) for citation in reply.citations]
                yield _retrieved(order.reply_id, reply.retrieved, told)
            if len(reply.text) > sent and not (order.is_whole and reply.is_running):
                text, sent = reply.text[sent:], len(reply.text)
                yield _delta(order.reply_id, sent, text)
    yield _last((await shown(order.reply_id)).message, path)


async def follow_stored(
    stored: Stored, position: int, shown: Shown, path: str, reads: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[bytes]:
    """The events of a reply from what SQL holds, until it ended: for readers elsewhere, or later.

    ``reads`` tells the writer, wherever it is, that the reply has a reader.
    """
    id = stored.message["id"]
    sent = max(0, position - engine.TEXT)
    if position < engine.CREATED:
        yield _created((stored.message["session_id"], stored.message["parent_id"], id))
    told_retrieval = position >= engine.RETRIEVED
    quiet_since = time.monotonic()
    while True:
        content = stored.message["content"]
        if not told_retrieval and stored.retrieved is not None:
            told_retrieval = True
            yield _retrieved(id, stored.retrieved, stored.message["citations"])
        if len(content) > sent:
            text, sent = content[sent:], len(content)
            quiet_since = time.monotonic()
            yield _delta(id, sent, text)
        if stored.message["status"] != MessageStatus.STREAMING:
            break
        if time.monotonic() - quiet_since > HEARTBEAT_SECONDS:
            quiet_since = time.monotonic()
            yield COMMENT
        if reads is not None:
            await reads()
        await poll()
        stored = await shown(id)
    yield _last(stored.message, path)


async def poll() -> None:
    """Wait before the next look at a row that another process writes: SQL does not call back."""
    await asyncio.sleep(0.25)


async def whole(turn: Turn) -> None:
    """Wait until the turn ended and is stored; leaving counts as a reader who left."""
    reader = turn.attach()
    try:
        await turn.stored.wait()
    finally:
        turn.detach(reader)


async def begun(turn: Turn, reading: Reading) -> Reading:
    """The reading, once the provider began or a moment went by; its problem if it was refused at once."""
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_WAIT_SECONDS):
                await turn.started.wait()
        if turn.reply.status == MessageStatus.FAILED and not turn.reply.text and turn.reply.error is not None:
            await turn.stored.wait()
            raise problems.of_provider(turn.reply.error, turn.reply.message_id)
    except BaseException:
        await reading.aclose()
        raise
    return reading


def _created(order_ids: tuple[str, str, str]) -> bytes:
    session_id, question_id, reply_id = order_ids
    data = {"session_id": session_id, "question_id": question_id, "message_id": reply_id}
    return event("message.created", f"{reply_id}:{engine.CREATED}", data)


def _retrieved(reply_id: str, retrieved: dict[str, Any], citations: list[dict[str, Any]]) -> bytes:
    data = {**retrieved, "citations": citations}
    return event("retrieval.completed", f"{reply_id}:{engine.RETRIEVED}", data)


def _delta(reply_id: str, end: int, text: str) -> bytes:
    return event("message.delta", f"{reply_id}:{engine.TEXT + end}", {"text": text})


def _last(message: dict[str, Any], request_path: str) -> bytes:
    """The event that ends a stream, from the stored message."""
    id = f"{message['id']}:{engine.end_position(len(message['content']))}"
    if message["status"] != MessageStatus.FAILED:
        return event("message.completed", id, message)
    error = message["error"] or {"code": "provider_unavailable", "detail": "The reply failed."}
    problem = problems.of_provider(ProviderError(error["code"], error["detail"]), message["id"])
    return event("message.failed", id, problem.body(request_path, message["id"]))
