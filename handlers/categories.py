"""Categories: labels on documents, across indices, by which personas and searches are narrowed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from handlers import reach, shelves
from handlers.auth import caller
from handlers.replies import Listing, Paging, created
from handlers.schemas import categories as wire
from models.knowledge.library import Category, DocumentCategory
from storage.database import reading, transaction

ORDERINGS = {"name": Category.name, "created_at": Category.created_at, "updated_at": Category.updated_at}
PLACE = DocumentCategory.category_id


def list(paging: Paging) -> Listing:
    """The categories that the caller reaches."""
    return Listing(
        select(Category).where(reach.to_categories()),
        shelves.showing(caller(), wire.dump, PLACE),
        paging,
        ORDERINGS,
        Category.id,
        caller(),
        searched=(Category.name, Category.description),
        columns=shelves.COLUMNS,
    )


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
