"""From a document that is found by keyword to one that is found by meaning too."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from sqlalchemy import select

from handlers.jobs.ingest import Progress, load, title_of
from models.errors import Unavailable
from models.knowledge.library import Chunk, Document, IngestStatus
from storage import library, metrics, vectors
from storage.database import reading
from storage.embeddings import Embedder, EmbeddingFailure, OfflineEmbedder, Vectors
from storage.embeddings import Unavailable as NoEmbedder
from storage.queue import Released, Work

BATCH = 32
_NICENESS = 10
_WITHOUT = "Its passages are found by their words alone: "


def run(work: Work) -> None:
    """Make the vectors that are missing, batch by batch, from where the last try came to."""
    document = load(work)
    if document is None or document.status != IngestStatus.EMBEDDING:
        return
    maker = vectors.embedder()
    if isinstance(maker, NoEmbedder):
        _ready(work, 0, _WITHOUT + maker.reason)
        return
    place = library.place_of_vectors(document, maker.name)
    try:
        done = _make(work, document, maker, place)
    except Released:
        _leave_nothing_of_the_deleted(work, document, place)
        raise
    if done < document.chunk_count or not _ready(work, done):
        # Deleted, or being read anew, by another thread between our look and our writing.
        _leave_nothing_of_the_deleted(work, document, place)


def _make(work: Work, document: Document, maker: Embedder, place: str) -> int:
    """Make vectors until all are there, or no passage is; how many there are now."""
    done = _begin(work, document, maker)
    tell = Progress(work, library.EMBEDDING_FROM, 1.0)
    while done < document.chunk_count:
        work.go_on()
        passages = _passages(work, document, done)
        if not passages:
            break
        texts = [f"{title_of(document.name)} {context}\n{text}" for _, context, text in passages]
        made = _embedded(maker, texts)
        if load(work) is None:
            break
        vectors.upsert(place, document.id, [position for position, _, _ in passages], made)
        done = passages[-1][0] + 1
        tell(done / document.chunk_count, vector_count=done)
    return done


def _leave_nothing_of_the_deleted(work: Work, document: Document, place: str) -> None:
    if load(work) is None:
        vectors.remove(place, document.id)


def bury(work: Work) -> None:
    """The document stays what it is, found by its words."""
    _ready(work, None, _WITHOUT + "the embedding model failed.")


def _begin(work: Work, document: Document, maker: Embedder) -> int:
    """How many passages have their vectors. Those of an earlier reading, or another embedder, go first."""
    if document.embedder == maker.name and document.vector_count:
        return document.vector_count
    if document.embedder:
        vectors.remove(library.place_of_vectors(document, document.embedder), document.id)
    if not library.note(work, document.id, embedder=maker.name, vector_count=0):
        raise Released
    return 0


def _passages(work: Work, document: Document, start: int) -> list[tuple[int, str, str]]:
    with reading(work) as db:
        found = db.execute(
            select(Chunk.position, Chunk.context, Chunk.text)
            .where(Chunk.document_id == document.id, Chunk.position >= start)
            .order_by(Chunk.position)
            .limit(BATCH)
        )
        return [(position, context, text) for position, context, text in found]


def _ready(work: Work, count: int | None, detail: str | None = None) -> bool:
    counted = {} if count is None else {"vector_count": count}
    done = library.settle(
        work, work.subject_id, IngestStatus.READY, progress=1.0, error_detail=detail, **counted
    )
    if done:
        metrics.INGESTED.labels(IngestStatus.READY).inc()
    return done


def _embedded(maker: Embedder, texts: list[str]) -> Vectors:
    try:
        return _apart().submit(maker.embed, texts).result()
    except EmbeddingFailure as failure:
        if isinstance(maker, OfflineEmbedder):
            raise  # a model that cannot be loaded does not mend itself
        raise Unavailable(failure.detail) from failure


@cache
def _apart() -> ThreadPoolExecutor:
    """A thread of low priority, which only computes: chat comes first."""

    def lower() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)

    return ThreadPoolExecutor(1, thread_name_prefix="embed", initializer=lower)
