"""Forgetting a person: everything that is theirs, in every place, step by step.

What was counted stays (the counts name an id that is nobody's any more), and so does what belongs to the
company: documents that they added to its indices, personas that they wrote.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import delete, or_, select, update

from models.access import ApiKey
from models.audit import AuditEntry
from models.chat.conversations import ChatSession
from models.exports import ExportStatus, TenantExport
from models.knowledge.library import Document
from models.letters import Letter
from models.personas import PersonaVersion
from models.tenancy import User
from models.work import IdempotencyRecord
from storage import accounts, conversations, exports, library, mail
from storage.database import OfTenant, Session, transaction

ERASE = "erase"
"""The kind of job that forgets a person."""
PROMISING = "erasures.create"
"""The operation that promises it."""

_AT_ONCE = 20


def forget_conversations(of: OfTenant, user_id: str) -> bool:
    """Delete some of the person's conversations with their files; whether there are more.

    Raises `ReplyRunning` while a reply is being written in one, `VectorsUnavailable` while Chroma is away.
    """
    with transaction(of) as db:
        theirs = select(ChatSession).where(ChatSession.user_id == user_id).limit(_AT_ONCE)
        found = db.scalars(theirs).all()
        for session in found:
            library.delete_session_files(db, session.id)
            conversations.remove_session(db, session)
        return len(found) == _AT_ONCE


def forget_person(of: OfTenant, user_id: str) -> None:
    """Delete the person and what else names them; keys, devices, seats and the like go with the row."""
    with transaction(of) as db:
        user = db.get(User, user_id)
        if user is None:
            return
        keys = db.scalars(select(ApiKey.id).where(ApiKey.user_id == user_id))
        callers = [f"user:{user_id}", *(f"key:{key_id}" for key_id in keys)]
        db.execute(delete(IdempotencyRecord).where(IdempotencyRecord.caller.in_(callers)))
        _forget_answers(db, {user_id, user.email})
        letters = select(Letter.id).where(Letter.user_id == user_id)
        for theirs, left in (
            (Document.user_id == user_id, update(Document).values(user_id=None)),
            (PersonaVersion.author_id == user_id, update(PersonaVersion).values(author_id=None)),
            (
                or_(
                    AuditEntry.actor_id == user_id,
                    AuditEntry.object_id == user_id,
                    AuditEntry.object_id.in_(letters),
                ),
                update(AuditEntry).values(address=""),
            ),
        ):
            db.execute(left.where(theirs), execution_options={"synchronize_session": False})
        _forget_archives(db)
        mail.forget_to(user.email, user.tenant_id)
        accounts.let_go(db, user)


def _forget_answers(db: Session, words: Collection[str]) -> None:
    """Answers to others that are kept to be repeated, and hold one of the words; but for those that promised
    the erasure, which have the id alone and can still be asked for.
    """
    telling = [word.encode() for word in words]
    kept = select(IdempotencyRecord.id, IdempotencyRecord.key, IdempotencyRecord.body).where(
        IdempotencyRecord.operation != PROMISING
    )
    gone = [
        id
        for id, key, body in db.execute(kept)
        if any(word in key.encode() or word in (body or b"") for word in telling)
    ]
    db.execute(delete(IdempotencyRecord).where(IdempotencyRecord.id.in_(gone)))


def _forget_archives(db: Session) -> None:
    """Archives that were made before hold the person, too."""
    for export in db.scalars(select(TenantExport).where(TenantExport.status == ExportStatus.READY)):
        exports.remove(db, export)
