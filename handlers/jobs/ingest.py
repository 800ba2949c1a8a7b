"""From a file to a document that is found by keyword."""

from __future__ import annotations

import time
from pathlib import PurePath

from sqlalchemy import select

from models.knowledge.keywords import document_postings
from models.knowledge.library import Document, IngestStatus
from models.knowledge.metadata import metadata_of
from storage import files, library, metrics, vectors
from storage.database import OfTenant, reading
from storage.embeddings import Unavailable
from storage.parsing import MEDIA_TYPES, ParseFailure, parse
from storage.queue import Released, Work

TOLD_SECONDS = 0.25
"""How often progress is written at most."""

_COVER_PAGES = 2


def run(work: Work) -> None:
    """Read the file and write its passages. Whatever an earlier try left half done is begun anew."""
    document = load(work)
    if document is None or document.status not in (IngestStatus.PENDING, IngestStatus.PARSING):
        return
    if not library.clear_passages(work, document.id):
        return
    try:
        parsed = parse(
            files.path_of(work.tenant_id, document.content_sha256),
            _readable(document),
            on_progress=Progress(work, 0.0, library.EMBEDDING_FROM),
        )
    except ParseFailure as failure:
        fail(work, failure.code, failure.detail)
        return
    postings = document_postings(parsed.passages)
    work.go_on()
    maker = vectors.embedder()
    found = metadata_of([unit.text for unit in parsed.units[:_COVER_PAGES]])
    named = None if isinstance(maker, Unavailable) else maker.name
    if library.write_passages(work, document, parsed, postings, found, named) and named is None:
        metrics.INGESTED.labels(IngestStatus.READY).inc()


def bury(work: Work) -> None:
    """The fault is ours, not the file's; its owner may ask for another try."""
    fail(work, "internal_error", "The server could not read this file. Try again, or tell its operator.")


def fail(work: Work, code: str, detail: str) -> None:
    """Tell the owner what is wrong with the file."""
    if library.settle(work, work.subject_id, IngestStatus.FAILED, error_code=code, error_detail=detail):
        metrics.INGESTED.labels(IngestStatus.FAILED).inc()


def load(work: OfTenant, document_id: str | None = None) -> Document | None:
    """The job's document, or None when it was deleted."""
    subject = document_id or getattr(work, "subject_id", None)
    with reading(work) as db:
        return db.scalar(select(Document).where(Document.id == subject))


def title_of(name: str) -> str:
    """A file's name as words."""
    return PurePath(name).stem.replace("_", " ")


def _readable(document: Document) -> str:
    """A name that ends in what the file is; its owner may call it anything, also later."""
    ending = PurePath(document.name).suffix.lstrip(".").lower()
    if MEDIA_TYPES.get(ending) == document.media_type:
        return document.name
    kinds = (ending for ending, kind in MEDIA_TYPES.items() if kind == document.media_type)
    return f"{document.name}.{next(kinds, '')}"


class Progress:
    """Writes how far a job is, now and then. A document that is gone ends the job."""

    def __init__(self, work: Work, low: float, high: float) -> None:
        self._work, self._low, self._high = work, low, high
        self._told = time.monotonic()

    def __call__(self, fraction: float, **also: int) -> None:
        """Tell a fraction of this job's part, 0 to 1."""
        self._work.go_on()
        if time.monotonic() - self._told < TOLD_SECONDS:
            return
        self._told = time.monotonic()
        done = round(self._low + (self._high - self._low) * fraction, 3)
        if not library.note(self._work, self._work.subject_id, progress=done, **also):
            raise Released
