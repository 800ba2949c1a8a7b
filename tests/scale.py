"""Long conversations made at once, and how the database reads the first pages and figures of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from sqlalchemy import Table, event, func, insert, select
from sqlalchemy import cast as cast_to

from models.base import new_id
from models.chat.analytics import SUMS, LatencyHour, Span, UsageHour
from models.chat.conversations import ChatMessage, ChatSession
from models.tenancy import Product, Region, Stack, Tenant
from storage import analytics, conversations
from storage.analytics import Counted
from storage.database import Session, engine, platform

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
BATCH = 20_000


@dataclass(frozen=True, slots=True)
class Crowded:
    """A tenant with one long conversation and many short ones."""

    tenant_id: str
    session_id: str
    leaf_id: str
    span: Span


def crowded(long: int, sessions: int, each: int) -> Crowded:
    """A tenant with ``sessions`` conversations of ``each`` messages beside one of ``long``; all even."""
    with platform() as db:
        tenant = db.put(Tenant(name="Crowded"))
        product = db.put(Product(name="Chat", slug=new_id(), capabilities=["chat_ai"]))
        region = db.put(Region(name="Here", slug=new_id()))
        stack = db.put(Stack(tenant_id=tenant.id, product_id=product.id, region_id=region.id, name="Main"))
        of = (tenant.id, stack.id)
    long_id, leaf_id = _converse(*of, long, BEGAN)
    for number in range(sessions):
        _converse(*of, each, BEGAN + timedelta(minutes=number))
    _analysed()
    end = BEGAN + timedelta(minutes=max(sessions, 60))
    return Crowded(tenant.id, long_id, leaf_id, Span.around(BEGAN, end, "day"))


def neighbours(of: Crowded, count: int) -> None:
    """So many more tenants with as many conversations (not their messages) and figures.

    A tenant that is nearly alone in a table is rightly read by reading the table.
    """
    with platform() as db:
        connection = db.connection()
        new = func.gen_random_uuid()
        if connection.dialect.name == "sqlite":
            new = func.lower(func.hex(func.randomblob(16)))
        stack_id = db.scalar(select(ChatSession.stack_id).where(ChatSession.id == of.session_id))
        for number in range(count):
            tenant = db.put(Tenant(name=f"Neighbour {number}"))
            kept = db.get_one(Stack, stack_id)
            place = {"product_id": kept.product_id, "region_id": kept.region_id}
            stack = db.put(Stack(tenant_id=tenant.id, name="Main", **place))
            own = {"tenant_id": tenant.id, "id": new, "stack_id": stack.id, "leaf_id": None}
            for entity in (ChatSession, UsageHour, LatencyHour):
                table = cast(Table, entity.__table__)
                columns = [
                    cast_to(own[column.name], column.type) if column.name in own else column
                    for column in table.c
                ]
                copied = select(*columns).where(table.c.tenant_id == of.tenant_id)
                connection.execute(insert(table).from_select(list(table.c), copied))
    _analysed()


def _analysed() -> None:
    with engine().begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("ANALYZE")


def _converse(tenant_id: str, stack_id: str, length: int, at: datetime) -> tuple[str, str]:
    ids = [new_id() for _ in range(length)]
    session_id = new_id()
    of = {"tenant_id": tenant_id, "created_at": at, "updated_at": at}
    with platform() as db:
        db.execute(
            insert(ChatSession),
            [
                {
                    **of,
                    "id": session_id,
                    "stack_id": stack_id,
                    "title": f"Question {at:%H:%M}",
                    "message_count": length,
                    "last_message_at": at,
                    "leaf_id": ids[-1],
                    "attributes": {},
                    "counts": {},
                }
            ],
        )
        rows = (
            {
                "tenant_id": tenant_id,
                "session_id": session_id,
                "id": id,
                "parent_id": ids[place - 1] if place else None,
                "depth": place + 1,
                "run_id": session_id,
                "role": "assistant" if place % 2 else "user",
                "content": f"Revenue rose by {place} per cent in the year under review.",
                "created_at": at + timedelta(milliseconds=place),
                "updated_at": at,
            }
            for place, id in enumerate(ids)
        )
        while batch := [row for _, row in zip(range(BATCH), rows, strict=False)]:
            db.connection().execute(insert(ChatMessage), batch)
        sums = dict.fromkeys(SUMS, 0) | {"replies": length // 2, "questions": length // 2, "sessions": 1}
        counted = Counted(tenant_id, sums=sums, latency_ms=900, at=at, session_id=session_id)
        analytics.count(db.connection(), [counted])
    return session_id, ids[-1]


def reads(of: Crowded) -> dict[str, Callable[[Session], Any]]:
    """What first pages and figures ask of the database, by name."""
    newest = select(ChatSession).where(ChatSession.tenant_id == of.tenant_id)
    newest = newest.order_by(ChatSession.created_at.desc(), ChatSession.id.desc()).limit(20)

    def part(after: int) -> Callable[[Session], Any]:
        query = conversations.part_of_branch(of.session_id, of.leaf_id, after, 20)
        return lambda db: db.scalars(query).all()

    return {
        "first page of a conversation": part(0),
        "how long the branch is": lambda db: conversations.depth_of(db, of.session_id, of.leaf_id),
        "a page deep in it": part(conversations.HISTORY * 10),
        "what a prompt is given": lambda db: conversations.branch(
            db, of.session_id, of.leaf_id, conversations.HISTORY
        ),
        "how many conversations": lambda db: db.scalar(
            select(func.count()).select_from(select(ChatSession.id).subquery())
        ),
        "first page of conversations": lambda db: db.scalars(newest).all(),
        "figures of a conversation": lambda db: analytics.of_session(
            db.get_one(ChatSession, of.session_id).counts or {}
        ),
        "figures of the tenant": lambda db: analytics.report(db, of.span),
        "shares of models": lambda db: analytics.shares(db, of.span, "model"),
        "search in messages": lambda db: db.scalars(
            conversations.said_lately(of, "cent in the year").limit(20)
        ).all(),
    }


@contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    """The statements sent meanwhile, with their parameters."""
    sent: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.lstrip().upper().startswith(("SELECT", "WITH")):
            sent.append((statement, parameters))

    event.listen(engine(), "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine(), "before_cursor_execute", note)


def plan(db: Session, statement: str, parameters: Any) -> list[str]:
    """How the database would go about a statement, line by line."""
    connection = db.connection()
    explain = "EXPLAIN QUERY PLAN " if connection.dialect.name == "sqlite" else "EXPLAIN "
    rows = connection.exec_driver_sql(explain + statement, parameters).all()
    return [str(row[-1]).strip() for row in rows]


def whole_tables(lines: list[str]) -> list[str]:
    """The lines of a plan that read all rows there are of a table that grows with its use."""
    growing = "messages|chat_sessions|citations|documents|chunks|keyword_postings|usage_hours|latency_hours"
    from_end_to_end = re.compile(rf"(-> *)?(Parallel )?(SCAN|Seq Scan on) ({growing})\b")
    return [line for line in lines if from_end_to_end.match(line)]


def whole_tenants(lines: list[str]) -> list[str]:
    """The lines of SQLite's plan that read all rows of a tenant."""
    return [line for line in lines if line.endswith("(tenant_id=?)")]
