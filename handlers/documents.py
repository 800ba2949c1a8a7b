"""Documents of indices: a file, a text or what stands at a web address, read in the background."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, BinaryIO

import orjson
from sqlalchemy import delete as remove
from sqlalchemy import select

from handlers import reach
from handlers.auth import caller
from handlers.replies import Listing, Paging, StoredFile, Upload, created
from handlers.requests import Replay
from handlers.schemas import documents as wire
from models.base import now
from models.errors import Conflict, NotFound, RuleBroken, Unavailable
from models.knowledge.library import Category, Document, DocumentCategory, IngestStatus, KnowledgeIndex
from storage import audit, files, library, outbound, vectors
from storage.database import Session, reading, transaction
from storage.outbound import OutboundRefused
from storage.parsing import MEDIA_TYPES
from storage.threads import in_thread

LIMIT = 52_428_800
"""The largest original, in bytes; the spec's ``x-max-body-bytes`` leaves room for the form around it."""

ORDERINGS = {
    "created_at": Document.created_at,
    "updated_at": Document.updated_at,
    "name": Document.name,
    "size": Document.size,
}
COLUMNS = (
    "id",
    "name",
    "index_id",
    "status",
    "error_code",
    "content_sha256",
    "media_type",
    "size",
    "page_count",
    "chunk_count",
    "vector_count",
    "metadata",
    "created_at",
    "updated_at",
)
TEXT = "text/plain"
Answer = tuple[Any, int, dict[str, str]]


def list(
    paging: Paging, index_id: str | None = None, category_id: str | None = None, status: str | None = None
) -> Listing:
    """The documents that the caller reaches."""
    query = select(Document).where(reach.to_documents())
    with reading(caller()) as db:
        if index_id:
            reach.require(db, KnowledgeIndex, index_id, reach.to_indices(), parameter="index_id")
        if category_id:
            reach.require(db, Category, category_id, reach.to_categories(), parameter="category_id")
    if index_id:
        query = query.where(Document.index_id == index_id)
    if category_id:
        labelled = select(DocumentCategory.document_id).where(DocumentCategory.category_id == category_id)
        query = query.where(Document.id.in_(labelled))
    if status:
        query = query.where(Document.status == status)
    return Listing(
        query,
        wire.show,
        paging,
        ORDERINGS,
        Document.id,
        caller(),
        searched=(Document.name,),
        columns=COLUMNS,
    )


async def create(
    body: dict[str, Any] | None = None,
    file: Upload | None = None,
    index_id: str | None = None,
    category_ids: Any = None,
    name: str | None = None,
    replay: Replay | None = None,
) -> Answer:
    """Add a document, or find the one that has the same content already.

    Not a plain function, since those answer an ``Idempotency-Key`` within one transaction, and nobody else
    should wait while a web address is asked.
    """
    if file is not None:
        body = {"index_id": index_id, "name": name, "category_ids": category_ids or []}
    return await in_thread(_create, _Draft.of(body or {}, file), replay)


def get(id: str) -> dict[str, Any]:
    """The document's record."""
    with reading(caller()) as db:
        return wire.show(reach.require(db, Document, id, reach.to_documents()))


