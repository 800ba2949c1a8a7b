"""From a question to the passages that answer it, within what the asker may read and nowhere else."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cache
from threading import Lock
from typing import Any, cast

from sqlalchemy import ColumnElement, Select, Table, and_, bindparam, false, or_, select
from sqlalchemy.orm import aliased

from models.knowledge import expansion, relevance
from models.knowledge.expansion import AnalysedQuery
from models.knowledge.keywords import Layout, terms_needed
from models.knowledge.library import Chunk, Document, DocumentCategory, IngestStatus, Posting
from models.knowledge.ranking import DocumentView, Method, Mode, Ranked, VectorHit, rank
from storage import vectors
from storage.database import OfTenant, Session, reading
from storage.embeddings import EmbeddingFailure, Unavailable, Vectors
from storage.vectors import VectorsUnavailable

NEAREST = 100
"""How many passages the vector store is asked for."""

_CACHED_BYTES = 64 * 1024**2
_MOST_IDS = 500
"""More documents than this are not named one by one in a query: all of their index is read, and sorted
out here.
"""


@dataclass(frozen=True, slots=True)
class Reach:
    """What may be read: the documents of these indices, and those with one of these categories."""

    everything: bool = False
    index_ids: Sequence[str] = ()
    category_ids: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Narrow:
    """What the asker wants to hear of within its reach; None: no matter."""

    index_ids: Sequence[str] | None = None
    category_ids: Sequence[str] | None = None
    document_ids: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that answers. ``quote`` stands on its page letter for letter, from ``start`` to ``end``."""

    number: int
    index_id: str | None
    document_id: str
    document_name: str
    page: int | None
    sheet: str | None
    cell: str | None
    heading: str | None
    start: int
    end: int
    quote: str
    content_sha256: str
    score: float
    scores: Mapping[str, float]
    reasons: Sequence[str]


@dataclass(frozen=True, slots=True)
class Found:
    """The hits, best first, and how they were found.

    ``mode`` is the one really used; ``degraded`` says why vectors had no part in it, and ``away``
    whether that is because the vector store does not answer. ``searched`` is False where nothing was in
    reach. Times are milliseconds.
    """

    hits: list[Hit]
    mode: Mode
    searched: bool
    degraded: str | None
    took_ms: float
    away: bool = False
    timings: dict[str, float] = field(default_factory=dict)
    query: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Known:
    """What a search needs to know of a document before it looks inside."""

    id: str
    scope_id: str
    index_id: str | None
    name: str
    content_sha256: str
    attributes: dict[str, Any]
    embedder: str | None
    vector_count: int
    parsed_at: datetime | None


@cache
def prepare() -> None:
    """Load in the background what the first question would wait for, once; returns at once."""
    vectors.prepare()
    maker = vectors.embedder()
    if not isinstance(maker, Unavailable):
        _pool().submit(maker.embed, ["ready"])


def search(
    of: OfTenant,
    question: str,
    *,
    reach: Reach,
    narrow: Narrow | None = None,
    session_id: str | None = None,
    limit: int = 10,
    threshold: float | None = None,
    mode: Mode = "hybrid",
    expand: bool = True,
    method: Method | None = None,
) -> Found:
    """The passages that answer ``question``, at most ``limit``, one for each page.

    Only what ``reach`` and ``narrow`` leave is looked at, and what ``session_id``'s session was given;
    statistics are counted over that alone. Where vectors cannot be used the search goes on without them
    and says so, except in the mode ``vector``, which has nothing else. ``expand`` and ``method`` leave parts
    of the ranking out, to see what they are worth.
    """
    clock = _Clock()
    narrow = narrow or Narrow()
    query = expansion.analyse(question, expand=expand)
    maker = None if mode == "keyword" else vectors.embedder()
    degraded = maker.reason if isinstance(maker, Unavailable) else None
    asked: Future[Vectors] | None = None
    if maker is not None and not isinstance(maker, Unavailable):
        asked = _pool().submit(maker.embed, [query.vector_text])  # while SQL is asked
    with reading(of) as db:
        known = _in_reach(db, reach, narrow, session_id)
        clock.lap("scope_ms")
        views = _views(db, known, query, getattr(maker, "name", None)) if known else {}
        clock.lap("keywords_ms")
    # No connection is held while others are waited for.
    near: list[VectorHit] = []
    away = False
    if asked is not None and maker is not None and not isinstance(maker, Unavailable):
        within = _collections(of, known, maker.name, reach, narrow)
        if within:
            try:
                near = _near(within, views, asked, clock)
            except (VectorsUnavailable, EmbeddingFailure) as fault:
                degraded, away = fault.detail, isinstance(fault, VectorsUnavailable)
    used: Mode = mode if degraded is None else "keyword"
    ranked: list[Ranked] = []
    if not (mode == "vector" and degraded):
        ranked = rank(
            query,
            views,
            near,
            used,
            limit,
            threshold=relevance.DEFAULT_THRESHOLD if threshold is None else threshold,
            method=method,
        )
    clock.lap("ranking_ms")
    hits: list[Hit] = []
    if ranked:
        with reading(of) as db:
            hits = _hits(db, known, ranked)
    clock.lap("passages_ms")
    return Found(
        hits=hits,
        mode=used,
        searched=bool(known),
        degraded=degraded,
        took_ms=clock.total(),
        away=away,
        timings=clock.laps,
        query=_told(query, known),
    )


