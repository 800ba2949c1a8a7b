"""Sessions as a whole: which hold these words, or files, and how one is removed."""

from __future__ import annotations

from typing import cast

from sqlalchemy import Select, Table, bindparam, delete, select

from models.chat.conversations import ChatMessage, ChatSession
from models.knowledge.library import Document
from storage import audit
from storage.conversations.running import check_free
from storage.database import OfTenant, Session

SEARCHED_MESSAGES = 100_000
"""The newest messages of a tenant that a search for sessions reads. To find words in any place each text has
to be read: this bounds what a search may cost. Titles are searched without a bound.
"""


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


def remove_session(db: Session, session: ChatSession) -> None:
    """Delete a session with its messages. A reply that runs is refused."""
    check_free(db, session)
    if session.bot_id is not None:
        this = select(ChatSession.id).where(ChatSession.id == session.id)
        audit.forget_visitors(db, session.tenant_id, this)
    db.execute(delete(ChatMessage).where(ChatMessage.session_id == session.id))
    db.delete(session)
