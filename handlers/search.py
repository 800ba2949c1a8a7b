"""Search over the knowledge that the caller reaches."""

from __future__ import annotations

from typing import Any

from handlers import reach
from handlers.auth import caller
from handlers.documents import check_vectors
from handlers.schemas.search import hit_of
from models.errors import Unavailable
from models.knowledge.library import Category, Document, KnowledgeIndex
from models.knowledge.relevance import DEFAULT_THRESHOLD
from storage import retrieval
from storage.database import Session, reading
from storage.retrieval import Found, Narrow

MAX_DOCUMENTS = 8


def run(body: dict[str, Any]) -> dict[str, Any]:
    """The passages that answer best; none, where nothing answers well enough."""
    mode = body.get("mode", "hybrid")
    with reading(caller()) as db:
        within, narrowed = reach.of_caller(db), _narrowed(db, body)
    found = retrieval.search(
        caller(),
        body["query"],
        reach=within,
        narrow=narrowed,
        limit=body.get("max_documents", MAX_DOCUMENTS),
        threshold=body.get("score_threshold", DEFAULT_THRESHOLD),
        mode=mode,
    )
    _check_vectors(found, mode)
    return {"results": [hit_of(hit) for hit in found.hits], "mode": found.mode, "took_ms": found.took_ms}


def _narrowed(db: Session, body: dict[str, Any]) -> Narrow:
    """The body's ids, each of something that the caller reaches."""
    kinds = (
        ("index_ids", KnowledgeIndex, reach.to_indices()),
        ("category_ids", Category, reach.to_categories()),
        ("document_ids", Document, reach.to_documents()),
    )
    return Narrow(
        **{
            name: reach.known(db, entity, body[name], reached, pointer=f"/{name}")
            for name, entity, reached in kinds
            if name in body
        }
    )


def _check_vectors(found: Found, mode: str) -> None:
    """Without an embedder the words alone answer, and `mode` says so; without the vector store, later."""
    if mode == "keyword":
        return
    if found.degraded and (found.away or mode == "vector"):
        raise Unavailable(found.degraded)
    if found.degraded or not found.searched:
        check_vectors()
