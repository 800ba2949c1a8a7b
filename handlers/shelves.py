"""What indices and categories have in common: a name that is theirs alone, and documents that are counted."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.exc import IntegrityError

from handlers.auth import caller
from handlers.replies import Column, Dump, Listing, Paging
from models.errors import Conflict
from models.knowledge.library import Category, KnowledgeIndex
from storage.database import OfTenant, Session, reading

Shelf = KnowledgeIndex | Category
COLUMNS = ("id", "name", "description", "document_count", "created_at", "updated_at")


def listing(
    kind: type[Shelf], within: ColumnElement[bool], dump: Dump, place: Column, paging: Paging
) -> Listing:
    """Those of a kind that the caller reaches."""
    return Listing(
        select(kind).where(within),
        _showing(caller(), dump, place),
        paging,
        {"name": kind.name, "created_at": kind.created_at, "updated_at": kind.updated_at},
        kind.id,
        caller(),
        searched=(kind.name, kind.description),
        columns=COLUMNS,
    )


def put(db: Session, shelf: Shelf, values: dict[str, Any]) -> None:
    """Set what came and send it to the database; a name that another one bears is a conflict."""
    for name, value in values.items():
        setattr(shelf, name, value)
    try:
        with db.begin_nested():
            db.put(shelf)
    except IntegrityError as fault:
        raise Conflict("The name is taken.", pointer="/name") from fault
    db.refresh(shelf)


def show(db: Session, dump: Dump, shelf: Shelf, place: Column) -> dict[str, Any]:
    """One, with its number of documents; ``place`` is the column that says where a document is."""
    count = db.scalar(select(func.count()).where(place == shelf.id))
    return {**dump(shelf), "document_count": count}


def _showing(of: OfTenant, dump: Dump, place: Column) -> Dump:
    """``show`` for a list, with all the numbers asked for at once."""

    @cache
    def counts() -> dict[str, int]:
        with reading(of) as db:
            return dict(db.execute(select(place, func.count()).group_by(place)).tuples().all())

    return lambda shelf: {**dump(shelf), "document_count": counts().get(shelf.id, 0)}
