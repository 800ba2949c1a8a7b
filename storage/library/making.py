"""What is made of a document: its passages, their words, the place of its vectors, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete as remove
from sqlalchemy import insert, select, update

from models.base import Base, now
from models.knowledge.keywords import DocumentPostings
from models.knowledge.library import Chunk, Document, IngestStatus, Posting
from models.knowledge.passages import Parsed, Passage
from storage import events, queue, vectors
from storage.database import OfTenant, Session, transaction
from storage.library.promises import EMBED, SOON, THEN

SETTLED = (IngestStatus.READY, IngestStatus.FAILED)
EMBEDDING_FROM = 0.3
"""A document's progress once it is found by keyword, while its vectors are yet to come."""
_ROWS = 20_000
"""How many postings are written at once: other writers wait for as long as that takes."""
_AT_ONCE = 250


def note(of: OfTenant, document_id: str, **values: Any) -> bool:
    """Set what is known of a document; False when it is gone."""
    with transaction(of) as db:
        return _set(db, document_id, values)


def settle(of: OfTenant, document_id: str, status: IngestStatus, **values: Any) -> bool:
    """Set what became of a document, and tell of it, once; False when it is gone, or settled already."""
    with transaction(of) as db:
        document = db.scalar(
            select(Document)
            .where(Document.id == document_id, Document.status.not_in(SETTLED))
            .with_for_update(of=Document)
        )
        if document is None:
            return False
        document.status = status
        for name, value in values.items():
            setattr(document, name, value)
        _tell(db, document)
        return True


def _tell(db: Session, document: Document) -> None:
    kind, place = (
        ("file", {"session_id": document.session_id})
        if document.session_id
        else ("document", {"index_id": document.index_id})
    )
    fact = "page_count" if document.status == IngestStatus.READY else "error_code"
    data = {"id": document.id, **place, fact: getattr(document, fact)}
    events.publish(db, f"{kind}.{document.status}", data)


def clear_passages(of: OfTenant, document_id: str) -> bool:
    """Take away what an earlier reading left, so that this one begins with nothing; False when it is gone."""
    with transaction(of) as db:
        there = _set(
            db,
            document_id,
            {
                "status": IngestStatus.PARSING,
                "progress": 0.0,
                "error_code": None,
                "error_detail": None,
                "chunk_count": 0,
                "layout": None,
            },
        )
        if there:
            for table in (Chunk, Posting):
                db.execute(remove(table).where(table.document_id == document_id))
        return there


def write_passages(
    of: OfTenant,
    document: Document,
    parsed: Parsed,
    postings: DocumentPostings,
    found: Mapping[str, Any],
    embedder: str | None,
) -> bool:
    """Make a document searchable by keyword, and promise its vectors; False when it is gone meanwhile.

    ``found`` is what the document says about itself; what a user gave stands above it. Without an
    ``embedder`` the document is ready. A large one is written in several steps, of which the last makes
    it searchable.
    """
    rows = [
        {"scope_id": document.scope_id, "term": term, "document_id": document.id, "entries": entries}
        for term, entries in sorted(postings.terms.items())
    ]
    steps = [rows[at : at + _ROWS] for at in range(0, len(rows), _ROWS)] or [[]]
    for step in steps[:-1]:
        with transaction(of) as db:
            if not _set(db, document.id, {}):
                return False
            _insert(db, Posting, step)
    with transaction(of) as db:
        row = db.scalar(select(Document).where(Document.id == document.id).with_for_update())
        if row is None:
            return False
        _insert(db, Posting, steps[-1])
        _insert(db, Chunk, [_chunk(of.tenant_id, document.id, passage) for passage in parsed.passages])
        row.attributes = {**found, **row.attributes}
        row.layout = postings.layout
        row.page_count = parsed.page_count
        row.media_type = parsed.media_type
        row.chunk_count = len(parsed.passages)
        row.vector_count = 0
        row.embedder = embedder
        row.parsed_at = now()
        row.status = IngestStatus.EMBEDDING if embedder else IngestStatus.READY
        row.progress = EMBEDDING_FROM if embedder else 1.0
        if embedder:
            queue.enqueue(db, EMBED, row.id, priority=SOON if row.session_id else THEN)
        else:
            _tell(db, row)
    return True


def place_of_vectors(document: Document, embedder: str) -> str:
    """The collection that holds a document's vectors."""
    return vectors.collection(document.tenant_id, document.index_id, embedder)


def _chunk(tenant_id: str, document_id: str, passage: Passage) -> dict[str, Any]:
    return {
        "tenant_id": tenant_id,
        "document_id": document_id,
        "position": passage.position,
        "unit": passage.unit,
        "page": passage.page,
        "sheet": passage.sheet and passage.sheet[:200],
        "cell": passage.cell and passage.cell[:50],
        "heading": passage.heading and passage.heading[:300],
        "start": passage.start,
        "end": passage.end,
        "text": passage.text,
        "context": passage.context,
    }


def _insert(db: Session, table: type[Base], rows: Sequence[dict[str, Any]]) -> None:
    """Add rows, few at a time: SQLite's driver lets no other thread of Python run before it is through."""
    for at in range(0, len(rows), _AT_ONCE):
        db.execute(insert(table), rows[at : at + _AT_ONCE])


def _set(db: Session, document_id: str, values: Mapping[str, Any]) -> bool:
    changed = update(Document).where(Document.id == document_id)
    done = db.execute(
        changed.values(updated_at=now(), **values), execution_options={"synchronize_session": False}
    )
    return bool(done.rowcount)  # type: ignore[attr-defined]  # an update's result has it
