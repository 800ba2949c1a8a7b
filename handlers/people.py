"""The tenant's people: invited by mail, given roles, let go."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from handlers.auth import caller
from handlers.replies import Listing, Paging, created
from handlers.schemas import tenant_users as wire
from models.chat.conversations import ChatSession
from models.errors import Conflict
from models.letters import LetterKind
from models.people import check_can_go, check_may_touch
from models.tenancy import Role, Tenant, User
from storage import accounts, conversations, events, library
from storage.database import Session, reading, transaction

ORDERINGS = {
    "email": User.email,
    "name": User.name,
    "role": User.role,
    "created_at": User.created_at,
    "updated_at": User.updated_at,
}
COLUMNS = ("id", "email", "name", "role", "is_active", "is_invited", "created_at", "updated_at")


def list(paging: Paging, role: str | None, is_active: bool | None) -> Listing:
    """The tenant's people."""
    query = select(User)
    if role is not None:
        query = query.where(User.role == role)
    if is_active is not None:
        query = query.where(User.is_active == is_active)
    return Listing(
        query,
        wire.show,
        paging,
        ORDERINGS,
        User.id,
        caller(),
        searched=(User.email, User.name),
        columns=COLUMNS,
    )


def invite(body: dict[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Invite somebody by mail. Whether the address has an account elsewhere is not looked at."""
    check_may_touch(caller().role, body["role"])
    email = body["email"].lower()
    with transaction(caller()) as db:
        db.get(Tenant, caller().tenant_id, with_for_update={"key_share": True})
        if db.scalar(select(User.id).where(User.email == email)) is not None:
            raise Conflict("This address is one of the tenant's people already.", pointer="/email")
        user = db.put(User(email=email, name=body.get("name", ""), role=body["role"]))
        accounts.write(db, user, LetterKind.INVITATION)
        events.publish(db, "user.invited", {"id": user.id, "role": user.role})
        return created(wire.show(user), f"/api/v1/tenants/users/{user.id}")


def get(id: str) -> dict[str, Any]:
    """The person as the tenant knows them."""
    with reading(caller()) as db:
        return wire.show(db.require(User, id))


def update(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Set the fields that came. Who is switched off is signed out, and stays so when switched on again."""
    with transaction(caller()) as db:
        others = accounts.other_owners(db, id)  # locks the tenant first, so that owners cannot cross
        user = db.require(User, id, lock=True)
        check_may_touch(caller().role, user.role, body.get("role", user.role))
        if body.get("role", Role.OWNER) != Role.OWNER or body.get("is_active") is False:
            check_can_go(user, others)
        for field in ("name", "role", "is_active"):
            if field in body:
                setattr(user, field, body[field])
        if not user.is_active:
            accounts.sign_out(db, user.id)
        db.flush()
        return wire.show(user)


def delete(id: str) -> None:
    """Let somebody go, with their keys, seats, sessions and the files in these."""
    with transaction(caller()) as db:
        others = accounts.other_owners(db, id)
        user = db.require(User, id, lock=True)
        check_may_touch(caller().role, user.role)
        check_can_go(user, others)
        _remove_sessions(db, user.id)
        accounts.let_go(db, user)


def _remove_sessions(db: Session, user_id: str) -> None:
    for session in db.scalars(select(ChatSession).where(ChatSession.user_id == user_id)).all():
        library.delete_session_files(db, session.id)
        conversations.remove_session(db, session)
