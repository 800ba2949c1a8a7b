"""From a credential to a caller, quickly, and never for longer than a second after its rights changed.

A verdict is remembered for half a second per process and forgotten at once when this process commits a
change to anything that a caller's rights are made of.
"""

from __future__ import annotations

import hashlib
import time
from datetime import timedelta
from typing import Any

from sqlalchemy import event, or_, select, update
from sqlalchemy.orm import Session as OrmSession
from sqlalchemy.orm import UOWTransaction

from models.access import ApiKey, Caller, SignIn, digest, effective_scopes, is_well_formed
from models.base import now
from models.tenancy import Subscription, Tenant, User
from storage import tokens
from storage.database import Session, platform

REMEMBERED_SECONDS = 0.5
LAST_USE_RESOLUTION = timedelta(minutes=1)
_RIGHTS = (ApiKey, SignIn, User, Subscription, Tenant)

_memory: dict[bytes, tuple[float, Caller]] = {}


@event.listens_for(Session, "after_flush")
def _note_changed_rights(session: OrmSession, context: UOWTransaction) -> None:
    if any(isinstance(row, _RIGHTS) for row in (*session.new, *session.dirty, *session.deleted)):
        session.info["rights_changed"] = True


@event.listens_for(Session, "after_commit")
def _forget_when_rights_change(session: OrmSession) -> None:
    if session.info.pop("rights_changed", False):
        _memory.clear()


def _fingerprint(credential: str) -> bytes:
    return hashlib.blake2b(credential.encode("utf-8", "replace"), digest_size=16).digest()


def remembered(credential: str) -> Caller | None:
    """The caller found for this credential a moment ago, without asking the database."""
    found = _memory.get(_fingerprint(credential))
    return found[1] if found is not None and found[0] > time.monotonic() else None


def caller_of(credential: str) -> Caller | None:
    """The caller that a key or an access token stands for; None when it is not good."""
    caller = _of_key(credential) if credential.startswith("bk_") else _of_token(credential)
    if caller is not None:
        if len(_memory) > 10_000:
            _memory.clear()
        _memory[_fingerprint(credential)] = (time.monotonic() + REMEMBERED_SECONDS, caller)
    return caller


def _capabilities(db: Session, tenant_id: str) -> frozenset[str]:
    at = now()
    rows = db.scalars(
        select(Subscription.capabilities).where(
            Subscription.tenant_id == tenant_id,
            Subscription.status == "active",
            Subscription.period_start <= at,
            or_(Subscription.period_end.is_(None), Subscription.period_end > at),
        )
    )
    return frozenset(capability for row in rows for capability in row)


def _caller(db: Session, user: User, scopes: list[str] | None, **origin: Any) -> Caller:
    return Caller(
        tenant_id=user.tenant_id,
        user_id=user.id,
        role=user.role,
        scopes=effective_scopes(user.role, scopes),
        capabilities=_capabilities(db, user.tenant_id),
        name=user.name or user.email,
        **origin,
    )


def _of_key(key: str) -> Caller | None:
    if not is_well_formed(key):
        return None
    with platform(writes=False) as db:
        found = db.execute(
            select(ApiKey, User)
            .join(User, User.id == ApiKey.user_id)
            .join(Tenant, Tenant.id == ApiKey.tenant_id)
            .where(ApiKey.key_hash == digest(key), User.is_active, Tenant.is_active)
        ).first()
        if found is None or not found[0].is_usable():
            return None
        row, user = found
        caller = _caller(db, user, row.scopes, key_id=row.id)
    if row.last_used_at is None or now() - row.last_used_at > LAST_USE_RESOLUTION:
        with platform() as db:
            db.execute(
                update(ApiKey)
                .where(ApiKey.id == row.id)
                .values(last_used_at=now(), updated_at=ApiKey.updated_at)
            )
    return caller


def _of_token(token: str) -> Caller | None:
    claims = tokens.read_access_token(token)
    if claims is None:
        return None
    with platform(writes=False) as db:
        found = db.execute(
            select(SignIn, User)
            .join(User, User.id == SignIn.user_id)
            .join(Tenant, Tenant.id == SignIn.tenant_id)
            .where(SignIn.id == claims.sign_in_id, User.is_active, Tenant.is_active)
        ).first()
        if found is None or not found[0].is_open():
            return None
        sign_in, user = found
        if user.id != claims.user_id or user.tenant_id != claims.tenant_id:
            return None
        return _caller(db, user, None, sign_in_id=sign_in.id)