def pages(of: OfTenant, passages: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """The text around numbered passages: all of the page that each stands on, its title lines first.

    Of a document without pages, the passage and its neighbours. What was deleted is left out.
    """
    beside = aliased(Chunk)
    wanted = or_(
        *(
            and_(Chunk.document_id == passage["document_id"], Chunk.start == passage["start"], at)
            for passage in passages
            for at in [Chunk.page == passage["page"] if passage["page"] else Chunk.sheet == passage["sheet"]]
        )
    )
    same = and_(
        beside.document_id == Chunk.document_id,
        beside.unit == Chunk.unit,
        or_(Chunk.page.is_not(None), beside.position.between(Chunk.position - 1, Chunk.position + 1)),
    )
    found: dict[tuple[str, int | None, str | None, int], list[str]] = {}
    query = select(Chunk.document_id, Chunk.page, Chunk.sheet, Chunk.start, Chunk.context, beside.text).join(
        beside, same
    )
    with reading(of) as db:
        for row in db.execute(query.where(wanted).order_by(beside.document_id, beside.position)):
            place = (row.document_id, row.page, row.sheet, row.start)
            found.setdefault(place, [row.context]).append(row.text)
    places = {p["number"]: (p["document_id"], p["page"], p["sheet"], p["start"]) for p in passages}
    return {number: "\n".join(found[place]) for number, place in places.items() if place in found}


_DOCUMENTS, _LABELS = cast(Table, Document.__table__).c, cast(Table, DocumentCategory.__table__).c
_POSTINGS, _CHUNKS = cast(Table, Posting.__table__).c, cast(Table, Chunk.__table__).c


def _any_of(column: ColumnElement[str], name: str) -> ColumnElement[bool]:
    return column.in_(bindparam(name, expanding=True))


def _in_reach(db: Session, reach: Reach, narrow: Narrow, session_id: str | None) -> dict[str, _Known]:
    """The searchable documents of this search, by id."""
    given = {
        "tenant_id": db.tenant_id,
        "index_ids": list(reach.index_ids) or None,
        "category_ids": list(reach.category_ids) or None,
        "only_indices": narrow.index_ids,
        "only_documents": narrow.document_ids,
        "only_categories": narrow.category_ids,
        "session_id": session_id,
    }
    given = {name: value for name, value in given.items() if value is not None}
    rows = db.connection().execute(_reached(reach.everything, frozenset(given)), given)
    return {row.id: _Known(*row) for row in rows}


@cache
def _reached(everything: bool, given: frozenset[str]) -> Select[Any]:
    """The query for the documents that the given parameters leave.

    This and those below are in SQLAlchemy Core, made once: that halves what a search spends on SQL here.
    """
    places = and_(
        _allowed(everything, given),
        *(
            condition
            for name, condition in (
                ("only_indices", _any_of(_DOCUMENTS.index_id, "only_indices")),
                ("only_documents", _any_of(_DOCUMENTS.id, "only_documents")),
                ("only_categories", _with_category("only_categories")),
            )
            if name in given
        ),
    )
    if "session_id" in given:
        places = or_(places, _DOCUMENTS.session_id == bindparam("session_id"))
    return (
        select(*(_DOCUMENTS[known.name] for known in fields(_Known)))
        .where(
            _DOCUMENTS.tenant_id == bindparam("tenant_id"),
            places,
            _DOCUMENTS.status.in_((IngestStatus.EMBEDDING, IngestStatus.READY)),
        )
        .order_by(_DOCUMENTS.id)
    )


def _allowed(everything: bool, given: frozenset[str]) -> ColumnElement[bool]:
    if everything:
        return _DOCUMENTS.index_id.is_not(None)
    ways: list[ColumnElement[bool]] = []
    if "index_ids" in given:
        ways.append(_any_of(_DOCUMENTS.index_id, "index_ids"))
    if "category_ids" in given:
        ways.append(and_(_DOCUMENTS.index_id.is_not(None), _with_category("category_ids")))
    return or_(*ways) if ways else false()


def _with_category(name: str) -> ColumnElement[bool]:
    return _DOCUMENTS.id.in_(select(_LABELS.document_id).where(_any_of(_LABELS.category_id, name)))


@cache
def _rows_of_terms(by_document: bool) -> Select[Any]:
    """The query for the rows of terms in scopes; of all documents there, or of those named."""
    query = select(_POSTINGS.document_id, _POSTINGS.term, _POSTINGS.entries).where(
        _any_of(_POSTINGS.scope_id, "scopes"), _any_of(_POSTINGS.term, "terms")
    )
    return query.where(_any_of(_POSTINGS.document_id, "ids")) if by_document else query


@cache
def _passages_of(documents: int) -> Select[Any]:
    """The query for passages of so many documents: SQLite finds no index for pairs of id and position."""
    places = [
        and_(
            _CHUNKS.document_id == bindparam(f"id{number}"),
            _CHUNKS.position.in_(bindparam(f"positions{number}", expanding=True)),
        )
        for number in range(documents)
    ]
    return select(
        _CHUNKS.document_id,
        _CHUNKS.position,
        _CHUNKS.page,
        _CHUNKS.sheet,
        _CHUNKS.cell,
        _CHUNKS.heading,
        _CHUNKS.start,
        _CHUNKS.end,
        _CHUNKS.text,
    ).where(_CHUNKS.tenant_id == bindparam("tenant_id"), or_(*places))


def _views(
    db: Session, known: Mapping[str, _Known], query: AnalysedQuery, embedder: str | None
) -> dict[str, DocumentView]:
    """What ranking needs of each document: its layout, and its rows of the question's terms."""
    postings: dict[str, dict[str, bytes]] = {id: {} for id in known}
    terms = list(terms_needed(query))
    if terms:
        by_document = len(known) <= _MOST_IDS
        wanted = {"scopes": list({document.scope_id for document in known.values()}), "terms": terms}
        if by_document:
            wanted["ids"] = list(known)
        for document_id, term, entries in db.connection().execute(_rows_of_terms(by_document), wanted):
            if document_id in postings:
                postings[document_id][term] = entries
    layouts = _layouts.of(db, known)
    return {
        id: DocumentView(
            layouts[id],
            postings[id],
            document.attributes,
            document.vector_count if document.embedder == embedder else 0,
        )
        for id, document in known.items()
        if id in layouts
    }


def _collections(
    of: OfTenant, known: Mapping[str, _Known], embedder: str, reach: Reach, narrow: Narrow
) -> dict[str, Sequence[str] | None]:
    """Where to look for vectors, and for which documents; None is all of an index, which is quicker."""
    ids: dict[str | None, list[str]] = {}
    for document in known.values():
        if document.embedder == embedder:
            ids.setdefault(document.index_id, []).append(document.id)
    unnarrowed = narrow.category_ids is None and narrow.document_ids is None
    whole = {
        index_id for index_id in ids if unnarrowed and (reach.everything or index_id in reach.index_ids)
    } - {None}
    return {
        vectors.collection(of.tenant_id, index_id, embedder): None if index_id in whole else named
        for index_id, named in ids.items()
    }


def _near(
    within: Mapping[str, Sequence[str] | None],
    views: Mapping[str, DocumentView],
    asked: Future[Vectors],
    clock: _Clock,
) -> list[VectorHit]:
    """The passages near the question."""
    try:
        vector = asked.result()[0]
        clock.lap("embedding_ms")
        near = vectors.nearest(within, vector, NEAREST)
    finally:
        clock.lap("vectors_ms")
    # A vector may outlive its passage for a moment: of a document deleted, or read anew and shorter now.
    sizes = {id: len(view.layout.page_of) for id, view in views.items()}
    return [hit for hit in near if hit.position < sizes.get(hit.document_id, 0)]


def _hits(db: Session, known: Mapping[str, _Known], ranked: Sequence[Ranked]) -> list[Hit]:
    """The passages themselves; what was deleted meanwhile is not among them."""
    positions: dict[str, list[int]] = {}
    for hit in ranked:
        positions.setdefault(hit.document_id, []).append(hit.position)
    wanted: dict[str, Any] = {"tenant_id": db.tenant_id}
    for number, (id, at) in enumerate(positions.items()):
        wanted |= {f"id{number}": id, f"positions{number}": at}
    rows = db.connection().execute(_passages_of(len(positions)), wanted)
    chunks = {(chunk.document_id, chunk.position): chunk for chunk in rows}
    hits: list[Hit] = []
    for found in ranked:
        chunk = chunks.get((found.document_id, found.position))
        if chunk is None:
            continue
        document = known[found.document_id]
        hits.append(
            Hit(
                number=len(hits) + 1,
                index_id=document.index_id,
                document_id=document.id,
                document_name=document.name,
                page=chunk.page,
                sheet=chunk.sheet,
                cell=chunk.cell,
                heading=chunk.heading,
                start=chunk.start,
                end=chunk.end,
                quote=chunk.text,
                content_sha256=document.content_sha256,
                score=round(found.score, 4),
                scores=dict(found.scores),
                reasons=list(found.reasons),
            )
        )
    return hits


def _told(query: AnalysedQuery, known: Mapping[str, _Known]) -> dict[str, Any]:
    """How the question was read, for whoever asks why."""
    return {
        "terms": sorted(query.asked),
        "expansions": {
            term: round(weight, 3) for term, weight in sorted(query.terms.items()) if term not in query.asked
        },
        "statements": sorted(query.statements),
        "years": sorted(query.years),
        "vector_text": query.vector_text,
        "documents": len(known),
    }


class _Clock:
    """Milliseconds, lap by lap."""

    def __init__(self) -> None:
        self._begun = self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """Note the time since the last lap."""
        at = time.perf_counter()
        self.laps[name] = round((at - self._last) * 1000, 2)
        self._last = at

    def total(self) -> float:
        """The time since the start."""
        return round((time.perf_counter() - self._begun) * 1000, 2)


class _Layouts:
    """Layouts by document and reading, the least used going first once they take too many bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: OrderedDict[tuple[str, datetime | None], tuple[Layout, int]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def of(self, db: Session, known: Mapping[str, _Known]) -> dict[str, Layout]:
        """The layouts of these documents; one that lost its own meanwhile is left out."""
        found: dict[str, Layout] = {}
        with self._lock:
            for id, document in known.items():
                held = self._held.get((id, document.parsed_at))
                if held is not None:
                    self._held.move_to_end((id, document.parsed_at))
                    found[id] = held[0]
        missing = [id for id in known if id not in found]
        for at in range(0, len(missing), _MOST_IDS):
            rows = db.execute(
                select(Document.id, Document.layout).where(Document.id.in_(missing[at : at + _MOST_IDS]))
            )
            for id, stored in rows:
                if stored is not None:
                    found[id] = Layout.from_bytes(stored)
                    self._keep((id, known[id].parsed_at), found[id], len(stored))
        return found

    def _keep(self, key: tuple[str, datetime | None], layout: Layout, size: int) -> None:
        with self._lock:
            if key not in self._held:
                self._held[key] = layout, size
                self._bytes += size
            while self._bytes > self._most:
                _, (_, freed) = self._held.popitem(last=False)
                self._bytes -= freed


_layouts = _Layouts(_CACHED_BYTES)


@cache
def _pool() -> ThreadPoolExecutor:
    """Where questions are embedded, while SQL is asked."""
    return ThreadPoolExecutor(4, thread_name_prefix="question")
