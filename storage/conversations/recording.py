"""What arrives of the replies of a process, written behind for all together: many streams cost one commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Connection, Table, bindparam, insert, or_, select, update

from models.base import now
from models.chat.conversations import (
    LEASE,
    ChatMessage,
    ChatSession,
    Citation,
    MessageStatus,
    UsageRecord,
    title_of,
)
from storage import analytics, events, quotas, visitors
from storage.analytics import Counted
from storage.database import Session, platform


@dataclass(slots=True)
class Progress:
    """What a running reply holds now."""

    message_id: str
    content: str


@dataclass(slots=True)
class Retrieval:
    """The passages that a reply was given."""

    message_id: str
    tenant_id: str
    retrieved: dict[str, Any]
    answer_status: str | None
    citations: list[dict[str, Any]]


@dataclass(slots=True)
class Ending:
    """A reply that ended, with all that is kept of it. ``session_id`` None: only its usage is."""

    message_id: str
    session_id: str | None
    tenant_id: str
    user_id: str | None
    persona_id: str | None
    values: dict[str, Any]
    cited: list[int]
    bot_id: str | None = None
    is_first: bool = False
    is_new: bool = True
    is_refused: bool = False
    """Whether content filtering refused the new question that it answers."""

    def counted(self) -> Counted:
        """What the tenant's figures gain by this reply."""
        values, usage = self.values, self.values["usage"] or {}
        sums = {
            "sessions": int(self.is_first),
            "questions": int(self.is_new),
            "replies": 1,
            "failed": int(values["status"] == MessageStatus.FAILED),
            "unanswered": int(values.get("answer_status") == "insufficient_evidence"),
            "prompt_tokens": usage.get("prompt_tokens", 0),
            "completion_tokens": usage.get("completion_tokens", 0),
            "citations": len(self.cited),
        }
        return Counted(
            self.tenant_id,
            self.bot_id,
            self.user_id,
            self.persona_id,
            values["model"],
            sums,
            values["cost"] or 0.0,
            values["latency_ms"],
            values["first_token_ms"],
            session_id=self.session_id,
        )

    @property
    def tokens(self) -> int:
        """All that it spent."""
        usage = self.values["usage"] or {}
        return int(usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0))

    def spent(self) -> dict[str, Any] | None:
        """The row of a reply that is not stored."""
        usage = self.values["usage"]
        if usage is None:
            return None
        named = {name: self.values[name] for name in ("model", "provider", "status")}
        counted = {name: usage[name] for name in ("prompt_tokens", "completion_tokens", "source")}
        of = {"tenant_id": self.tenant_id, "user_id": self.user_id, "persona_id": self.persona_id}
        return {"id": self.message_id, "created_at": now(), "updated_at": now(), **of, **named, **counted}


CITATION_COLUMNS = [
    "number",
    "index_id",
    "document_id",
    "document_name",
    "page",
    "sheet",
    "cell",
    "heading",
    "start",
    "end",
    "score",
    "quote",
    "content_sha256",
]


@dataclass(frozen=True, slots=True)
class Wish:
    """What other processes wrote on a running reply: that it should stop, or until when it is read there."""

    stop: bool
    read_until: datetime | None


_MESSAGES, _SESSIONS = cast(Table, ChatMessage.__table__), cast(Table, ChatSession.__table__)
_RUNNING = update(_MESSAGES).where(
    _MESSAGES.c.id == bindparam("b_id"), _MESSAGES.c.status == MessageStatus.STREAMING.value
)
"""A row that is no longer ``streaming`` (stopped or swept by another process) is left as it is."""
_THERE = select(_MESSAGES.c.id).where(_MESSAGES.c.id.in_(bindparam("ids", expanding=True)))
_HELD = _THERE.where(_MESSAGES.c.status == MessageStatus.STREAMING.value).with_for_update()
_WISHED = _THERE.add_columns(_MESSAGES.c.stop_requested, _MESSAGES.c.read_until).where(
    or_(_MESSAGES.c.stop_requested, _MESSAGES.c.read_until.is_not(None))
)
_CITATIONS = cast(Table, Citation.__table__)
_CITED = (
    update(_CITATIONS)
    .where(_CITATIONS.c.message_id == bindparam("b_id"), _CITATIONS.c.number == bindparam("b_number"))
    .values(cited=True)
)


