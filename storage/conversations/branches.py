"""The tree of a session's messages: which stand on a branch, and where the next one goes."""

from __future__ import annotations

from sqlalchemy import Select, select
from sqlalchemy.orm import aliased, selectinload

from models.chat.conversations import ChatMessage, ChatSession
from storage.database import Session


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


def place_behind(db: Session, session: ChatSession, parent_id: str | None) -> tuple[int, str | None]:
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
