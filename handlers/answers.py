"""How a reply is told to whoever asked for it: whole, as events, or taken up again where a stream broke."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import select

from handlers import problems, turns
from handlers.auth import caller
from handlers.problems import Problem
from handlers.replies import Events
from handlers.requests import Exchange
from handlers.turns import Order, Stored
from models.access import Caller
from models.chat.conversations import ChatMessage, MessageStatus
from models.errors import NotFound
from storage import conversations
from storage.database import Session, reading
from storage.threads import in_thread

REPLAYED = {"Idempotent-Replayed": "true"}


@dataclass(frozen=True, slots=True)
class Answers:
    """Replies as one kind of reader is shown them."""

    show: Callable[[ChatMessage], dict[str, Any]]

    def of(self, row: ChatMessage) -> Stored:
        """A reply as SQL holds it."""
        return Stored(self.show(row), row.retrieved)

    async def stored(self, reply_id: str) -> Stored:
        """The same by its id."""
        return await in_thread(self._read, caller(), reply_id)

    async def whole(self, begun: Order | Stored) -> Any:
        """The reply once it ended, or the one that was given before. Raises its provider's ``Problem``."""
        if isinstance(begun, Stored):
            return begun.message, 201, REPLAYED
        turn = turns.house().begin(begun)
        await turns.whole(turn)
        if turn.reply.status == MessageStatus.FAILED and turn.reply.error is not None:
            raise problems.of_provider(turn.reply.error, begun.reply_id)
        return (await self.stored(begun.reply_id)).message, 201

    async def streamed(self, begun: Order | Stored, exchange: Exchange) -> Any:
        """The events of a reply that begins now, or of the one that was given before."""
        if isinstance(begun, Stored):
            return Events(turns.follow_stored(begun, -1, self.stored, exchange.path)), 200, REPLAYED
        turn = turns.house().begin(begun)
        return Events(await turns.begun(turn, turns.follow(turn, -1, self.stored, exchange.path)))

    async def resumed(
        self, enter: Callable[[Session], object], session_id: str, last: str | None, exchange: Exchange
    ) -> Events:
        """The events of a session's running or last reply, or the one that the event ``last`` names, behind
        that event. ``enter`` raises where the reader may not see the session.
        """
        reply_id, position = None, -1
        if last is not None:
            reply_id, _, place = last.lower().partition(":")
            position = int(place)
        stored = await in_thread(self._last, enter, session_id, reply_id)
        turn = turns.house().turns.get(stored.message["id"])
        if turn is not None:
            return Events(turns.follow(turn, position, self.stored, exchange.path))
        reads = partial(in_thread, conversations.note_reader, caller(), stored.message["id"])
        return Events(turns.follow_stored(stored, position, self.stored, exchange.path, reads))

    def replayed(self, row: ChatMessage) -> Stored:
        """The reply that a repeated request began. Raises ``Problem`` while it is being written."""
        if row.is_running and not row.is_abandoned:
            raise Problem(
                "idempotency-in-progress",
                "The first request with this Idempotency-Key is still being answered.",
                headers={"Retry-After": "1"},
            )
        return self.of(row)

    def _read(self, of: Caller, reply_id: str) -> Stored:
        with reading(of) as db:
            return self.of(db.require(ChatMessage, reply_id))

    def _last(self, enter: Callable[[Session], object], session_id: str, reply_id: str | None) -> Stored:
        query = select(ChatMessage).where(
            ChatMessage.session_id == session_id, ChatMessage.role == "assistant"
        )
        if reply_id is not None:
            query = query.where(ChatMessage.id == reply_id)
        with reading(caller()) as db:
            enter(db)
            row = db.scalar(query.order_by(ChatMessage.created_at.desc(), ChatMessage.id.desc()).limit(1))
            if row is None:
                raise NotFound("There is no reply to follow in this session.")
            return self.of(row)