def record(
    progress: Sequence[Progress], retrievals: Sequence[Retrieval], endings: Sequence[Ending]
) -> dict[str, Wish]:
    """Write what happened to the running replies, in one commit; tell what others wish of them, by id."""
    lease = now() + LEASE
    with platform() as db:
        connection = db.connection()
        if retrievals:
            _record_retrievals(connection, retrievals)
        if progress:
            written = [{"b_id": p.message_id, "content": p.content, "lease_until": lease} for p in progress]
            connection.execute(_RUNNING, written)
        _record_endings(db, endings)
        if not progress:
            return {}
        wished = connection.execute(_WISHED, {"ids": [p.message_id for p in progress]})
        return {row.id: Wish(row.stop_requested, row.read_until) for row in wished}


def _record_retrievals(connection: Connection, retrievals: Sequence[Retrieval]) -> None:
    found = [
        {"b_id": r.message_id, "retrieved": r.retrieved, "answer_status": r.answer_status} for r in retrievals
    ]
    connection.execute(_RUNNING, found)
    kept = set(connection.execute(_THERE, {"ids": [r.message_id for r in retrievals]}).scalars())
    rows = [
        {"tenant_id": r.tenant_id, "message_id": r.message_id, "cited": False}
        | {name: citation[name] for name in CITATION_COLUMNS}
        | {"web_url": None if citation["document_id"] else citation["url"]}
        for r in retrievals
        if r.message_id in kept
        for citation in r.citations
    ]
    if rows:
        connection.execute(insert(Citation), rows)


def _record_endings(db: Session, endings: Sequence[Ending]) -> None:
    connection = db.connection()
    quotas.settle(connection, [(e.tenant_id, e.message_id, e.tokens) for e in endings])
    spent = [row for ending in endings if ending.session_id is None and (row := ending.spent()) is not None]
    if spent:
        connection.execute(insert(UsageRecord), spent)
    stored = [ending for ending in endings if ending.session_id is not None]
    if stored:
        at = now()
        # What another process swept meanwhile was counted there.
        running = set(connection.execute(_HELD, {"ids": [e.message_id for e in stored]}).scalars())
        stored = [ending for ending in stored if ending.message_id in running]
    if stored:
        ended = [{"b_id": e.message_id, "lease_until": None, "updated_at": at, **e.values} for e in stored]
        connection.execute(_RUNNING, ended)
        _forget_refused(connection, [e.message_id for e in stored if e.is_refused])
        analytics.count(connection, [ending.counted() for ending in stored])
        visitors.settle(connection, {e.message_id: e.tokens for e in stored if e.bot_id is not None})
        events.publish_all(db, [outcome(e.tenant_id, e.message_id, e.session_id, e.values) for e in stored])
    cited = [{"b_id": e.message_id, "b_number": number} for e in stored for number in e.cited]
    if cited:
        connection.execute(_CITED, cited)


def _forget_refused(connection: Connection, reply_ids: Sequence[str]) -> None:
    """Keep neither the text of refused questions nor titles that were made of it."""
    if not reply_ids:
        return
    asked = select(_MESSAGES.c.parent_id).where(_MESSAGES.c.id.in_(reply_ids))
    question = select(_MESSAGES.c.id, _MESSAGES.c.session_id, _MESSAGES.c.content)
    for row in connection.execute(question.where(_MESSAGES.c.id.in_(asked))).all():
        named = (_SESSIONS.c.id == row.session_id, _SESSIONS.c.title == title_of(row.content))
        connection.execute(update(_SESSIONS).where(*named).values(title=None))
        connection.execute(update(_MESSAGES).where(_MESSAGES.c.id == row.id).values(content=""))


def outcome(
    tenant_id: str, message_id: str, session_id: str | None, values: Mapping[str, Any]
) -> events.Happened:
    """That a reply ended, however it did; ``message.completed`` is also told of one that was cut short."""
    facts = {name: values.get(name) for name in ("status", "model")}
    facts |= {"id": message_id, "session_id": session_id}
    if values["status"] == MessageStatus.FAILED:
        error = values.get("error")
        facts["error_code"] = error["code"] if error else None
        return events.Happened(tenant_id, "message.failed", facts)
    facts |= {name: values.get(name) for name in ("usage", "latency_ms")}
    return events.Happened(tenant_id, "message.completed", facts)
