"""Figures of a bot: its counts, and what only its stored conversations tell."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import aliased

from models.base import Instant
from models.chat.analytics import Span, most_asked
from models.chat.conversations import ChatMessage, ChatSession, MessageStatus
from storage import analytics
from storage.database import Session

READ_QUESTIONS, READ_CHARACTERS = 10_000, 300
"""What is read at most to tell what was asked most: the newest questions, and the beginning of each."""


def report(db: Session, span: Span, bot_id: str) -> dict[str, Any]:
    """Totals and series with the visitors in them, and the questions asked most."""
    found = analytics.report(db, span, bot_id=bot_id)
    whole, visitors = _visitors(db, span, bot_id)
    series = [{**row, "visitors": visitors.get(row["start"], 0)} for row in found["series"]]
    return {
        "totals": {**found["totals"], "visitors": whole},
        "series": series,
        "top_questions": most_asked(_newest_questions(db, span, bot_id)),
    }


def _asked(span: Span, bot_id: str, *columns: Any) -> Select[Any]:
    """Columns of the questions that the bot's visitors asked in that time."""
    query: Select[Any] = select(*columns).select_from(ChatMessage)
    return query.join(ChatSession, ChatSession.id == ChatMessage.session_id).where(
        ChatSession.bot_id == bot_id,
        ChatMessage.role == "user",
        ChatMessage.created_at >= span.start,
        ChatMessage.created_at < span.end,
    )


def _visitors(db: Session, span: Span, bot_id: str) -> tuple[int, dict[datetime, int]]:
    """How many different ones there were at all, and in each interval that had any."""
    start = _start(db, span.interval).label("start")
    seen = _asked(span, bot_id, start, ChatSession.visitor_id).distinct().subquery()
    whole = db.scalar(select(func.count(seen.c.visitor_id.distinct()))) or 0
    counted = db.execute(select(seen.c.start, func.count(seen.c.visitor_id)).group_by(seen.c.start))
    return whole, {row[0]: row[1] for row in counted}


def _start(db: Session, interval: str) -> ColumnElement[datetime]:
    """``models.chat.analytics.border`` in SQL."""
    at = ChatMessage.created_at
    if db.connection().dialect.name == "postgresql":
        return func.date_trunc(interval, at, "UTC", type_=Instant())
    hour = "%H" if interval == "hour" else "00"
    to_monday = ("-6 days", "weekday 1") if interval == "week" else ()
    # Without the fraction, which SQLite would round up into the next interval.
    second = func.substr(at, 1, 19)
    return func.strftime(f"%Y-%m-%d {hour}:00:00.000000", second, *to_monday, type_=Instant())


def _newest_questions(db: Session, span: Span, bot_id: str) -> list[str]:
    """Without those that content filtering kept from being answered."""
    beginning = func.substr(ChatMessage.content, 1, READ_CHARACTERS)
    newest = ChatMessage.created_at.desc(), ChatMessage.id.desc()
    reply = aliased(ChatMessage)
    filtered = select(reply.id).where(
        reply.parent_id == ChatMessage.id, reply.status == MessageStatus.FILTERED
    )
    query = _asked(span, bot_id, beginning).where(~filtered.exists()).order_by(*newest)
    return list(db.scalars(query.limit(READ_QUESTIONS)))
