"""Documents and all that is made of them, written and forgotten as one: rows, postings, vectors, the file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete as remove
from sqlalchemy import func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from models.base import Base, now
from models.chat.conversations import ChatMessage, Citation
from models.knowledge.keywords import DocumentPostings
from models.knowledge.library import Chunk, Document, DocumentCategory, IngestStatus, Posting
from models.knowledge.passages import Parsed, Passage
from storage import events, files, queue, quotas, vectors
from storage.database import OfTenant, Session, engine, transaction

INGEST, EMBED, FORGET = "ingest", "embed", "forget"
"""Kinds of jobs: read a document, make its vectors, remove what deleted documents left outside of SQL."""

_FIRST, _SOON, _THEN, _LAST = 1, 3, 5, 7
_ROWS = 20_000
"""How many postings are written at once: other writers wait for as long as that takes."""
_BATCH = 200
_AT_ONCE = 250
_PATIENCE_MS = 500
_QUOTED = re.compile(r"“([^”]+)”")


@dataclass(frozen=True, slots=True)
class Removed:
    """How much a deletion took away."""

    vectors: int = 0
    chunks: int = 0

    def __add__(self, other: Removed) -> Removed:
        """Both."""
        return Removed(self.vectors + other.vectors, self.chunks + other.chunks)


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
    queue.enqueue(db, INGEST, document.id, priority=_SOON if session_id else _THEN)
    db.refresh(document, ["categories"])
    return document, True


def read_again(db: Session, document: Document) -> None:
    """Promise to read a document anew, from its file on."""
    document.status, document.progress = IngestStatus.PENDING, 0.0
    document.error_code = document.error_detail = None
    queue.cancel(db, EMBED, document.id)
    queue.enqueue(db, INGEST, document.id, priority=_SOON if document.session_id else _THEN)


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
            priority=_LAST,
        )
    return len(documents)


# ---- What the jobs write ----


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


SETTLED = (IngestStatus.READY, IngestStatus.FAILED)


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
            queue.enqueue(db, EMBED, row.id, priority=_SOON if row.session_id else _THEN)
        else:
            _tell(db, row)
    return True


EMBEDDING_FROM = 0.3
"""A document's progress once it is found by keyword, while its vectors are yet to come."""


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


# ---- Forgetting ----


def delete_document(db: Session, document: Document) -> Removed:
    """Forget a document: rows, keywords, vectors, its words in old messages; its file once this commits.

    Raises `VectorsUnavailable` while Chroma is away; nothing is deleted then.
    """
    return _delete(db, [document])


def delete_session_files(db: Session, session_id: str) -> Removed:
    """Forget all files of a session, which is about to be deleted."""
    return _delete(db, db.scalars(select(Document).where(Document.session_id == session_id)).all())


def delete_index(db: Session, index_id: str) -> Removed:
    """Forget an index with all its documents."""
    documents = db.scalars(select(Document).where(Document.index_id == index_id)).all()
    removed = _delete(db, documents, vectors_too=False)
    db.flush()
    dropped = 0
    if any(document.embedder for document in documents):
        dropped = vectors.drop(_tenant(db), index_id)
    return Removed(dropped, removed.chunks)


def _tenant(db: Session) -> str:
    if db.tenant_id is None:
        raise RuntimeError("documents are deleted in a tenant's transaction")
    return db.tenant_id


def _delete(db: Session, documents: Sequence[Document], *, vectors_too: bool = True) -> Removed:
    if not documents:
        return Removed()
    ids = [document.id for document in documents]
    chunks = 0
    for at in range(0, len(ids), _BATCH):
        batch = ids[at : at + _BATCH]
        chunks += db.scalar(select(func.count()).where(Chunk.document_id.in_(batch))) or 0
        _blank_quotes(db, batch)
    for document in documents:
        for kind in (INGEST, EMBED):
            queue.cancel(db, kind, document.id)
        left = {"sha256": document.content_sha256, "collection": None}
        if document.embedder:
            left["collection"] = place_of_vectors(document, document.embedder)
        queue.enqueue(db, FORGET, document.id, details=left, priority=_FIRST)
        db.delete(document)
    # All that SQL could object to comes before what cannot be taken back.
    db.flush()
    gone = 0
    if vectors_too:
        for document in documents:
            if document.embedder:
                gone += vectors.remove(place_of_vectors(document, document.embedder), document.id)
    return Removed(gone, chunks)


def forget_rest(of: OfTenant, document_id: str, left: Mapping[str, Any]) -> bool:
    """Remove what a deleted document may have left outside of SQL; True when all is gone.

    False asks for another call soon: somebody still reads an old state of the database.
    """
    if left["collection"]:
        vectors.remove(left["collection"], document_id)
    with transaction(of) as db:
        files.discard(db, of.tenant_id, left["sha256"])
    return compact()


def compact() -> bool:
    """Have SQLite's log written into its file and cut, so that what was deleted is in neither.

    The file itself is overwritten as rows are deleted (``secure_delete``). False while a reader is in
    the way.
    """
    if engine().dialect.name != "sqlite":
        return True
    connection = engine().raw_connection()
    try:
        cursor = connection.cursor()
        waits = cursor.execute("PRAGMA busy_timeout").fetchone()[0]
        cursor.execute(f"PRAGMA busy_timeout={_PATIENCE_MS}")
        busy = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        cursor.execute(f"PRAGMA busy_timeout={waits}")
        return not busy
    finally:
        connection.close()


def _blank_quotes(db: Session, document_ids: Sequence[str]) -> None:
    """Take the documents' words out of citations, and out of replies that quote them."""
    for message, quotes in _quoting(db, document_ids):
        message.content = _QUOTED.sub(
            lambda found, quotes=quotes: "“…”" if _stands_in(found[1], quotes) else found[0],  # type: ignore[misc]  # mypy: lambda defaults
            message.content,
        )
    db.flush()
    db.execute(
        update(Citation).where(Citation.document_id.in_(document_ids)).values(quote="", heading=None),
        execution_options={"synchronize_session": False},
    )


def _quoting(db: Session, document_ids: Sequence[str]) -> Iterator[tuple[ChatMessage, list[str]]]:
    cited = db.execute(
        select(Citation.message_id, Citation.quote).where(Citation.document_id.in_(document_ids))
    )
    quotes: dict[str, list[str]] = {}
    for message_id, quote in cited:
        quotes.setdefault(message_id, []).append(quote)
    for message_id, of_message in quotes.items():
        message = db.get(ChatMessage, message_id)
        if message is not None:
            yield message, of_message


def _stands_in(words: str, quotes: Iterable[str]) -> bool:
    return any(words in quote for quote in quotes)
