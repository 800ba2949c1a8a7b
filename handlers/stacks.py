"""Stacks: a tenant's products in regions."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from handlers.auth import caller
from handlers.replies import Listing, Paging, created
from handlers.schemas import tenancy as wire
from handlers.tenancy import listing, put, remove
from models.errors import RuleBroken
from models.tenancy import Product, Region, Stack, Subscription
from storage.database import reading, transaction

SHOWN = wire.Stack()
show = SHOWN.show


def list(paging: Paging) -> Listing:
    """The tenant's stacks."""
    return listing(Stack, SHOWN, paging, Stack.name)


def create(body: dict[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Set up a product in a region, where a subscription covers the product."""
    with transaction(caller()) as db:
        product = db.require(Product, body["product_id"], pointer="/product_id")
        region = db.require(Region, body["region_id"], pointer="/region_id")
        covering = select(Subscription.id).where(Subscription.product_id == product.id, Subscription.runs())
        if db.scalar(covering.limit(1)) is None:
            raise RuleBroken("No active subscription covers this product.", pointer="/product_id")
        name = body.get("name") or f"{product.name}, {region.name}"[:200]
        stack = Stack(name=name, product_id=product.id, region_id=region.id)
        put(db, stack, "There is a stack for this product and region already.", "/region_id")
        return created(show(stack), f"/api/v1/tenants/stacks/{stack.id}")


def get(id: str) -> dict[str, Any]:
    """The stack as it stands."""
    with reading(caller()) as db:
        return show(db.require(Stack, id))


def update(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Rename it."""
    with transaction(caller()) as db:
        stack = db.require(Stack, id, lock=True)
        stack.name = body["name"]
        db.flush()
        return show(stack)


def delete(id: str) -> None:
    """Remove a stack that nothing belongs to."""
    with transaction(caller()) as db:
        remove(db, db.require(Stack, id, lock=True), "Personas, sessions or bots belong to")
