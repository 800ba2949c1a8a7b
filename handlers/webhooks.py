"""The tenant's webhooks: where events are sent, with which secret, and what became of each."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import select

from handlers.auth import caller
from handlers.replies import Listing, Paging, created
from handlers.requests import Exchange
from handlers.schemas import webhooks as wire
from models.audit import AuditAction
from models.base import new_id, now
from models.errors import Conflict, NotFound
from models.webhooks import OVERLAP, TEST, Delivery, Webhook, new_secret
from storage import audit, events, outbound, secrets
from storage.database import Session, reading, transaction

MOST = 100
COLUMNS = (
    "id",
    "url",
    "description",
    "event_types",
    "is_active",
    "disabled_reason",
    "created_at",
    "updated_at",
)
DELIVERY_COLUMNS = (
    "id",
    "webhook_id",
    "message_id",
    "event_type",
    "status",
    "attempts",
    "next_attempt_at",
    "payload",
    "created_at",
    "updated_at",
)


def list(paging: Paging) -> Listing:
    """The tenant's webhooks."""
    return Listing(
        select(Webhook),
        wire.show,
        paging,
        {"created_at": Webhook.created_at, "url": Webhook.url},
        Webhook.id,
        caller(),
        searched=(Webhook.url, Webhook.description),
        columns=COLUMNS,
    )


def create(body: dict[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Add a webhook; its secret is shown now and never again."""
    _check(body)
    secret, key = new_secret()
    with transaction(caller()) as db:
        if db.scalar(select(Webhook.id).offset(MOST - 1).limit(1)) is not None:
            raise Conflict(f"A tenant has at most {MOST} webhooks.")
        webhook = db.put(Webhook(**body, sealed_secret=secrets.seal(key)))
        return created(wire.show(webhook) | {"secret": secret}, f"/api/v1/webhooks/{webhook.id}")


def get(id: str) -> dict[str, Any]:
    """The webhook as it stands."""
    with reading(caller()) as db:
        return wire.show(db.require(Webhook, id))


def update(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Set the fields that came. What waits goes to the new address."""
    with reading(caller()) as db:
        db.require(Webhook, id)
    _check(body)
    with transaction(caller()) as db:
        webhook = db.require(Webhook, id, lock=True)
        for name, value in body.items():
            setattr(webhook, name, value)
        if "is_active" in body:
            webhook.switch(body["is_active"])
            events.wake_later(db)
        db.flush()
        return wire.show(webhook)


def delete(id: str) -> None:
    """Remove the webhook, its secrets and its deliveries."""
    with transaction(caller()) as db:
        db.delete(db.require(Webhook, id, lock=True))


def try_out(id: str) -> tuple[dict[str, Any], int]:
    """Send a ``webhook.test``."""
    with transaction(caller()) as db:
        webhook = _active(db, id)
        row, at = new_id(), now()
        body = events.body_of(TEST, {"webhook_id": webhook.id}, at)
        values = events.delivery(webhook.tenant_id, webhook.id, new_id(), TEST, body, at)
        events.add(db, [values | {"id": row}])
        audit.note(db, AuditAction.CREATE, "delivery", row, fields=["webhook_id"])
        return wire.show_delivery(db.require(Delivery, row)), 202


def rotate_secret(id: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Make a new secret; for a while both sign."""
    overlap = (body or {}).get("overlap_seconds", OVERLAP.total_seconds())
    secret, key = new_secret()
    with transaction(caller()) as db:
        webhook = db.require(Webhook, id, lock=True)
        webhook.rotate(secrets.seal(key), timedelta(seconds=overlap))
        db.flush()
        return wire.show(webhook) | {"secret": secret}


def deliveries(id: str, paging: Paging, status: str | None = None, event_type: str | None = None) -> Listing:
    """What was sent, or is to be."""
    with reading(caller()) as db:
        db.require(Webhook, id)
    query = select(Delivery).where(Delivery.webhook_id == id)
    if status is not None:
        query = query.where(Delivery.status == status)
    if event_type is not None:
        query = query.where(Delivery.event_type == event_type)
    return Listing(
        query,
        wire.show_delivery,
        paging,
        {"created_at": Delivery.created_at},
        Delivery.id,
        caller(),
        columns=DELIVERY_COLUMNS,
        by_cursor=(Delivery.created_at, Delivery.id),
    )


def redeliver(id: str, delivery_id: str) -> tuple[dict[str, Any], int]:
    """Send it once more, under the same ``webhook-id``."""
    with transaction(caller()) as db:
        _active(db, id)
        delivery = db.require(Delivery, delivery_id, lock=True)
        if delivery.webhook_id != id:
            raise NotFound()
        if delivery.is_under_way:
            raise Conflict("It is being sent at this moment.")
        delivery.again()
        audit.note(db, AuditAction.UPDATE, "delivery", delivery.id, fields=["status"])
        events.wake_later(db)
        db.flush()
        return wire.show_delivery(delivery), 202


def event_types(exchange: Exchange) -> dict[str, Any]:
    """What can be subscribed to, as the contract has it."""
    if exchange.operation is None:
        raise RuntimeError("the contract's catalogue is needed, and so the operation")
    content = exchange.operation.spec["responses"]["200"]["content"]["application/json"]
    catalogue: dict[str, Any] = content["examples"]["types"]["value"]
    return catalogue


def _check(body: dict[str, Any]) -> None:
    """Refuse an address that would not be told anything."""
    if "url" in body:
        try:
            outbound.check_receiver(body["url"])
        except outbound.OutboundRefused as refused:
            raise outbound.OutboundRefused(refused.detail, pointer="/url") from refused


def _active(db: Session, id: str) -> Webhook:
    webhook = db.require(Webhook, id, lock=True)
    if not webhook.is_active:
        raise Conflict("This webhook is not active. Set is_active to true first.")
    return webhook
