"""Conversations in SQL: a turn's begin, its progress and its end, and what a reader needs to go on.

Question and reply are rows before the provider is called. What arrives is written behind, for all running
replies of a process together (``record``), so that many streams cost one commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import (
    Connection,
    Select,
    Table,
    bindparam,
    delete,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.orm import aliased, selectinload
from sqlalchemy.orm.attributes import set_committed_value

from models.base import new_id, now
from models.chat.conversations import LEASE, ChatMessage, ChatSession, Citation, MessageStatus, UsageRecord
from models.chat.ports import Message
from models.errors import NotFound, ReplyRunning, RuleBroken
from models.knowledge.library import Document
from storage import analytics, events, quotas, visitors
from storage.analytics import Counted
from storage.database import OfTenant, Session, platform, transaction

READER_LEASE = timedelta(seconds=1)
"""How long a reader on another process counts, unless it is noted again."""
SEARCHED_MESSAGES = 100_000
"""The newest messages of a tenant that a search for sessions reads. To find words in any place each text has
to be read: this bounds what a search may cost. Titles are searched without a bound.
"""
HISTORY = 40
"""The newest messages of a branch that a prompt may hold."""


@dataclass(slots=True)
class Begun:
    """A turn that stands in SQL and waits for its reply."""

    question_id: str
    reply_id: str
    history: list[Message] = field(default_factory=list)
    is_first: bool = False
    """Whether it is the first of its session."""
    is_new: bool = True
    """Whether the question was asked just now, not answered once more."""


def running_reply(db: Session, session_id: str) -> ChatMessage | None:
    """The reply that is being written in a session, if one is."""
    return db.scalar(
        select(ChatMessage).where(
            ChatMessage.session_id == session_id, ChatMessage.status == MessageStatus.STREAMING
        )
    )


def on_branch(session_id: str, leaf_id: str | None) -> Select[ChatMessage]:
    """A query for the messages from the root to ``leaf_id``, in no order yet; ``depth`` is their order."""
    last = (
        select(ChatMessage.run_id, ChatMessage.depth.label("last"))
        .where(ChatMessage.id == leaf_id, ChatMessage.session_id == session_id)
        .cte("runs", recursive=True)
    )
    first, before = aliased(ChatMessage), aliased(ChatMessage)
    fork = (
        select(before.run_id, before.depth)
        .select_from(last)
        .join(first, first.id == last.c.run_id)
        .join(before, before.id == first.parent_id)
    )
    runs = last.union_all(fork)
    return select(ChatMessage).join(
        runs, (ChatMessage.run_id == runs.c.run_id) & (ChatMessage.depth <= runs.c.last)
    )


def depth_of(db: Session, session_id: str, id: str | None) -> int | None:
    """How many messages a session's branch has up to that one; None for one that is not of the session."""
    return db.scalar(
        select(ChatMessage.depth).where(ChatMessage.id == id, ChatMessage.session_id == session_id)
    )


def part_of_branch(
    session_id: str, leaf_id: str | None, after: int = 0, most: int | None = None
) -> Select[ChatMessage]:
    """A query for the messages of a branch behind the first ``after`` (at most so many), oldest first."""
    query = on_branch(session_id, leaf_id).where(ChatMessage.depth > after)
    if most is not None:
        query = query.where(ChatMessage.depth <= after + most)
    return query.order_by(ChatMessage.depth)


def branch(
    db: Session,
    session_id: str,
    leaf_id: str | None,
    most: int | None = None,
    *,
    with_citations: bool = False,
) -> list[ChatMessage]:
    """The messages from the root to ``leaf_id``, oldest first (the last ``most`` of them)."""
    depth = depth_of(db, session_id, leaf_id) if leaf_id is not None else None
    if depth is None:
        return []
    query = part_of_branch(session_id, leaf_id, 0 if most is None else max(0, depth - most))
    if with_citations:
        query = query.options(selectinload(ChatMessage.citations))
    return list(db.scalars(query))


def said_lately(of: OfTenant, words: str) -> Select[str]:
    """A query for the sessions in whose messages, of the tenant's newest ones, the words stand."""
    newest = (
        select(ChatMessage.session_id, ChatMessage.content)
        .where(ChatMessage.tenant_id == of.tenant_id)
        .order_by(ChatMessage.created_at.desc())
        .limit(SEARCHED_MESSAGES)
        .subquery()
    )
    return select(newest.c.session_id).where(newest.c.content.icontains(words, autoescape=True))


