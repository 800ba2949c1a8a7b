"""Questions and replies: send, stream, follow, stop, list."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import selectinload

from handlers import reach, turns
from handlers.answers import Answers
from handlers.auth import caller, require_stack_capability
from handlers.briefing import Briefing, briefing_of
from handlers.replies import Events, Listing, Paging, not_a_place, place_of
from handlers.requests import Exchange, Replay
from handlers.schemas import messages as wire
from handlers.turns import Order, Stored
from models.chat.conversations import ChatMessage, ChatSession, MessageStatus, session_expired
from models.errors import FeatureDisabled, Forbidden, NotFound, RuleBroken
from models.personas import Persona
from storage import conversations, quotas
from storage.configurations import effective, is_idle
from storage.conversations import Begun
from storage.database import Session, reading, transaction
from storage.threads import in_thread

STOP_SECONDS = 3.0
_answers = Answers(wire.show)
COLUMNS = [
    "id",
    "role",
    "content",
    "status",
    "answer_status",
    "model",
    "provider",
    "latency_ms",
    "first_token_ms",
    "parent_id",
    "created_at",
]


def list(id: str, leaf: str | None, paging: Paging) -> Listing:
    """A branch of the conversation, oldest first."""
    with reading(caller()) as db:
        session = reach.session(db, id)
        _check_leaf(db, id, leaf)
        leaf = leaf or session.leaf_id
    return Branch(
        conversations.on_branch(id, leaf),
        wire.show,
        paging,
        {"created_at": ChatMessage.created_at},
        ChatMessage.id,
        caller(),
        columns=tuple(COLUMNS),
        by_cursor=(ChatMessage.created_at, ChatMessage.id),
        session_id=id,
        leaf_id=leaf,
    )


@dataclass(slots=True)
class Branch(Listing):
    """A branch of a conversation: a page of it is read by the depths of its messages, however long it is."""

    session_id: str = ""
    leaf_id: str | None = None

    def _count(self, db: Session) -> int:
        return conversations.depth_of(db, self.session_id, self.leaf_id) or 0

    def _rows(self, db: Session, offset: int, size: int) -> Sequence[ChatMessage]:
        part = conversations.part_of_branch(self.session_id, self.leaf_id, offset, size)
        return db.scalars(part.options(selectinload(ChatMessage.citations))).all()

    def _rows_after(self, db: Session, cursor: str, size: int) -> Sequence[ChatMessage]:
        _, id = place_of(cursor)
        depth = conversations.depth_of(db, self.session_id, id)
        if depth is None:
            raise not_a_place()
        return self._rows(db, depth, size)


def _check_leaf(db: Session, session_id: str, leaf: str | None) -> None:
    if leaf is not None and db.require(ChatMessage, leaf).session_id != session_id:
        raise NotFound()


async def send(id: str, body: dict[str, Any], exchange: Exchange, replay: Replay | None = None) -> Any:
    """Ask, and answer with the whole reply."""
    return await _answers.whole(await in_thread(_begin, id, body, replay))


async def stream(id: str, body: dict[str, Any], exchange: Exchange, replay: Replay | None = None) -> Any:
    """Ask, and answer with the reply's events as they come."""
    return await _answers.streamed(await in_thread(_begin, id, body, replay), exchange)


async def regenerate(
    id: str, exchange: Exchange, body: dict[str, Any] | None = None, replay: Replay | None = None
) -> Any:
    """Answer the last question once more; whole, or as events where these are accepted."""
    begun = await in_thread(_begin_again, id, body or {}, replay)
    if exchange.media_type == "text/event-stream":
        return await _answers.streamed(begun, exchange)
    return await _answers.whole(begun)


