"""API keys: made, narrowed, rotated and ended. Everybody sees its own, administrators all of the tenant's."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, select, true

from handlers import reach
from handlers.auth import caller
from handlers.replies import Listing, Paging, created
from handlers.schemas import api_keys as wire
from handlers.tenancy import instant
from models.access import ApiKey, check_scopes, effective_scopes
from models.base import now
from models.errors import Forbidden, RuleBroken
from models.tenancy import Role, User
from storage import events
from storage.database import Session, reading, transaction

ORDERINGS = {"name": ApiKey.name, "created_at": ApiKey.created_at, "updated_at": ApiKey.updated_at}


def list(paging: Paging) -> Listing:
    """The keys that the caller sees."""
    return Listing(
        select(ApiKey).where(_seen()),
        wire.show,
        paging,
        ORDERINGS,
        ApiKey.id,
        caller(),
        searched=(ApiKey.name,),
        columns=wire.COLUMNS,
    )


def create(body: dict[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Make a key of the caller's. One key makes none that may do more than itself."""
    check_scopes(body["scopes"], caller().scopes)
    with transaction(caller()) as db:
        _check_bounds(db, {"expires_at": None, "rate_limit_per_minute": None} | body)
        key, secret = ApiKey.issue(
            user_id=caller().user_id,
            role=caller().role,
            name=body["name"],
            scopes=body["scopes"],
            expires_at=_end(body.get("expires_at")),
            rate_limit_per_minute=body.get("rate_limit_per_minute"),
        )
        db.put(key)
        _tell(db, "api_key.created", key)
        return created({**wire.show(key), "key": secret}, f"/api/v1/api-keys/{key.id}")


def get(id: str) -> dict[str, Any]:
    """The key as it stands, without its text."""
    with reading(caller()) as db:
        return wire.show(reach.require(db, ApiKey, id, _seen()))


def update(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Set the fields that came."""
    with transaction(caller()) as db:
        key, maker = _to_change(db, id)
        _check_bounds(db, body)
        if "scopes" in body:
            check_scopes(body["scopes"], caller().scopes & effective_scopes(maker.role, None))
            key.scopes = sorted(set(body["scopes"]))
        if "expires_at" in body:
            key.expires_at = _end(body["expires_at"])
        for name in ("name", "rate_limit_per_minute"):
            if name in body:
                setattr(key, name, body[name])
        db.flush()
        return wire.show(key)


def delete(id: str) -> None:
    """Make a key good for nothing."""
    with transaction(caller()) as db:
        key, _ = _to_change(db, id)
        _tell(db, "api_key.revoked", key)
        db.delete(key)


def rotate(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """A new text for a key of the caller's own, who is thereby given no more than it has."""
    with transaction(caller()) as db:
        key, maker = _to_change(db, id)
        if maker.id != caller().user_id:
            raise Forbidden("Only its maker may rotate a key.")
        if effective_scopes(maker.role, key.scopes) - caller().scopes:
            raise Forbidden("This key may do more than the one that you use.")
        secret = key.rotate(timedelta(seconds=body.get("overlap_seconds", 0)))
        db.flush()
        return {**wire.show(key), "key": secret}


def _seen() -> ColumnElement[bool]:
    return true() if caller().is_admin else ApiKey.user_id == caller().user_id


def _to_change(db: Session, id: str) -> tuple[ApiKey, User]:
    """The key and its maker. An owner's key is changed by owners alone."""
    key = reach.require(db, ApiKey, id, _seen(), lock=True)
    maker = db.get_one(User, key.user_id)
    if maker.role == Role.OWNER and caller().role != Role.OWNER:
        raise Forbidden("An owner's key is changed by owners alone.")
    return key, maker


def _check_bounds(db: Session, body: dict[str, Any]) -> None:
    """A key gives none, and not itself, more time or a higher rate than it has, as far as these are set."""
    used = db.get(ApiKey, caller().key_id) if caller().key_id else None
    if used is None:
        return
    end, rate = instant(body.get("expires_at")), body.get("rate_limit_per_minute")
    if "expires_at" in body and used.expires_at and (end is None or end > used.expires_at):
        told = f"{used.expires_at:%Y-%m-%dT%H:%M:%SZ}"
        raise RuleBroken(f"The key that you use ends at {told}.", pointer="/expires_at")
    most = used.rate_limit_per_minute
    if "rate_limit_per_minute" in body and most is not None and (rate is None or rate > most):
        raise RuleBroken(f"The key that you use has {most} a minute.", pointer="/rate_limit_per_minute")


def _end(text: str | None) -> Any:
    end = instant(text)
    if end is not None and end <= now():
        raise RuleBroken("This time has passed.", pointer="/expires_at")
    return end


def _tell(db: Session, event: str, key: ApiKey) -> None:
    facts: dict[str, Any] = {"id": key.id, "user_id": key.user_id}
    if event == "api_key.created":
        facts = {**facts, "scopes": key.scopes, "expires_at": wire.show(key)["expires_at"]}
    events.publish(db, event, facts)
