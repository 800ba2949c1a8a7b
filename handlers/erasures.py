"""The erasure of a person."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from handlers.auth import caller
from models.errors import Conflict, Forbidden
from models.tenancy import Role, Tenant, User
from models.work import Job
from storage import erasure, queue
from storage.database import Session, transaction


def create(id: str) -> tuple[dict[str, Any], int, dict[str, str]]:
    """End the person's access at once, and promise to forget them. Asked again: how far it is."""
    with transaction(caller()) as db:
        # One at a time: two owners may not erase each other.
        db.get(Tenant, caller().tenant_id, with_for_update={"key_share": True})
        user = db.require(User, id, lock=True)
        _check_may_erase(db, user)
        known = db.scalar(select(Job.status).where(Job.kind == erasure.ERASE, Job.subject_id == user.id))
        if known is None or known == "dead":
            user.is_active = False
            db.flush()
            queue.enqueue(db, erasure.ERASE, user.id, priority=6)
            known = "queued"
        return {"user_id": user.id, "status": known}, 202, {"Location": f"/api/v1/tenants/users/{user.id}"}


def _check_may_erase(db: Session, user: User) -> None:
    if user.role != Role.OWNER:
        return
    if caller().role != Role.OWNER:
        raise Forbidden("Only an owner may erase an owner.")
    others = select(func.count()).where(
        User.tenant_id == user.tenant_id, User.role == Role.OWNER, User.is_active, User.id != user.id
    )
    if not db.scalar(others):
        raise Conflict("The last owner stays. Make somebody else an owner first.")
