"""Categories: labels on documents, across indices, by which personas and searches are narrowed."""

from __future__ import annotations

from typing import Any

from handlers import reach, shelves
from handlers.auth import caller
from handlers.replies import Listing, Paging, created
from handlers.schemas import categories as wire
from models.knowledge.library import Category, DocumentCategory
from storage.database import reading, transaction

PLACE = DocumentCategory.category_id


def list(paging: Paging) -> Listing:
    """The categories that the caller reaches."""
    return shelves.listing(Category, reach.to_categories(), wire.dump, PLACE, paging)


def create(body: dict[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Make a label."""
    with transaction(caller()) as db:
        category = Category()
        shelves.put(db, category, body)
        return created(
            shelves.show(db, wire.dump, category, PLACE), f"/api/v1/chat/knowledge/categories/{category.id}"
        )


def get(id: str) -> dict[str, Any]:
    """The category as it stands."""
    with reading(caller()) as db:
        category = reach.require(db, Category, id, reach.to_categories())
        return shelves.show(db, wire.dump, category, PLACE)


def update(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Set the fields that came."""
    with transaction(caller()) as db:
        category = db.require(Category, id, lock=True)
        shelves.put(db, category, body)
        return shelves.show(db, wire.dump, category, PLACE)


def delete(id: str) -> None:
    """Take the label off its documents and out of the tenant."""
    with transaction(caller()) as db:
        db.delete(db.require(Category, id, lock=True))
