"""Knowledge indices: collections of documents that personas are given as a whole."""

from __future__ import annotations

from typing import Any

from handlers import reach, shelves
from handlers.auth import caller
from handlers.replies import Listing, Paging, created
from handlers.schemas import indices as wire
from models.knowledge.library import Document, KnowledgeIndex
from storage import library
from storage.database import reading, transaction

PLACE = Document.index_id


def list(paging: Paging) -> Listing:
    """The indices that the caller reaches."""
    return shelves.listing(KnowledgeIndex, reach.to_indices(), wire.dump, PLACE, paging)


def create(body: dict[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Make a place for documents."""
    with transaction(caller()) as db:
        index = KnowledgeIndex()
        shelves.put(db, index, body)
        return created(
            shelves.show(db, wire.dump, index, PLACE), f"/api/v1/chat/knowledge/indices/{index.id}"
        )


def get(id: str) -> dict[str, Any]:
    """The index as it stands."""
    with reading(caller()) as db:
        index = reach.require(db, KnowledgeIndex, id, reach.to_indices())
        return shelves.show(db, wire.dump, index, PLACE)


def update(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Set the fields that came."""
    with transaction(caller()) as db:
        index = db.require(KnowledgeIndex, id, lock=True)
        shelves.put(db, index, body)
        return shelves.show(db, wire.dump, index, PLACE)


def delete(id: str) -> None:
    """Remove the index with all that it holds."""
    with transaction(caller()) as db:
        index = db.require(KnowledgeIndex, id, lock=True)
        library.delete_index(db, index.id)
        db.delete(index)
