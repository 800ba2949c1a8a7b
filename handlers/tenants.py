"""Tenants: made, limited and ended by operators, renamed by themselves; what they use of what they may."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import delete as remove
from sqlalchemy import func, select

from handlers.auth import caller
from handlers.replies import Listing, Paging, created
from handlers.schemas import tenancy as wire
from handlers.tenancy import changing, looking, seen
from models.audit import AuditAction
from models.base import now
from models.chat.conversations import ChatSession
from models.errors import Conflict, NotFound
from models.tenancy import PLATFORM, Role, Seat, Subscription, Tenant, User
from storage import accounts, audit, queue, quotas, secrets
from storage.database import Session, reading, transaction
from storage.quotas import FORGET_TENANT

ORDERINGS = {"name": Tenant.name, "created_at": Tenant.created_at, "updated_at": Tenant.updated_at}
COLUMNS = wire.columns(wire.Tenant)
show = wire.Tenant().show


def list(paging: Paging) -> Listing:
    """Every tenant."""
    query = select(Tenant).where(Tenant.id != PLATFORM)
    return Listing(
        query, show, paging, ORDERINGS, Tenant.id, seen(), searched=(Tenant.name,), columns=COLUMNS
    )


def create(body: dict[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Make a tenant, with its owner if one is named."""
    owner = body.get("owner")
    hashed = secrets.hash_password(owner["password"]) if owner else None
    with changing() as db:
        tenant = Tenant(name=body["name"])
        _limit(tenant, body.get("quotas", {}))
        db.put(tenant)
        if owner is not None:
            email = owner["email"].strip().lower()
            if accounts.is_taken(db, email):
                raise Conflict("The address is taken.", pointer="/owner/email")
            name = owner.get("name", "")
            db.put(User(tenant_id=tenant.id, email=email, name=name, role=Role.OWNER, password_hash=hashed))
        return created(show(tenant), f"/api/v1/tenants/{tenant.id}")


def get(id: str) -> dict[str, Any]:
    """The tenant as it stands."""
    with looking() as db:
        return show(_require(db, id))


def update(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Set the fields that came."""
    with changing() as db:
        tenant = _require(db, id, lock=True)
        for name in ("name", "is_active"):
            if name in body:
                setattr(tenant, name, body[name])
        _limit(tenant, body.get("quotas", {}))
        db.flush()
        return show(tenant)


def delete(id: str) -> None:
    """Remove a tenant that is switched off, with all that it had."""
    with changing() as db:
        tenant = _require(db, id, lock=True)
        if tenant.is_active:
            raise Conflict("The tenant is active. Switch it off first.")
        queue.enqueue(db, FORGET_TENANT, tenant.id, tenant_id=PLATFORM)
        db.execute(remove(Tenant).where(Tenant.id == tenant.id))
        audit.note(db, AuditAction.DELETE, "tenant", tenant.id)


def current() -> dict[str, Any]:
    """The caller's tenant."""
    with reading(caller()) as db:
        return show(db.get_one(Tenant, caller().tenant_id))


def update_current(body: dict[str, Any]) -> dict[str, Any]:
    """Rename the caller's tenant."""
    with transaction(caller()) as db:
        tenant = db.get_one(Tenant, caller().tenant_id, with_for_update=True)
        tenant.name = body["name"]
        db.flush()
        return show(tenant)


def usage() -> dict[str, Any]:
    """What the caller's tenant uses, of what it may."""
    with reading(caller()) as db:
        tenant = db.get_one(Tenant, caller().tenant_id)
        seats = db.scalar(select(func.coalesce(func.sum(Subscription.seats), 0)).where(Subscription.runs()))
        taken = (
            select(func.count()).select_from(Seat).join(Subscription, Subscription.id == Seat.subscription_id)
        )
        storage, documents = quotas.stored(db, tenant.id)
        tomorrow = (now() + timedelta(days=1)).strftime("%Y-%m-%dT00:00:00.000000Z")
        return {
            "seats": wire.used(db.scalar(taken.where(Subscription.runs())) or 0, int(seats or 0)),
            "tokens": wire.used(quotas.spent_today(db, tenant.id), tenant.max_tokens_per_day),
            "storage": wire.used(storage, tenant.max_storage_bytes),
            "documents": wire.used(documents, tenant.max_documents),
            "sessions": wire.used(db.scalar(select(func.count()).select_from(ChatSession)) or 0, None),
            "resets_at": tomorrow,
        }


def _require(db: Session, id: str, *, lock: bool = False) -> Tenant:
    if id.lower() == PLATFORM:
        raise NotFound()
    return db.require(Tenant, id, lock=lock)


def _limit(tenant: Tenant, limits: dict[str, int | None]) -> None:
    for name, value in limits.items():
        setattr(tenant, f"max_{name}", value)
