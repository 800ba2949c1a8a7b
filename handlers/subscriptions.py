"""Subscriptions: what a tenant may use, for how many people, and until when."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from handlers import tenancy
from handlers.auth import caller
from handlers.replies import Listing, Paging, created
from handlers.schemas import tenancy as wire
from handlers.tenancy import changing, instant, looking, seen
from models.base import now
from models.errors import Conflict, NotFound, RuleBroken
from models.tenancy import PLATFORM, Product, Seat, Subscription, Tenant
from storage import events
from storage.database import Session

ORDERINGS = {
    "created_at": Subscription.created_at,
    "updated_at": Subscription.updated_at,
    "period_end": Subscription.period_end,
}
COLUMNS = wire.columns(wire.Subscription)
dump = wire.Subscription().show
show = tenancy.show_subscription


def list(paging: Paging, tenant_id: str | None = None, product_id: str | None = None) -> Listing:
    """The subscriptions that the caller sees."""
    query = select(Subscription)
    with looking() as db:
        if tenant_id:
            if not caller().is_operator and tenant_id.lower() != caller().tenant_id:
                raise NotFound(parameter="tenant_id")
            tenant = db.require(Tenant, tenant_id, parameter="tenant_id")
            query = query.where(Subscription.tenant_id == tenant.id)
        if product_id:
            product = db.require(Product, product_id, parameter="product_id")
            query = query.where(Subscription.product_id == product.id)
    return Listing(query, show, paging, ORDERINGS, Subscription.id, seen(), columns=COLUMNS)


def create(body: dict[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Give a tenant the right to a product."""
    with changing() as db:
        if body["tenant_id"] == PLATFORM:
            raise NotFound(pointer="/tenant_id")
        tenant = db.require(Tenant, body["tenant_id"], pointer="/tenant_id")
        product = db.require(Product, body["product_id"], pointer="/product_id")
        subscription = Subscription(
            tenant_id=tenant.id,
            product_id=product.id,
            status=body.get("status", "active"),
            period_start=now(),
            capabilities=product.capabilities,
        )
        _set(db, subscription, product, body)
        db.put(subscription)
        _tell(db, subscription)
        return created(show(subscription), f"/api/v1/tenants/subscriptions/{subscription.id}")


def get(id: str) -> dict[str, Any]:
    """The subscription as it stands."""
    with looking() as db:
        return show(db.require(Subscription, id))


def update(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Set the fields that came."""
    with changing() as db:
        subscription = db.require(Subscription, id, lock=True)
        before = subscription.updated_at
        _set(db, subscription, db.get_one(Product, subscription.product_id), body)
        if subscription.seats < tenancy.seats_used(db, subscription):
            raise Conflict("More seats than that are taken. Take some back first.", pointer="/seats")
        if subscription.updated_at != before:
            _tell(db, subscription)
        return show(subscription)


def delete(id: str) -> None:
    """End a subscription; its seats go with it."""
    with changing() as db:
        subscription = db.require(Subscription, id, lock=True)
        subscription.status = "cancelled"
        _tell(db, subscription)
        for seat in db.scalars(select(Seat).where(Seat.subscription_id == subscription.id)):
            db.delete(seat)  # one by one, so that each is audited
        db.flush()
        db.delete(subscription)


def _set(db: Session, subscription: Subscription, product: Product, body: dict[str, Any]) -> None:
    for name in ("status", "seats", "capabilities"):
        if name in body:
            setattr(subscription, name, body[name])
    for name in ("period_start", "period_end"):
        if name in body:
            setattr(subscription, name, instant(body[name]))
    beyond = sorted(set(body.get("capabilities", ())) - set(product.capabilities))
    if beyond:
        raise RuleBroken(f"The product does not carry {', '.join(beyond)}.", pointer="/capabilities")
    end = subscription.period_end
    if end is not None and end <= subscription.period_start:
        raise RuleBroken("The period ends before it begins.", pointer="/period_end")
    if subscription in db:
        db.flush()


def _tell(db: Session, subscription: Subscription) -> None:
    shown = dump(subscription)
    facts = {name: shown[name] for name in ("id", "product_id", "status", "seats", "capabilities")}
    events.publish(db, "subscription.changed", facts, tenant_id=subscription.tenant_id)
