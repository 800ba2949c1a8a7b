"""Chat sessions and their messages."""

from __future__ import annotations

import enum
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ForeignKeyConstraint, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from models.base import Base, Entity, Id, TenantOwned, now, own_key, reference
from models.errors import RuleBroken, SessionExpired


class SessionStatus(enum.StrEnum):
    """Whether a session takes questions."""

    ACTIVE = "active"
    ARCHIVED = "archived"
    EXPIRED = "expired"


class MessageStatus(enum.StrEnum):
    """What became of a message. Only ``streaming`` changes further."""

    COMPLETE = "complete"
    STREAMING = "streaming"
    INTERRUPTED = "interrupted"
    STOPPED = "stopped"
    FAILED = "failed"
    FILTERED = "filtered"


TITLE_LENGTH = 80
LEASE = timedelta(seconds=15)
"""How long a running reply is believed to run without a sign of life from the process that writes it."""


def session_expired() -> SessionExpired:
    """Why a session that was idle for too long takes no question."""
    return SessionExpired("This session was idle for too long. Set its status to active to go on.")


class ChatSession(TenantOwned, Entity):
    """A conversation of one user with one persona."""

    __tablename__ = "chat_sessions"
    __table_args__ = (
        own_key(),
        reference("stack_id", "stacks"),
        reference("persona_id", "personas"),
        reference("user_id", "users", ondelete="CASCADE"),
        Index("sessions_of_user", "tenant_id", "user_id", "created_at"),
        Index("sessions_of_tenant", "tenant_id", "created_at"),
        Index("sessions_of_bot", "bot_id", "created_at"),
    )

    title: Mapped[str | None] = mapped_column(String(200))
    status: Mapped[str] = mapped_column(String(20), default=SessionStatus.ACTIVE)
    persona_id: Mapped[str | None] = mapped_column(Id, index=True)
    stack_id: Mapped[str] = mapped_column(Id, index=True)
    user_id: Mapped[str | None] = mapped_column(Id)
    bot_id: Mapped[str | None] = mapped_column(Id)
    visitor_id: Mapped[str | None] = mapped_column(Id)
    model: Mapped[str | None] = mapped_column(String(200))
    attributes: Mapped[dict[str, Any]] = mapped_column(default=dict)
    message_count: Mapped[int] = mapped_column(default=0)
    last_message_at: Mapped[datetime | None]
    leaf_id: Mapped[str | None] = mapped_column(Id)
    counts: Mapped[dict[str, Any] | None] = mapped_column(default=dict)
    """Its figures, added up as its replies end; None for one that is older than this and counted anew."""
    revived_at: Mapped[datetime | None]

    def accept_question(self) -> None:
        """Raise unless a question may be asked here."""
        if self.status == SessionStatus.EXPIRED:
            raise session_expired()
        if self.status == SessionStatus.ARCHIVED:
            raise RuleBroken("This session is archived. Set its status to active to go on.")

    def title_from(self, question: str) -> str:
        """Its title; where it was not named yet, after its first question."""
        return self.title or title_of(question)


def title_of(question: str) -> str:
    """What a session is called after its first question."""
    words = " ".join(question.split())
    return words if len(words) <= TITLE_LENGTH else words[: TITLE_LENGTH - 1].rstrip() + "…"