def begin(
    db: Session,
    session: ChatSession,
    content: str,
    *,
    parent_id: str | None,
    attributes: dict[str, Any],
    persona_version: int | None,
) -> Begun:
    """Write the question and an empty reply. Raises ``ReplyRunning`` when one is being written already."""
    check_free(db, session)
    if parent_id is not None:
        parent = db.require(ChatMessage, parent_id, pointer="/parent_id")
        if parent.session_id != session.id:
            raise NotFound(pointer="/parent_id")
        if parent.role != "assistant":
            raise RuleBroken("A question follows a reply, not another question.", pointer="/parent_id")
    leaf = parent_id or session.leaf_id
    return _write(
        db,
        session,
        leaf,
        question={"content": content, "attributes": attributes},
        persona_version=persona_version,
    )


def begin_again(db: Session, session: ChatSession, *, persona_version: int | None) -> tuple[Begun, str]:
    """Write another empty reply beside the newest branch's last one; tell the question, too."""
    check_free(db, session)
    last = db.get(ChatMessage, session.leaf_id) if session.leaf_id else None
    question = db.get(ChatMessage, last.parent_id) if last and last.role == "assistant" else last
    if question is None:
        raise RuleBroken("Nothing was asked in this session yet.")
    begun = _write(db, session, question.parent_id, of=question, persona_version=persona_version)
    return begun, question.content


def check_free(db: Session, session: ChatSession) -> None:
    """Raise ``ReplyRunning`` while a reply is being written; one whose writer is gone is closed."""
    running = running_reply(db, session.id) if session.message_count else None
    if running is None:
        return
    if not running.is_abandoned:
        raise ReplyRunning("A reply is being written in this session. Wait for its end, or stop it.")
    _close_abandoned(db, running)


def _write(
    db: Session,
    session: ChatSession,
    leaf: str | None,
    *,
    question: dict[str, Any] | None = None,
    of: ChatMessage | None = None,
    persona_version: int | None,
) -> Begun:
    """The rows of a turn behind ``leaf``: an empty reply to a new ``question``, or to one that is there."""
    history = _said(branch(db, session.id, leaf, HISTORY))
    at = now()
    question_id, reply_id = of.id if of is not None else new_id(), new_id()
    depth, run_id = _place(db, session, question_id if question is None else leaf)
    if run_id is None:
        run_id = reply_id if question is None else question_id
    owned = {"tenant_id": session.tenant_id, "session_id": session.id, "created_at": at, "updated_at": at}
    rows: list[dict[str, Any]] = []
    if question is not None:
        rows.append(
            {
                "id": question_id,
                "parent_id": leaf,
                "depth": depth,
                "run_id": run_id,
                "role": "user",
                "status": MessageStatus.COMPLETE,
                "persona_version": None,
                "lease_until": None,
                **question,
            }
        )
    rows.append(
        {
            "id": reply_id,
            "parent_id": question_id,
            "depth": depth + len(rows),
            "run_id": run_id,
            "role": "assistant",
            "content": "",
            "status": MessageStatus.STREAMING,
            "attributes": {},
            "persona_version": persona_version,
            "lease_until": at + LEASE,
        }
    )
    # As rows, not objects, which take twice as long: nobody needs them here.
    db.connection().execute(insert(ChatMessage), [owned | row for row in rows])
    is_first = session.message_count == 0
    changed: dict[str, Any] = {
        "leaf_id": reply_id,
        "message_count": session.message_count + len(rows),
        "last_message_at": at,
    }
    if question is not None:
        changed["title"] = session.title_from(question["content"])
    _change(db, session, changed)
    return Begun(question_id, reply_id, history, is_first=is_first, is_new=question is not None)


_SESSIONS = cast(Table, ChatSession.__table__)
_CHANGE = update(_SESSIONS).where(_SESSIONS.c.id == bindparam("b_id"))


def _change(db: Session, session: ChatSession, values: dict[str, Any]) -> None:
    """Write values of a session's row, which a flush would do in three times the time."""
    db.flush()
    db.connection().execute(_CHANGE, {"b_id": session.id, **values})
    for name, value in values.items():
        set_committed_value(session, name, value)


def _said(rows: Sequence[ChatMessage]) -> list[Message]:
    """What a prompt may hold of a branch: no failed reply, and no question that content filtering refused."""
    refused = {row.parent_id for row in rows if row.status == MessageStatus.FILTERED and not row.content}
    return [
        Message("assistant" if row.role == "assistant" else "user", row.content)
        for row in rows
        if row.content and row.status != MessageStatus.FAILED and row.id not in refused
    ]