def rate(id: str, message_id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Keep what the reader thinks of a reply."""
    with transaction(caller()) as db:
        session, reply = _reply(db, id, message_id)
        conversations.rate(db, session, reply, body["rating"], body.get("comment"))
        return {"rating": reply.rating, "comment": reply.comment}


def unrate(id: str, message_id: str) -> None:
    """Take it back."""
    with transaction(caller()) as db:
        session, reply = _reply(db, id, message_id)
        conversations.rate(db, session, reply, None, None)


def trace(id: str, message_id: str) -> dict[str, Any]:
    """Why this answer."""
    with reading(caller()) as db:
        _, reply = _reply(db, id, message_id)
        if reply.trace is None:
            raise NotFound("There is no trace of this reply (yet).")
        return wire.trace_of(reply)


def _reply(db: Session, id: str, message_id: str) -> tuple[ChatSession, ChatMessage]:
    session = reach.session(db, id)
    reply = db.require(ChatMessage, message_id)
    if reply.session_id != session.id or reply.role != "assistant":
        raise NotFound()
    return session, reply


async def resume(id: str, last_event_id: str | None, exchange: Exchange) -> Events:
    """Follow the running or last reply, from behind an event."""
    return await _answers.resumed(lambda db: reach.session(db, id), id, last_event_id, exchange)


async def stop(id: str) -> dict[str, Any]:
    """Stop the running reply, on whichever worker it runs."""
    reply_id = await in_thread(_request_stop, id)
    if reply_id is None:
        return {"stopped": False, "message": None}
    turn = turns.house().turns.get(reply_id)
    if turn is not None:
        turn.end(MessageStatus.STOPPED)
        await turn.stored.wait()
    else:
        await _wait_for_end(reply_id)
    return {"stopped": True, "message": (await _answers.stored(reply_id)).message}


async def _wait_for_end(reply_id: str) -> None:
    stored = await _answers.stored(reply_id)
    deadline = time.monotonic() + STOP_SECONDS
    while stored.message["status"] == MessageStatus.STREAMING and time.monotonic() < deadline:
        await turns.poll()
        stored = await _answers.stored(reply_id)


def _request_stop(id: str) -> str | None:
    with transaction(caller()) as db:
        reach.session(db, id)
        return conversations.request_stop(db, id)


def _begin(id: str, body: dict[str, Any], replay: Replay | None) -> Order | Stored:
    """Write question and empty reply, and gather what the turn needs; or find what the key began."""

    def write(db: Session, session: ChatSession, version: int) -> tuple[Begun, str]:
        about = {"parent_id": body.get("parent_id"), "attributes": body.get("metadata", {})}
        begun = conversations.begin(db, session, body["content"], **about, persona_version=version)
        return begun, body["content"]

    return _turn(id, body, replay, write)


def _begin_again(id: str, body: dict[str, Any], replay: Replay | None) -> Order | Stored:
    """The same for another reply to the last question."""

    def write(db: Session, session: ChatSession, version: int) -> tuple[Begun, str]:
        return conversations.begin_again(db, session, persona_version=version)

    return _turn(id, body, replay, write)


def _turn(
    id: str,
    body: dict[str, Any],
    replay: Replay | None,
    write: Callable[[Session, ChatSession, int], tuple[Begun, str]],
) -> Order | Stored:
    began = time.monotonic()
    with transaction(caller(), followed=True) as db:
        session = reach.session(db, id, lock=True)
        if replay is not None:
            earlier = replay.message_id(db)
            if earlier is not None:
                return _answers.replayed(db.require(ChatMessage, earlier))
        require_stack_capability(db, session.stack_id, "chat_ai")
        session.accept_question()
        configuration = effective(db, session.stack_id)
        if is_idle(configuration, session):
            raise session_expired()
        persona = _answering(db, session)
        begun, question = write(db, session, persona.version)
        if replay is not None:
            replay.keep(db, None, {}, b"", message_id=begun.reply_id)
        order = persona.order(
            caller(),
            session_id=session.id,
            searches=persona.reads or conversations.has_files(db, session.id),
            begun=begun,
            question=question,
            configuration=configuration,
            chat_model=session.model,
            background=body.get("background", False),
            web_search=body.get("web_search", False),
            began=began,
        )
        quotas.admit(caller(), order.reply_id, order.tokens)
        return order


def _answering(db: Session, session: ChatSession) -> Briefing:
    if session.persona_id is None:
        raise RuleBroken("This session's persona is gone. Give it another one.", pointer="/persona_id")
    if db.scalar(select(Persona.id).where(Persona.id == session.persona_id, reach.given())) is None:
        raise Forbidden("This session's persona is not assigned to you any more. Give it another one.")
    briefing = briefing_of(db, session.persona_id)
    if not briefing.is_active:
        raise FeatureDisabled("This persona is switched off.")
    return briefing
