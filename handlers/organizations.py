"""Organizations: labels within a tenant, which grant nothing."""

from __future__ import annotations

from typing import Any

from handlers.auth import caller
from handlers.replies import Listing, Paging, created
from handlers.schemas import tenancy as wire
from handlers.tenancy import listing, remove
from models.tenancy import Organization
from storage.database import reading, transaction

SHOWN = wire.Organization()
show = SHOWN.show


def list(paging: Paging) -> Listing:
    """The tenant's organizations."""
    return listing(Organization, SHOWN, paging, Organization.name)


def create(body: dict[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Make a label."""
    with transaction(caller()) as db:
        organization = db.put(Organization(**body))
        return created(show(organization), f"/api/v1/tenants/organizations/{organization.id}")


def get(id: str) -> dict[str, Any]:
    """The organization as it stands."""
    with reading(caller()) as db:
        return show(db.require(Organization, id))


def update(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Rename it."""
    with transaction(caller()) as db:
        organization = db.require(Organization, id, lock=True)
        organization.name = body["name"]
        db.flush()
        return show(organization)


def delete(id: str) -> None:
    """Remove a label that nothing carries."""
    with transaction(caller()) as db:
        remove(db, db.require(Organization, id, lock=True), "Personas or bots carry")
