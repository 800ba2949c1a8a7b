"""What a host does to keep an installation in order: compare its stores, mend them, renew its secrets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import LargeBinary, Table, func, select

from models.knowledge.library import Chunk, Document, IngestStatus, Posting
from models.tenancy import Tenant
from models.work import Job, JobStatus
from storage import files, library, queue, secrets, vectors
from storage.database import Session, platform, tables
from storage.settings import settings

_SEALED = {("sign_ins", "seed"), ("signing_keys", "private_key")}


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two stores tell different things. ``document_id`` None: nothing in SQL knows of it."""

    what: str
    subject: str
    tenant_id: str | None = None
    document_id: str | None = None
    collection: str | None = None

    def __str__(self) -> str:
        return f"{self.what}: {self.subject}"


def differences(db: Session) -> Iterator[Difference]:
    """Every difference between SQL, originals, passages, keywords and vectors.

    Documents that a job is at work on are left out: theirs are on their way. Raises `VectorsUnavailable`.
    """
    held = _ours(db, vectors.holdings())
    busy = set(db.scalars(select(Job.subject_id).where(Job.status != JobStatus.DEAD)))
    chunks = dict(db.execute(select(Chunk.document_id, func.count()).group_by(Chunk.document_id)).all())
    worded = set(db.scalars(select(Posting.document_id).distinct()))
    known: set[tuple[str, str]] = set()
    for document in db.scalars(select(Document).order_by(Document.id)):
        of = {"tenant_id": document.tenant_id, "document_id": document.id}
        place = library.place_of_vectors(document, document.embedder) if document.embedder else None
        if place is not None:
            known.add((place, document.id))
        if document.id in busy:
            continue
        if not files.path_of(document.tenant_id, document.content_sha256).exists():
            yield Difference("original missing", document.id, **of)
        if document.status != IngestStatus.READY:
            continue
        if chunks.get(document.id, 0) != document.chunk_count:
            yield Difference("passages differ", document.id, **of)
        elif document.chunk_count and document.id not in worded:
            yield Difference("keywords missing", document.id, **of)
        elif place is not None and held.get(place, {}).get(document.id, 0) != document.vector_count:
            yield Difference("vectors differ", document.id, collection=place, **of)
    for name, documents in sorted(held.items()):
        for id in sorted(documents):
            if (name, id) not in known and id not in busy:
                yield Difference("vectors of no document", id, collection=name)
    for path in files.orphans(db):
        yield Difference("file of no document", str(path))


def _ours(db: Session, held: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Without what other installations keep on the same Chroma server."""
    if not settings().chroma_url:
        return held
    tenants = set(db.scalars(select(Tenant.id)))
    return {name: documents for name, documents in held.items() if name.partition(".")[0] in tenants}


def mend(found: list[Difference]) -> None:
    """Remove what nothing knows of; have what is missing made again from the original, by jobs.

    An original that is missing cannot be made again: its document is marked as failed.
    """
    for difference in found:
        if difference.what == "vectors of no document" and difference.collection is not None:
            vectors.remove(difference.collection, difference.subject)
    with platform() as db:
        for path in files.orphans(db):
            path.unlink(missing_ok=True)
        for difference in found:
            if difference.document_id is None:
                continue
            document = db.get(Document, difference.document_id)
            if document is None:
                continue
            if difference.what == "original missing":
                _give_up(document)
            elif document.status != IngestStatus.FAILED:
                _make_again(db, document, words_too=difference.what != "vectors differ")


def _give_up(document: Document) -> None:
    if document.status != IngestStatus.READY:
        document.status = IngestStatus.FAILED
    document.error_code, document.error_detail = "internal_error", "The original is no longer there."


def _make_again(db: Session, document: Document, *, words_too: bool) -> None:
    document.vector_count = 0
    document.status = IngestStatus.PENDING if words_too else IngestStatus.EMBEDDING
    document.progress = 0.0 if words_too else library.EMBEDDING_FROM
    kind = library.INGEST if words_too else library.EMBED
    queue.enqueue(db, kind, document.id, tenant_id=document.tenant_id)


def reseal() -> int:
    """Encrypt all that is sealed with the newest secret, in one transaction; how many values that were.

    Raises ``cryptography.fernet.InvalidToken`` where none of the installation's secrets fits.
    """
    count = 0
    with platform() as db:
        for table in tables():
            for column in table.c:
                if isinstance(column.type, LargeBinary) and _is_sealed(table, column.name):
                    count += _reseal(db, table, column)
    return count


def _is_sealed(table: Table, column: str) -> bool:
    return column.startswith("sealed_") or (table.name, column) in _SEALED


def _reseal(db: Session, table: Table, column: Any) -> int:
    key = table.c.id if "id" in table.c else [*table.primary_key][0]
    rows = db.execute(select(key, column).where(column.is_not(None)).with_for_update()).all()
    kept = {table.c.updated_at.name: table.c.updated_at} if "updated_at" in table.c else {}
    for id, sealed in rows:
        db.execute(table.update().where(key == id).values(**{column.name: secrets.reseal(sealed)}, **kept))
    return len(rows)
