"""What can be subscribed to, for all tenants."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from handlers.auth import caller
from handlers.replies import Listing, Paging, created
from handlers.schemas import tenancy as wire
from handlers.tenancy import put, remove
from models.personas import slug_of
from models.tenancy import Product
from storage.database import reading, transaction

ORDERINGS = {"name": Product.name, "created_at": Product.created_at, "updated_at": Product.updated_at}
show = wire.Product().show
COLUMNS = wire.columns(wire.Product)


def list(paging: Paging) -> Listing:
    """All of them."""
    return Listing(
        select(Product),
        show,
        paging,
        ORDERINGS,
        Product.id,
        caller(),
        searched=(Product.name, Product.slug),
        columns=COLUMNS,
    )


def create(body: dict[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Add a product."""
    with transaction(caller()) as db:
        product = Product(**{"capabilities": [], **body, "slug": body.get("slug") or slug_of(body["name"])})
        put(db, product, "The slug is taken.", "/slug")
        return created(show(product), f"/api/v1/tenants/products/{product.id}")


def get(id: str) -> dict[str, Any]:
    """The product as it stands."""
    with reading(caller()) as db:
        return show(db.require(Product, id))


def update(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Set the fields that came."""
    with transaction(caller()) as db:
        product = db.require(Product, id, lock=True)
        for name, value in body.items():
            setattr(product, name, value)
        put(db, product, "The slug is taken.", "/slug")
        return show(product)


def delete(id: str) -> None:
    """Remove a product that nothing refers to."""
    with transaction(caller()) as db:
        remove(db, db.require(Product, id, lock=True), "Subscriptions or stacks refer to")
