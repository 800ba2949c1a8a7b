"""What both yardsticks share: tables like the server's, the key check by hash, and the shape of a session."""

from __future__ import annotations

import hashlib
import os
import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, Engine, ForeignKey, Index, create_engine, event, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker


class Base(DeclarativeBase):
    """The yardsticks' tables."""


class Key(Base):
    """An API key, by its hash."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    key_hash: Mapped[str] = mapped_column(unique=True)
    tenant_id: Mapped[str]
    user_id: Mapped[str]
    revoked_at: Mapped[datetime | None]


class Persona(Base):
    """What a session is held with."""

    __tablename__ = "personas"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(index=True)
    stack_id: Mapped[str]
    name: Mapped[str]


class ChatSession(Base):
    """A session, with the columns that the server shows."""

    __tablename__ = "chat_sessions"
    __table_args__ = (Index("sessions_of_user", "tenant_id", "user_id", "created_at"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: str(uuid.uuid4()))
    tenant_id: Mapped[str]
    title: Mapped[str | None]
    status: Mapped[str] = mapped_column(default="active")
    persona_id: Mapped[str] = mapped_column(ForeignKey("personas.id"), index=True)
    stack_id: Mapped[str]
    user_id: Mapped[str]
    bot_id: Mapped[str | None]
    model: Mapped[str | None]
    attributes: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    message_count: Mapped[int] = mapped_column(default=0)
    last_message_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC))
    updated_at: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC))


def _engine() -> Engine:
    made = create_engine(os.environ["YARDSTICK_DATABASE"], connect_args={"check_same_thread": False})

    @event.listens_for(made, "connect")
    def configure(connection: Any, record: Any) -> None:
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "busy_timeout=20000",
            "foreign_keys=ON",
            "secure_delete=ON",
            "cache_size=-16000",
        ):
            connection.execute(f"PRAGMA {pragma}")

    return made


engine = _engine()
Sessions = sessionmaker(engine, expire_on_commit=False)


def owner(db: Session, key: str | None) -> Key | None:
    """Whose key it is."""
    digest = hashlib.sha256((key or "").encode()).hexdigest()
    return db.scalar(select(Key).where(Key.key_hash == digest, Key.revoked_at.is_(None)))


def page(db: Session, key: Key, number: int, size: int, url: str) -> dict[str, Any]:
    """A page of the user's sessions, newest first."""
    mine = (ChatSession.tenant_id == key.tenant_id, ChatSession.user_id == key.user_id)
    count = db.scalar(select(func.count()).select_from(ChatSession).where(*mine)) or 0
    query = select(ChatSession).where(*mine).order_by(ChatSession.created_at.desc(), ChatSession.id)
    rows = db.scalars(query.limit(size).offset((number - 1) * size))
    return {
        "count": count,
        "next": f"{url}?page={number + 1}" if number * size < count else None,
        "previous": f"{url}?page={number - 1}" if number > 1 else None,
        "results": [show(row) for row in rows],
    }


def find(db: Session, key: Key, id: str) -> ChatSession | None:
    """A session of the tenant."""
    return db.scalar(select(ChatSession).where(ChatSession.id == id, ChatSession.tenant_id == key.tenant_id))


def add(db: Session, key: Key, persona_id: str, title: str | None) -> ChatSession | None:
    """A new session; None when there is no such persona."""
    mine = select(Persona).where(Persona.id == persona_id, Persona.tenant_id == key.tenant_id)
    persona = db.scalar(mine)
    if persona is None:
        return None
    session = ChatSession(
        tenant_id=key.tenant_id,
        user_id=key.user_id,
        persona_id=persona.id,
        stack_id=persona.stack_id,
        title=title,
    )
    db.add(session)
    db.commit()
    return session


def _instant(value: datetime | None) -> str | None:
    return None if value is None else value.replace(tzinfo=UTC).isoformat().replace("+00:00", "Z")


def show(row: ChatSession) -> dict[str, Any]:
    """A session as the server shows it."""
    return {
        "id": row.id,
        "title": row.title,
        "status": row.status,
        "persona_id": row.persona_id,
        "stack_id": row.stack_id,
        "user_id": row.user_id,
        "bot_id": row.bot_id,
        "model": row.model,
        "metadata": row.attributes,
        "message_count": row.message_count,
        "last_message_at": _instant(row.last_message_at),
        "created_at": _instant(row.created_at),
        "updated_at": _instant(row.updated_at),
    }


def fill(key: str, sessions: int) -> dict[str, str]:
    """Make the tables, a key, a persona and sessions; the ids of the persona and of one session."""
    Base.metadata.create_all(engine)
    of = {"tenant_id": str(uuid.uuid4()), "user_id": str(uuid.uuid4())}
    with Sessions() as db:
        digest = hashlib.sha256(key.encode()).hexdigest()
        db.add(Key(id=str(uuid.uuid4()), key_hash=digest, **of))
        persona = Persona(
            id=str(uuid.uuid4()), tenant_id=of["tenant_id"], stack_id=str(uuid.uuid4()), name="A"
        )
        db.add(persona)
        db.flush()
        rows = [
            ChatSession(**of, persona_id=persona.id, stack_id=persona.stack_id, title=f"Session {number}")
            for number in range(sessions)
        ]
        db.add_all(rows)
        db.commit()
        return {"persona": persona.id, "session": rows[0].id}
