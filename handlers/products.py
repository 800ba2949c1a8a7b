"""What can be subscribed to, for all tenants."""

from __future__ import annotations

from typing import Any

from handlers.auth import caller
from handlers.replies import Listing, Paging, created
from handlers.schemas import tenancy as wire
from handlers.tenancy import listing, put, remove
from models.personas import slug_of
from models.tenancy import Product
from storage.database import reading, transaction

SHOWN = wire.Product()
show = SHOWN.show


def list(paging: Paging) -> Listing:
    """All of them."""
    return listing(Product, SHOWN, paging, Product.name, Product.slug)


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