class ChatMessage(TenantOwned, Entity):
    """A question or a reply. A reply's row is there before its provider is called, and holds what has
    arrived so far.
    """

    __tablename__ = "messages"
    __table_args__ = (
        own_key(),
        reference("session_id", "chat_sessions", ondelete="CASCADE"),
        Index("messages_of_session", "session_id", "created_at", "id"),
        Index("messages_of_tenant", "tenant_id", "created_at"),
        Index("messages_of_run", "run_id", "depth"),
        Index(
            "one_running_reply",
            "session_id",
            unique=True,
            sqlite_where=text("status = 'streaming'"),
            postgresql_where=text("status = 'streaming'"),
        ),
        Index(
            "running_replies",
            "lease_until",
            sqlite_where=text("status = 'streaming'"),
            postgresql_where=text("status = 'streaming'"),
        ),
    )

    session_id: Mapped[str] = mapped_column(Id)
    parent_id: Mapped[str | None] = mapped_column(Id, index=True)
    depth: Mapped[int] = mapped_column(default=0, server_default="0")
    """How many messages its branch has up to here; the first question's is 1."""
    run_id: Mapped[str | None] = mapped_column(Id)
    """The run of messages that it stands in, without a fork between them: the id of the first of them, or the
    session's for the run that begins with the first question. So a page of a branch is read by its depths,
    and only forks are walked.
    """
    role: Mapped[str] = mapped_column(String(20))
    content: Mapped[str] = mapped_column(default="")
    status: Mapped[str] = mapped_column(String(20), default=MessageStatus.COMPLETE)
    answer_status: Mapped[str | None] = mapped_column(String(30))
    numeric_checks: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    usage: Mapped[dict[str, Any] | None]
    cost: Mapped[float | None]
    model: Mapped[str | None] = mapped_column(String(200))
    provider: Mapped[str | None] = mapped_column(String(100))
    persona_version: Mapped[int | None]
    latency_ms: Mapped[int | None]
    first_token_ms: Mapped[int | None]
    error: Mapped[dict[str, Any] | None]
    attributes: Mapped[dict[str, Any]] = mapped_column(default=dict)
    trace: Mapped[dict[str, Any] | None] = mapped_column(deferred=True)
    retrieved: Mapped[dict[str, Any] | None]
    lease_until: Mapped[datetime | None]
    stop_requested: Mapped[bool] = mapped_column(default=False)
    rating: Mapped[str | None] = mapped_column(String(20))
    comment: Mapped[str | None] = mapped_column(String(4000))
    read_until: Mapped[datetime | None]
    """Until when a reader on another process than the writer's is known to follow the reply."""

    citations: Mapped[list[Citation]] = relationship(order_by="Citation.number", viewonly=True)

    @property
    def feedback(self) -> dict[str, str | None] | None:
        """What the reader thought of the reply, if it said so."""
        return None if self.rating is None else {"rating": self.rating, "comment": self.comment}

    @property
    def is_running(self) -> bool:
        """Whether the reply is still being written, as far as SQL knows."""
        return self.status == MessageStatus.STREAMING

    @property
    def is_abandoned(self) -> bool:
        """Running by its status, yet its writer gave no sign of life for longer than the lease."""
        return self.is_running and self.lease_until is not None and self.lease_until < now()


class Citation(TenantOwned, Base):
    """A passage that was given to the provider with a question. The quote is blanked when its document
    goes.
    """

    __tablename__ = "citations"
    __table_args__ = (
        ForeignKeyConstraint(["message_id"], ["messages.id"], ondelete="CASCADE"),
        Index("citations_of_document", "document_id"),
    )

    message_id: Mapped[str] = mapped_column(Id, primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    index_id: Mapped[str | None] = mapped_column(Id)
    document_id: Mapped[str | None] = mapped_column(Id)
    web_url: Mapped[str | None] = mapped_column(String(2000))
    document_name: Mapped[str] = mapped_column(String(300))
    page: Mapped[int | None]
    sheet: Mapped[str | None] = mapped_column(String(200))
    cell: Mapped[str | None] = mapped_column(String(50))
    heading: Mapped[str | None] = mapped_column(String(300))
    start: Mapped[int]
    end: Mapped[int]
    score: Mapped[float]
    quote: Mapped[str]
    content_sha256: Mapped[str] = mapped_column(String(64))
    cited: Mapped[bool] = mapped_column(default=False)


class UsageRecord(TenantOwned, Entity):
    """Tokens spent on a reply that is not stored: of the OpenAI-compatible door, whose clients keep their
    own history.
    """

    __tablename__ = "usage_records"

    user_id: Mapped[str | None] = mapped_column(Id)
    persona_id: Mapped[str | None] = mapped_column(Id)
    model: Mapped[str | None] = mapped_column(String(200))
    provider: Mapped[str | None] = mapped_column(String(100))
    status: Mapped[str] = mapped_column(String(20))
    prompt_tokens: Mapped[int] = mapped_column(default=0)
    completion_tokens: Mapped[int] = mapped_column(default=0)
    source: Mapped[str] = mapped_column(String(20))
