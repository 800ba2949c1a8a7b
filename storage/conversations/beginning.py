"""A turn's begin: question and empty reply are rows before the provider is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import Table, bindparam, insert, update
from sqlalchemy.orm.attributes import set_committed_value

from models.audit import AuditAction, name_of
from models.base import new_id, now
from models.chat.conversations import LEASE, ChatMessage, ChatSession, MessageStatus
from models.chat.ports import Message
from models.errors import NotFound, RuleBroken
from storage import audit
from storage.conversations.branches import branch, place_behind
from storage.conversations.running import check_free
from storage.database import Session

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
    if not question.content:
        raise RuleBroken("The last question was refused, and is not kept. Ask another one.")
    begun = _write(db, session, question.parent_id, of=question, persona_version=persona_version)
    return begun, question.content


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
    depth, run_id = place_behind(db, session, question_id if question is None else leaf)
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
    made = reply_id if question is None else question_id
    fields = [name_of(name) for name, value in (question or {}).items() if value]
    of_session = {"session_id": {"to": session.id}}
    audit.note(db, AuditAction.CREATE, "message", made, fields=[*fields, *of_session], values=of_session)
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