def _place(db: Session, session: ChatSession, parent_id: str | None) -> tuple[int, str | None]:
    """The depth of a new message behind ``parent_id``, and its run: None where it begins one."""
    if parent_id is None:
        return 1, session.id
    parent = db.execute(
        select(ChatMessage.depth, ChatMessage.run_id).where(ChatMessage.id == parent_id)
    ).one()
    followed = select(ChatMessage.id).where(
        ChatMessage.run_id == parent.run_id, ChatMessage.depth > parent.depth
    )
    is_fork = db.scalar(followed.limit(1)) is not None
    return parent.depth + 1, None if is_fork else parent.run_id


_DOCUMENTS = cast(Table, Document.__table__).c
_FILES = (
    select(_DOCUMENTS.id)
    .where(_DOCUMENTS.session_id == bindparam("session_id"), _DOCUMENTS.tenant_id == bindparam("tenant_id"))
    .limit(1)
)


def has_files(db: Session, session_id: str) -> bool:
    """Whether a session was given files."""
    found = db.connection().execute(_FILES, {"tenant_id": db.tenant_id, "session_id": session_id})
    return found.first() is not None


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


_MESSAGES = cast(Table, ChatMessage.__table__)
_RUNNING = update(_MESSAGES).where(
    _MESSAGES.c.id == bindparam("b_id"), _MESSAGES.c.status == MessageStatus.STREAMING.value
)
"""A row that is no longer ``streaming`` (stopped or swept by another process) is left as it is."""


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
        wished = select(_MESSAGES.c.id, _MESSAGES.c.stop_requested, _MESSAGES.c.read_until).where(
            _MESSAGES.c.id.in_([p.message_id for p in progress]),
            or_(_MESSAGES.c.stop_requested, _MESSAGES.c.read_until.is_not(None)),
        )
        return {row.id: Wish(row.stop_requested, row.read_until) for row in connection.execute(wished)}


def _record_retrievals(connection: Connection, retrievals: Sequence[Retrieval]) -> None:
    found = [
        {"b_id": r.message_id, "retrieved": r.retrieved, "answer_status": r.answer_status} for r in retrievals
    ]
    connection.execute(_RUNNING, found)
    there = select(_MESSAGES.c.id).where(_MESSAGES.c.id.in_([r.message_id for r in retrievals]))
    kept = set(connection.execute(there).scalars())
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
        running = set(
            connection.execute(
                select(_MESSAGES.c.id)
                .where(
                    _MESSAGES.c.id.in_([e.message_id for e in stored]),
                    _MESSAGES.c.status == MessageStatus.STREAMING.value,
                )
                .with_for_update()
            ).scalars()
        )
        stored = [ending for ending in stored if ending.message_id in running]
    if stored:
        ended = [{"b_id": e.message_id, "lease_until": None, "updated_at": at, **e.values} for e in stored]
        connection.execute(_RUNNING, ended)
        analytics.count(connection, [ending.counted() for ending in stored])
        visitors.settle(connection, {e.message_id: e.tokens for e in stored if e.bot_id is not None})
        events.publish_all(db, [_ended(e.tenant_id, e.message_id, e.session_id, e.values) for e in stored])
    cited = [{"b_id": e.message_id, "b_number": number} for e in stored for number in e.cited]
    if cited:
        table = cast(Table, Citation.__table__)
        which = (table.c.message_id == bindparam("b_id"), table.c.number == bindparam("b_number"))
        connection.execute(update(table).where(*which).values(cited=True), cited)


def _ended(
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
    analytics.count(db.connection(), [analytics.Counted(*of, sums, session_id=session.id)])
    facts = {"status": reply.status.value, "model": reply.model}
    events.publish_all(db, [_ended(reply.tenant_id, reply.id, session.id, facts)])


def rate(
    db: Session, session: ChatSession, reply: ChatMessage, rating: str | None, comment: str | None
) -> None:
    """Keep (or, with None, take back) what the reader thinks of a reply, and count it at the reply's hour."""
    sums = {"helpful": 0, "unhelpful": 0}
    for name, step in ((reply.rating, -1), (rating, 1)):
        if name is not None:
            sums[name] += step
    if rating is not None and rating != reply.rating:
        told = {"message_id": reply.id, "session_id": session.id, "rating": rating}
        events.publish(db, "feedback.created", told)
    reply.rating, reply.comment = rating, comment
    of = (reply.tenant_id, session.bot_id, session.user_id, session.persona_id, reply.model)
    db.flush()
    analytics.count(
        db.connection(), [analytics.Counted(*of, sums, at=reply.created_at, session_id=session.id)]
    )


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


def remove_session(db: Session, session: ChatSession) -> None:
    """Delete a session with its messages. A reply that runs is refused."""
    check_free(db, session)
    db.execute(delete(ChatMessage).where(ChatMessage.session_id == session.id))
    db.delete(session)
