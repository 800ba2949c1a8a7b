"""Documents that go, with all that was made of them, down to the bytes on disk."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, update

from models.chat.conversations import ChatMessage, Citation
from models.knowledge.library import Chunk, Document
from storage import files, queue, vectors
from storage.database import OfTenant, Session, engine, transaction
from storage.library.making import place_of_vectors
from storage.library.promises import EMBED, FIRST, FORGET, INGEST

_BATCH = 200
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
        queue.enqueue(db, FORGET, document.id, details=left, priority=FIRST)
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
