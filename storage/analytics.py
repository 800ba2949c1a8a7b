"""Counts of conversations: added when a reply ends, in the same commit, and summed up when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, cast

from sqlalchemy import Connection, Select, Table, bindparam, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from models.base import new_id, now
from models.chat.analytics import NOBODY, SUMS, LatencyHour, Span, UsageHour, bar_of, border, figures, hour_of
from models.chat.conversations import ChatSession
from storage.database import Session

_USAGE = cast(Table, UsageHour.__table__)
_LATENCY = cast(Table, LatencyHour.__table__)
_SESSIONS = cast(Table, ChatSession.__table__)
_KEY = ("tenant_id", "hour", "bot_id", "user_id", "persona_id", "model")
_BAR = ("tenant_id", "bot_id", "hour", "measure", "bar")
MEASURES = ("latency", "first_token")
_COUNTED = (
    update(_SESSIONS)
    .where(_SESSIONS.c.id == bindparam("b_id"))
    .values(counts=bindparam("counts"), updated_at=_SESSIONS.c.updated_at)
)
_HELD = (
    select(_SESSIONS.c.id, _SESSIONS.c.counts)
    .where(_SESSIONS.c.id.in_(bindparam("ids", expanding=True)), _SESSIONS.c.counts.is_not(None))
    .order_by(_SESSIONS.c.id)
    .with_for_update()
)
"""Locked before any other row of the counts, as whoever changes a session does."""


@dataclass(slots=True)
class Counted:
    """What there is to count of one reply, or of a word about it."""

    tenant_id: str
    bot_id: str | None = None
    user_id: str | None = None
    persona_id: str | None = None
    model: str | None = None
    sums: dict[str, int] = field(default_factory=dict)
    cost: float = 0.0
    latency_ms: int | None = None
    first_token_ms: int | None = None
    at: datetime = field(default_factory=now)
    session_id: str | None = None

    def key(self) -> tuple[Any, ...]:
        """Which row of ``usage_hours`` it is added to."""
        named = (self.bot_id, self.user_id, self.persona_id, self.model)
        return (self.tenant_id, hour_of(self.at), *(name or NOBODY for name in named))


def count(connection: Connection, counted: Sequence[Counted]) -> None:
    """Add to the counts, in the transaction of what is counted."""
    _count_in_sessions(connection, counted)
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    bars: dict[tuple[Any, ...], int] = {}
    for one in counted:
        row = rows.setdefault(one.key(), dict.fromkeys(SUMS, 0) | {"cost": 0.0})
        for name, number in one.sums.items():
            row[name] += number
        row["cost"] += one.cost
        for measure, value in zip(MEASURES, (one.latency_ms, one.first_token_ms), strict=True):
            if value is not None:
                bar = (one.tenant_id, one.bot_id or NOBODY, hour_of(one.at), measure, bar_of(value))
                bars[bar] = bars.get(bar, 0) + 1
    at = now()
    usage = [
        {"id": new_id(), "created_at": at, "updated_at": at, **dict(zip(_KEY, key, strict=True)), **row}
        for key, row in sorted(rows.items())
    ]
    latencies = [
        {**dict(zip(_BAR, key, strict=True)), "replies": number} for key, number in sorted(bars.items())
    ]
    # Always in the same order, so that two workers who count alike wait for each other instead of locking up.
    _add(connection, _USAGE, usage, _KEY, (*SUMS, "cost"))
    _add(connection, _LATENCY, latencies, _BAR, ("replies",))


def _count_in_sessions(connection: Connection, counted: Sequence[Counted]) -> None:
    """The same in each conversation's own row, so that its figures cost no look at its messages."""
    ids = sorted({one.session_id for one in counted if one.session_id is not None})
    rows = connection.execute(_HELD, {"ids": ids}).all() if ids else []
    kept: dict[str, dict[str, Any]] = {row.id: row.counts for row in rows}
    for one in counted:
        if one.session_id not in kept:
            continue
        counts = kept[one.session_id]
        for name, number in {**one.sums, "cost": one.cost}.items():
            counts[name] = counts.get(name, 0) + number
        for measure, value in zip(MEASURES, (one.latency_ms, one.first_token_ms), strict=True):
            if value is not None:
                bars = counts.setdefault(measure, {})
                bar = str(bar_of(value))
                bars[bar] = bars.get(bar, 0) + 1
    if kept:
        connection.execute(_COUNTED, [{"b_id": id, "counts": counts} for id, counts in kept.items()])


