"""Events for webhooks: what happened is written down where it happened, in the same transaction.

An event is a row for each endpoint that is told of it (an outbox): there exactly when the work that it
tells of was committed, and sent afterwards by ``storage.couriers``. A tenant whose endpoints do not
ask for it costs one look at an index, and has no row.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from weakref import WeakSet

import orjson
from sqlalchemy import Table, bindparam, insert, select
from sqlalchemy import event as hooks

from models.base import new_id, now
from models.webhooks import Delivery, DeliveryStatus, Webhook, check_facts
from storage.database import Session

waiting: WeakSet[threading.Event] = WeakSet()
"""Who is to be woken when there is something to send."""


@dataclass(frozen=True, slots=True)
class Happened:
    """Something to tell: its tenant, its type and its facts."""

    tenant_id: str
    type: str
    data: dict[str, Any]


def publish(db: Session, type: str, data: dict[str, Any], *, tenant_id: str | None = None) -> None:
    """Tell the tenant's endpoints of something, if the caller's transaction commits.

    ``data`` has exactly the fields that ``models.webhooks.FACTS`` names. ``tenant_id`` is for a
    transaction over all tenants (``platform``).
    """
    owner = tenant_id or db.tenant_id
    if owner is None:
        raise RuntimeError("an event is of a tenant")
    publish_all(db, [Happened(owner, type, data)])


def publish_all(db: Session, events: Iterable[Happened]) -> None:
    """The same for several at once, of any tenants that the transaction sees."""
    events = list(events)
    for event in events:
        check_facts(event.type, event.data)
    told = listeners(db, {event.tenant_id for event in events})
    if not told:
        return
    at = now()
    rows = []
    for event in events:
        id, body = new_id(), body_of(event.type, event.data, at)
        rows += [
            delivery(event.tenant_id, webhook_id, id, event.type, body, at)
            for webhook_id, types in told.get(event.tenant_id, [])
            if event.type in types
        ]
    add(db, rows)


_WEBHOOKS = cast(Table, Webhook.__table__).c
_LISTEN = (
    select(_WEBHOOKS.tenant_id, _WEBHOOKS.id, _WEBHOOKS.event_types)
    .where(_WEBHOOKS.tenant_id.in_(bindparam("tenant_ids", expanding=True)), _WEBHOOKS.is_active)
    .with_for_update(read=True, key_share=True)
)


def listeners(db: Session, tenant_ids: Iterable[str]) -> Mapping[str, list[tuple[str, list[str]]]]:
    """The active endpoints of each tenant that has any, with their event types.

    They are held until the transaction ends: PostgreSQL would refuse a row for one that is deleted
    meanwhile, and what is told would fail for what tells of it.
    """
    found = db.connection().execute(_LISTEN, {"tenant_ids": list(tenant_ids)})
    told: dict[str, list[tuple[str, list[str]]]] = {}
    for tenant_id, webhook_id, types in found:
        told.setdefault(tenant_id, []).append((webhook_id, types))
    return told


def body_of(type: str, data: dict[str, Any], at: datetime) -> str:
    """What is sent, as Standard Webhooks has it."""
    return orjson.dumps({"type": type, "timestamp": at, "data": data}, option=orjson.OPT_UTC_Z).decode()


def delivery(
    tenant_id: str, webhook_id: str, event_id: str, type: str, body: str, at: datetime
) -> dict[str, Any]:
    """The row of an event for one endpoint, to be sent at once."""
    return {
        "id": new_id(),
        "tenant_id": tenant_id,
        "webhook_id": webhook_id,
        "event_id": event_id,
        "event_type": type,
        "body": body,
        "status": DeliveryStatus.PENDING.value,
        "tries": 0,
        "attempts": [],
        "due_at": at,
        "created_at": at,
        "updated_at": at,
    }


def add(db: Session, rows: list[dict[str, Any]]) -> None:
    """Write deliveries down; couriers are woken when that is committed."""
    if not rows:
        return
    db.connection().execute(insert(Delivery), rows)
    wake_later(db)


def wake_later(db: Session) -> None:
    """Have this process's couriers look once the transaction is committed."""
    hooks.listen(db, "after_commit", _wake, once=True)


def _wake(session: object) -> None:
    for waiter in list(waiting):
        waiter.set()
