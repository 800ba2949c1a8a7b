"""Where stacks stand, for all tenants, and who is admitted."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from handlers.auth import caller
from handlers.replies import Listing, Paging, created
from handlers.schemas import tenancy as wire
from handlers.tenancy import listing, put, remove
from models.personas import slug_of
from models.tenancy import Region, RegionAssignment, User
from storage.database import Session, reading, transaction

SHOWN = wire.Region()
show = SHOWN.show


def list(paging: Paging) -> Listing:
    """All of them."""
    return listing(Region, SHOWN, paging, Region.name, Region.slug)


def create(body: dict[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Add a region."""
    with transaction(caller()) as db:
        region = Region(**{**body, "slug": body.get("slug") or slug_of(body["name"])})
        put(db, region, "The slug is taken.", "/slug")
        return created(show(region), f"/api/v1/tenants/regions/{region.id}")


def get(id: str) -> dict[str, Any]:
    """The region as it stands."""
    with reading(caller()) as db:
        return show(db.require(Region, id))


def update(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Set the fields that came."""
    with transaction(caller()) as db:
        region = db.require(Region, id, lock=True)
        for name, value in body.items():
            setattr(region, name, value)
        put(db, region, "The slug is taken.", "/slug")
        return show(region)


def delete(id: str) -> None:
    """Remove a region that nothing refers to."""
    with transaction(caller()) as db:
        remove(db, db.require(Region, id, lock=True), "Stacks stand in")


def of_user(id: str) -> dict[str, Any]:
    """The regions that a user is admitted to."""
    with reading(caller()) as db:
        return _of(db, db.require(User, id).id)


def assign(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Admit a user to these regions and to no other."""
    with transaction(caller()) as db:
        user = db.require(User, id, lock=True)
        wanted = body["region_ids"]
        for position, region_id in enumerate(wanted):
            db.require(Region, region_id, pointer=f"/region_ids/{position}")
        held = set(_of(db, user.id)["region_ids"])
        for region_id in held - set(wanted):
            db.delete(db.get_one(RegionAssignment, (user.id, region_id)))
        for region_id in dict.fromkeys(wanted):
            if region_id not in held:
                db.add(RegionAssignment(user_id=user.id, region_id=region_id))
        db.flush()
        return _of(db, user.id)


def _of(db: Session, user_id: str) -> dict[str, Any]:
    held = select(RegionAssignment.region_id).where(RegionAssignment.user_id == user_id)
    return {"region_ids": sorted(db.scalars(held))}
