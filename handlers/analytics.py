"""Figures of conversations: of one, of a bot, and of the tenant."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from handlers import reach, reports
from handlers.auth import caller
from handlers.replies import Text, csv_rows
from handlers.requests import Exchange
from models.bots import Bot
from models.chat.analytics import SUMS, figures, histogram
from models.chat.conversations import ChatMessage, Citation
from storage import analytics, bot_figures
from storage.database import Session, reading


def tenant(exchange: Exchange, from_: str | None, to: str | None, interval: str) -> dict[str, Any] | Text:
    """The tenant's totals, series and shares."""
    span = reports.span_of(from_, to, interval)
    with reading(caller()) as db:
        report = analytics.report(db, span)
        by = {f"by_{name}": analytics.shares(db, span, column) for name, column in BY.items()}
    return reports.answer(exchange, span, {**report, **by})


BY = {"persona": "persona_id", "model": "model", "user": "user_id"}


def bot(
    id: str, exchange: Exchange, from_: str | None, to: str | None, interval: str
) -> dict[str, Any] | Text:
    """What a bot's visitors asked, and how they were answered."""
    span = reports.span_of(from_, to, interval)
    with reading(caller()) as db:
        bot_id = db.require(Bot, id).id
        report = bot_figures.report(db, span, bot_id)
    return reports.answer(exchange, span, {"bot_id": bot_id, **report})


def session(id: str, exchange: Exchange) -> dict[str, Any] | Text:
    """One conversation's figures."""
    with reading(caller()) as db:
        counts = reach.session(db, id).counts
        found = _figures(db, id) if counts is None else analytics.of_session(counts)
    if exchange.media_type == "text/csv":
        return Text(csv_rows([[*found], [*found.values()]]), "text/csv; charset=utf-8")
    return {"session_id": id, "figures": found}


def _figures(db: Session, session_id: str) -> dict[str, Any]:
    columns = (
        ChatMessage.role,
        ChatMessage.status,
        ChatMessage.answer_status,
        ChatMessage.usage,
        ChatMessage.cost,
        ChatMessage.latency_ms,
        ChatMessage.first_token_ms,
        ChatMessage.rating,
    )
    rows = db.execute(select(*columns).where(ChatMessage.session_id == session_id)).all()
    replies = [row for row in rows if row.role == "assistant"]
    sums: dict[str, Any] = dict.fromkeys(SUMS, 0)
    sums["sessions"], sums["replies"] = int(bool(rows)), len(replies)
    sums["questions"] = len(rows) - len(replies)
    sums["citations"] = db.scalar(
        select(func.count())
        .select_from(Citation)
        .join(ChatMessage, ChatMessage.id == Citation.message_id)
        .where(ChatMessage.session_id == session_id, Citation.cited)
    )
    sums["cost"] = sum(row.cost or 0.0 for row in replies)
    for row in replies:
        sums["failed"] += row.status == "failed"
        sums["unanswered"] += row.answer_status == "insufficient_evidence"
        for name in ("prompt_tokens", "completion_tokens"):
            sums[name] += (row.usage or {}).get(name, 0)
        if row.rating is not None:
            sums[row.rating] += 1
    return figures(
        sums, histogram(row.latency_ms for row in replies), histogram(row.first_token_ms for row in replies)
    )