def update(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Correct what came; of the metadata, too."""
    with transaction(caller()) as db:
        document = reach.require(db, Document, id, reach.to_documents(), lock=True)
        before = wire.show(document)
        if "category_ids" in body:
            labels = reach.known(
                db, Category, body["category_ids"], reach.to_categories(), pointer="/category_ids"
            )
            held = [category.id for category in document.categories]
            audit.mention(db, document, "category_ids", held, set(labels))
            db.execute(remove(DocumentCategory).where(DocumentCategory.document_id == document.id))
            db.add_all(DocumentCategory(document_id=document.id, category_id=label) for label in labels)
        document.name = body.get("name", document.name)
        document.attributes = {**document.attributes, **body.get("metadata", {})}
        db.flush()
        db.refresh(document, ["categories"])
        if wire.show(document) != before:
            document.updated_at = now()  # categories are rows of another table
            db.flush()
        return wire.show(document)


def delete(id: str) -> dict[str, Any]:
    """Remove the document and all that was made of it."""
    with transaction(caller()) as db:
        document = reach.require(db, Document, id, reach.to_documents(), lock=True)
        return removal(library.delete_document(db, document))


def content(id: str) -> StoredFile:
    """The original, to whoever may read the document or the session that it belongs to."""
    with reading(caller()) as db:
        document = reach.require(db, Document, id, reach.to_documents() | reach.to_files())
    path = files.path_of(document.tenant_id, document.content_sha256)
    if not path.exists():
        raise NotFound("The original is no longer there.")
    return StoredFile(path, document.media_type, document.name, document.content_sha256)


def retry(id: str) -> tuple[dict[str, Any], int]:
    """Read a failed document anew."""
    with transaction(caller()) as db:
        document = reach.require(db, Document, id, reach.to_documents(), lock=True)
        again(db, document)
        return wire.show(document), 202


def again(db: Session, document: Document) -> None:
    """Promise another reading of a file that could not be read."""
    if document.status != IngestStatus.FAILED:
        raise Conflict("Only what has failed can be tried again.")
    library.read_again(db, document)
    db.flush()


def removal(removed: library.Removed) -> dict[str, Any]:
    """What went with a file, as the contract tells it."""
    return {"vectors_removed": removed.vectors, "chunks_removed": removed.chunks}


def file_name(upload: Upload) -> str:
    """The name of an upload, without any folders; refused unless its ending is of a kind that can be read."""
    name = PurePath(upload.name.replace("\\", "/")).name
    if media_type_of(name) is None:
        raise RuleBroken(f"Only these can be read: {', '.join(MEDIA_TYPES)}.", pointer="/file")
    ending = PurePath(name).suffix
    return name if len(name) <= 300 else name[: 300 - len(ending)] + ending


def media_type_of(name: str) -> str | None:
    """What a file's ending says, or None for what cannot be read."""
    return MEDIA_TYPES.get(PurePath(name).suffix.lstrip(".").lower())


def check_vectors() -> None:
    """Take no file while its vectors could not be kept."""
    health = vectors.health()
    if not health.ok:
        raise Unavailable(f"The vector store is away: {health.detail}.")


@dataclass(slots=True)
class _Draft:
    """A document as it was asked for."""

    index_id: str
    name: str | None
    category_ids: Any
    attributes: dict[str, Any] = field(default_factory=dict)
    file: Upload | None = None
    text: str | None = None
    url: str | None = None

    @classmethod
    def of(cls, body: dict[str, Any], file: Upload | None) -> _Draft:
        return cls(
            body["index_id"],
            body["name"],
            body.get("category_ids", []),
            body.get("metadata", {}),
            file,
            body.get("text"),
            body.get("url"),
        )

    def check(self, db: Session) -> None:
        """Refuse what refers to nothing, before a byte is moved."""
        db.require(KnowledgeIndex, self.index_id, pointer="/index_id")
        self.category_ids = reach.known(
            db, Category, self.category_ids, reach.to_categories(), pointer="/category_ids"
        )

    @contextmanager
    def opened(self) -> Iterator[tuple[BinaryIO, str, str]]:
        """Its bytes, its name and its media type."""
        if self.file is not None:
            name = file_name(self.file)
            yield self.file.file, self.name or name, MEDIA_TYPES[PurePath(name).suffix[1:].lower()]
        elif self.text is not None:
            name = self.name or ""
            kind = media_type_of(name) or TEXT
            yield io.BytesIO(self.text.encode()), name, kind if kind.startswith("text/") else TEXT
        else:
            with tempfile.TemporaryFile() as copy:
                kind = _fetch(self.url or "", copy)
                copy.seek(0)
                yield copy, self.name or "", kind


def _fetch(url: str, into: BinaryIO) -> str:
    """Get what stands at a web address; its media type, by its server's word or by the address's ending."""
    try:
        found = outbound.fetch(url, into, limit=LIMIT)
    except OutboundRefused as fault:
        fault.pointer = "/url"
        raise
    if found.media_type in MEDIA_TYPES.values() and found.media_type != TEXT:
        return found.media_type
    ending = media_type_of(found.name)
    if ending is None and found.media_type != TEXT:
        raise OutboundRefused(
            f"What stands there cannot be read ({found.media_type[:100] or 'no media type'}).", pointer="/url"
        )
    return ending or TEXT


def _create(draft: _Draft, replay: Replay | None) -> Answer:
    with transaction(caller()) as db:
        first = replay.answered(db) if replay else None
        if first is not None:
            return first
        draft.check(db)
    check_vectors()
    with (
        draft.opened() as (source, name, media_type),
        files.receiving(caller(), source, limit=LIMIT) as incoming,
        transaction(caller()) as db,
    ):
        draft.check(db)
        document, is_new = library.add_document(
            db,
            incoming,
            name=name,
            media_type=media_type,
            index_id=draft.index_id,
            user_id=caller().user_id,
            category_ids=draft.category_ids,
            attributes=draft.attributes,
        )
        body, status, headers = created(
            wire.show(document), f"/api/v1/chat/knowledge/documents/{document.id}"
        )
        status = status if is_new else 200
        if replay:
            replay.keep(db, status, headers, orjson.dumps(body))
        return body, status, headers
