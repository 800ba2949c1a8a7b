"""The erasure of a person."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from handlers.auth import caller
from models.people import check_can_go, check_may_touch
from models.tenancy import User
from models.work import Job
from storage import accounts, erasure, queue
from storage.database import transaction


def create(id: str) -> tuple[dict[str, Any], int, dict[str, str]]:
    """End the person's access at once, and promise to forget them. Asked again: how far it is."""
    with transaction(caller()) as db:
        others = accounts.other_owners(db, id)  # locks the tenant first: two owners may not erase each other
        user = db.require(User, id, lock=True)
        check_may_touch(caller().role, user.role)
        check_can_go(user, others)
        known = db.scalar(select(Job.status).where(Job.kind == erasure.ERASE, Job.subject_id == user.id))
        if known is None or known == "dead":
            user.is_active = False
            db.flush()
            queue.enqueue(db, erasure.ERASE, user.id, priority=6)
            known = "queued"
        return {"user_id": user.id, "status": known}, 202, {"Location": f"/api/v1/tenants/users/{user.id}"}