def of_session(counts: dict[str, Any]) -> dict[str, Any]:
    """A conversation's figures from the counts in its row."""
    bars = ({int(bar): n for bar, n in counts.get(measure, {}).items()} for measure in MEASURES)
    return figures(counts, *bars)


def _add(
    connection: Connection,
    table: Table,
    rows: list[dict[str, Any]],
    key: tuple[str, ...],
    sums: Sequence[str],
) -> None:
    if rows:
        connection.execute(_adding(connection.dialect.name, table, key, tuple(sums)), rows)


@cache
def _adding(dialect: str, table: Table, key: tuple[str, ...], sums: tuple[str, ...]) -> Any:
    """The statement, which takes longer to make than to carry out."""
    statement = (sqlite.insert if dialect == "sqlite" else postgresql.insert)(table)
    added = {name: table.c[name] + statement.excluded[name] for name in sums}
    return statement.on_conflict_do_update(index_elements=key, set_=added)


def _within(query: Select[Any], table: Table, span: Span, bot_id: str | None) -> Select[Any]:
    query = query.where(table.c.hour >= span.start, table.c.hour < span.end)
    return query if bot_id is None else query.where(table.c.bot_id == bot_id)


def _totals() -> list[Any]:
    return [func.sum(_USAGE.c[name]).label(name) for name in (*SUMS, "cost")]


def report(db: Session, span: Span, *, bot_id: str | None = None) -> dict[str, Any]:
    """Totals and series of the tenant, or of one of its bots. Intervals without anything are zeros."""
    of = _USAGE.c.tenant_id == db.tenant_id
    usage = _within(select(_USAGE.c.hour, *_totals()).where(of), _USAGE, span, bot_id)
    latency = _within(
        select(
            _LATENCY.c.hour, _LATENCY.c.measure, _LATENCY.c.bar, func.sum(_LATENCY.c.replies).label("replies")
        ).where(_LATENCY.c.tenant_id == db.tenant_id),
        _LATENCY,
        span,
        bot_id,
    )
    sums: dict[datetime, dict[str, Any]] = {start: {} for start in span}
    bars: dict[tuple[datetime, str], dict[int, int]] = {}
    for row in db.execute(usage.group_by(_USAGE.c.hour)).mappings():
        into = sums[border(row["hour"], span.interval)]
        for name in (*SUMS, "cost"):
            into[name] = into.get(name, 0) + row[name]
    for row in db.execute(latency.group_by(_LATENCY.c.hour, _LATENCY.c.measure, _LATENCY.c.bar)).mappings():
        bar = bars.setdefault((border(row["hour"], span.interval), row["measure"]), {})
        bar[row["bar"]] = bar.get(row["bar"], 0) + row["replies"]
    series = [
        {"start": start, **figures(sums[start], *(bars.get((start, measure), {}) for measure in MEASURES))}
        for start in span
    ]
    whole = {name: sum(part.get(name, 0) for part in sums.values()) for name in (*SUMS, "cost")}
    return {"totals": figures(whole, *(_joined(bars, measure) for measure in MEASURES)), "series": series}


def _joined(bars: dict[tuple[datetime, str], dict[int, int]], measure: str) -> dict[int, int]:
    joined: dict[int, int] = {}
    for (_, of), part in bars.items():
        if of == measure:
            for bar, number in part.items():
                joined[bar] = joined.get(bar, 0) + number
    return joined


def shares(db: Session, span: Span, by: str, most: int = 100) -> list[dict[str, Any]]:
    """The same sums by ``persona_id``, ``model`` or ``user_id``, the busiest first; no percentiles."""
    column = _USAGE.c[by]
    query = select(column.label("of"), *_totals()).where(_USAGE.c.tenant_id == db.tenant_id)
    query = _within(query, _USAGE, span, None).group_by(column)
    rows = db.execute(query.order_by(func.sum(_USAGE.c.replies).desc(), column).limit(most)).mappings()
    return [{by: row["of"] or None, **_plain(row)} for row in rows]


def _plain(row: Any) -> dict[str, Any]:
    shown = figures(row, {}, {})
    return {name: value for name, value in shown.items() if not name.startswith("p")} | {
        "prompt_tokens": shown["prompt_tokens"]
    }
