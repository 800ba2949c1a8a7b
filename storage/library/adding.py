"""Documents as they come: kept once in their place, and promised to be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError

from models.audit import FILE, AuditAction
from models.knowledge.library import Document, DocumentCategory, IngestStatus
from storage import audit, files, queue, quotas
from storage.database import Session
from storage.library.making import EMBEDDING_FROM
from storage.library.promises import EMBED, INGEST, LAST, SOON, THEN


def add_document(
    db: Session,
    incoming: files.Incoming,
    *,
    name: str,
    media_type: str,
    index_id: str | None = None,
    session_id: str | None = None,
    user_id: str | None = None,
    category_ids: Iterable[str] = (),
    attributes: Mapping[str, Any] | None = None,
) -> tuple[Document, bool]:
    """Keep an upload in an index or in a session, and promise to read it; whether it is new there.

    The same content twice in one place is one document: the first, read again if it could not be read before.
    """
    scope_id = index_id or session_id or ""
    same = select(Document).where(Document.scope_id == scope_id, Document.content_sha256 == incoming.sha256)
    document = Document(
        index_id=index_id,
        session_id=session_id,
        scope_id=scope_id,
        user_id=user_id,
        name=name,
        media_type=media_type,
        size=incoming.size,
        content_sha256=incoming.sha256,
        attributes=dict(attributes or {}),
    )
    found = db.scalar(same)
    if found is None:
        try:
            with db.begin_nested():
                db.put(document)
        except IntegrityError:
            # Somebody else added it between our look and our word.
            found = db.scalar(same)
            if found is None:
                raise
    if found is not None:
        if found.status == IngestStatus.FAILED:
            incoming.place(db)
            read_again(db, found)
        return found, False
    for category_id in dict.fromkeys(category_ids):
        db.add(DocumentCategory(document_id=document.id, category_id=category_id))
    db.flush()
    quotas.check_room(db, document.tenant_id)
    incoming.place(db)
    queue.enqueue(db, INGEST, document.id, priority=SOON if session_id else THEN)
    db.refresh(document, ["categories"])
    return document, True


def read_again(db: Session, document: Document) -> None:
    """Promise to read a failed document anew, from its file on."""
    kind = FILE if document.session_id else "document"
    change = {"status": {"from": document.status, "to": IngestStatus.PENDING}}
    audit.note(db, AuditAction.UPDATE, kind, document.id, fields=change, values=change)
    document.status, document.progress = IngestStatus.PENDING, 0.0
    document.error_code = document.error_detail = None
    queue.cancel(db, EMBED, document.id)
    queue.enqueue(db, INGEST, document.id, priority=SOON if document.session_id else THEN)


def reindex(db: Session, embedder: str, *, everything: bool = False) -> int:
    """Promise the vectors of this embedder for every document that lacks them; how many there are.

    Meanwhile their words find them. ``everything``: read all files anew, too, whatever they have.
    """
    if everything:
        documents = db.scalars(select(Document).where(Document.status == IngestStatus.READY)).all()
    else:
        lacking = or_(
            Document.embedder.is_(None),
            Document.embedder != embedder,
            Document.vector_count < Document.chunk_count,
        )
        wanted = select(Document).where(Document.status == IngestStatus.READY, lacking)
        documents = db.scalars(wanted.where(Document.chunk_count > 0)).all()
    for document in documents:
        if everything:
            document.status, document.progress = IngestStatus.PENDING, 0.0
        else:
            document.status, document.progress = IngestStatus.EMBEDDING, EMBEDDING_FROM
        document.error_detail = None
        queue.enqueue(
            db,
            INGEST if everything else EMBED,
            document.id,
            tenant_id=document.tenant_id,
            priority=LAST,
        )
    return len(documents)
