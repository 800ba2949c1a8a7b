"""Replies that are being written: stopped, read elsewhere, or closed when their writer is gone."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select, update

from models.base import now
from models.chat.conversations import ChatMessage, ChatSession, MessageStatus
from models.errors import ReplyRunning
from storage import analytics, events, quotas
from storage.conversations.recording import outcome
from storage.database import OfTenant, Session, platform, transaction

READER_LEASE = timedelta(seconds=1)
"""How long a reader on another process counts, unless it is noted again."""


def running_reply(db: Session, session_id: str) -> ChatMessage | None:
    """The reply that is being written in a session, if one is."""
    return db.scalar(
        select(ChatMessage).where(
            ChatMessage.session_id == session_id, ChatMessage.status == MessageStatus.STREAMING
        )
    )


def check_free(db: Session, session: ChatSession) -> None:
    """Raise ``ReplyRunning`` while a reply is being written; one whose writer is gone is closed."""
    running = running_reply(db, session.id) if session.message_count else None
    if running is None:
        return
    if not running.is_abandoned:
        raise ReplyRunning("A reply is being written in this session. Wait for its end, or stop it.")
    _close_abandoned(db, running)


def request_stop(db: Session, session_id: str) -> str | None:
    """Ask whoever writes the session's running reply to stop; returns its id."""
    running = running_reply(db, session_id)
    if running is None:
        return None
    if running.is_abandoned:
        _close_abandoned(db, running)
        return None
    running.stop_requested = True
    return running.id


def note_reader(of: OfTenant, message_id: str) -> None:
    """Tell the process that writes a reply that somebody follows it here."""
    with transaction(of) as db:
        db.execute(
            update(ChatMessage)
            .where(ChatMessage.id == message_id, ChatMessage.status == MessageStatus.STREAMING)
            .values(read_until=now() + READER_LEASE, updated_at=ChatMessage.updated_at)
            .execution_options(synchronize_session=False)
        )


def sweep() -> int:
    """Mark replies whose writer is gone as interrupted; what had arrived stays. Returns how many."""
    at = now()
    overdue = (ChatMessage.status == MessageStatus.STREAMING, ChatMessage.lease_until < at)
    with platform(writes=False) as db:
        if db.scalar(select(ChatMessage.id).where(*overdue).limit(1)) is None:
            return 0
    with platform() as db:
        swept = list(db.scalars(select(ChatMessage).where(*overdue).with_for_update(skip_locked=True)))
        for reply in swept:
            _close_abandoned(db, reply)
        return len(swept)


def _close_abandoned(db: Session, reply: ChatMessage) -> None:
    """Mark a reply whose writer is gone, and count and tell it in the writer's place."""
    db.refresh(reply, with_for_update=True)
    if not reply.is_running:
        return
    session = db.get_one(ChatSession, reply.session_id)
    reply.status, reply.lease_until = MessageStatus.INTERRUPTED, None
    asked_before = select(ChatMessage.id).where(
        ChatMessage.parent_id == reply.parent_id, ChatMessage.id != reply.id
    )
    is_new = db.scalar(asked_before.limit(1)) is None
    question = db.get(ChatMessage, reply.parent_id) if reply.parent_id else None
    sums = {
        "sessions": int(is_new and question is not None and question.parent_id is None),
        "questions": int(is_new),
        "replies": 1,
    }
    of = (reply.tenant_id, session.bot_id, session.user_id, session.persona_id, reply.model)
    db.flush()
    quotas.abandon(db.connection(), reply.tenant_id, reply.id)
    analytics.count(db.connection(), [analytics.Counted(*of, sums, session_id=session.id)])
    facts = {"status": reply.status.value, "model": reply.model}
    events.publish_all(db, [outcome(reply.tenant_id, reply.id, session.id, facts)])
