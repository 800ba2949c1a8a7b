"""From a credential to a caller, quickly, and never for longer than a second after its rights changed.

One query tells everything. Its verdict is remembered for half a second per process and forgotten at once when
this process commits a change to anything that a caller's rights are made of.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import Join, Row, Select, Table, and_, bindparam, event, or_, select, true
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import ORMExecuteState, UOWTransaction
from sqlalchemy.orm import Session as OrmSession

from models.access import ApiKey, Caller, SignIn, digest, effective_scopes, is_well_formed
from models.base import Entity, now
from models.tenancy import Subscription, Tenant, User
from storage import tokens
from storage.database import Session, look, platform

log = structlog.get_logger("booga.identity")

REMEMBERED_SECONDS = 0.5
MOST_REMEMBERED = 10_000
LAST_USE_RESOLUTION = timedelta(minutes=1)
_RIGHTS = (ApiKey, SignIn, User, Subscription, Tenant)

_memory: dict[bytes, tuple[float, Caller]] = {}
_changes = 0
"""Counts commits that changed rights: what was read before one is not remembered after it."""


@event.listens_for(Session, "after_flush")
def _note_changed_rows(session: OrmSession, context: UOWTransaction) -> None:
    if any(isinstance(row, _RIGHTS) for row in (*session.new, *session.dirty, *session.deleted)):
        session.info["rights_changed"] = True


@event.listens_for(Session, "do_orm_execute")
def _note_changed_in_bulk(state: ORMExecuteState) -> None:
    changed = state.bind_mapper if state.is_update or state.is_delete else None
    if changed is not None and issubclass(changed.class_, _RIGHTS):
        state.session.info["rights_changed"] = True


@event.listens_for(Session, "after_commit")
def _forget_when_rights_change(session: OrmSession) -> None:
    global _changes
    if session.info.pop("rights_changed", False):
        _changes += 1
        _memory.clear()


def _fingerprint(credential: str) -> bytes:
    return hashlib.blake2b(credential.encode("utf-8", "replace"), digest_size=16).digest()


def remembered(credential: str) -> Caller | None:
    """The caller found for this credential a moment ago, without asking the database."""
    found = _memory.get(_fingerprint(credential))
    return found[1] if found is not None and found[0] > time.monotonic() else None


def caller_of(credential: str) -> Caller | None:
    """The caller that a key or an access token stands for; None when it is not good."""
    before, until = _changes, time.monotonic() + REMEMBERED_SECONDS
    caller = _of_key(credential) if credential.startswith("bk_") else _of_token(credential)
    if caller is not None and before == _changes:
        if len(_memory) >= MOST_REMEMBERED:
            _memory.clear()
        _memory[_fingerprint(credential)] = (until, caller)
    return caller


def _table(entity: type[Entity]) -> Table:
    table = entity.__table__
    assert isinstance(table, Table)  # noqa: S101 - every entity is one
    return table


_KEYS, _SIGN_INS = _table(ApiKey).c, _table(SignIn).c
_USERS, _TENANTS, _SUBSCRIPTIONS = _table(User).c, _table(Tenant).c, _table(Subscription).c
_AT = bindparam("at", type_=_KEYS.expires_at.type)


def _with_rights(origin: Table, *columns: Any) -> Select[Any]:
    """Rows of ``origin`` with their active users and tenants, once for each subscription that runs.

    In SQLAlchemy Core: loading the same as entities takes three times as long.
    """
    runs = and_(
        _SUBSCRIPTIONS.tenant_id == origin.c.tenant_id,
        _SUBSCRIPTIONS.status == "active",
        _SUBSCRIPTIONS.period_start <= _AT,
        or_(_SUBSCRIPTIONS.period_end.is_(None), _SUBSCRIPTIONS.period_end > _AT),
    )
    joined: Join = (
        origin.join(_table(User), _USERS.id == origin.c.user_id)
        .join(_table(Tenant), _TENANTS.id == origin.c.tenant_id)
        .outerjoin(_table(Subscription), runs)
    )
    return (
        select(
            _USERS.id.label("user_id"),
            _USERS.tenant_id,
            _USERS.role,
            _USERS.name,
            _USERS.email,
            _SUBSCRIPTIONS.product_id,
            _SUBSCRIPTIONS.capabilities,
            *columns,
        )
        .select_from(joined)
        .where(_USERS.is_active == true(), _TENANTS.is_active == true())
    )


_BY_KEY = _with_rights(
    _table(ApiKey), _KEYS.id, _KEYS.scopes, _KEYS.last_used_at, _KEYS.rate_limit_per_minute
).where(
    or_(
        _KEYS.key_hash == bindparam("digest"),
        and_(_KEYS.previous_hash == bindparam("digest"), _KEYS.previous_until > _AT),
    ),
    _KEYS.revoked_at.is_(None),
    or_(_KEYS.expires_at.is_(None), _KEYS.expires_at > _AT),
)
_BY_SIGN_IN = _with_rights(_table(SignIn)).where(
    _SIGN_INS.id == bindparam("sign_in_id"), _SIGN_INS.ended_at.is_(None), _SIGN_INS.expires_at > _AT
)


def _caller(
    rows: list[Row[Any]], scopes: list[str] | None, *, rate_limit: int | None = None, **origin: str
) -> Caller:
    user = rows[0]
    return Caller(
        tenant_id=user.tenant_id,
        user_id=user.user_id,
        role=user.role,
        scopes=effective_scopes(user.role, scopes),
        grants=frozenset((row.product_id, name) for row in rows for name in row.capabilities or ()),
        name=user.name or user.email,
        rate_limit=rate_limit,
        **origin,
    )


def _of_key(key: str) -> Caller | None:
    if not is_well_formed(key):
        return None
    rows = look(_BY_KEY, {"at": now(), "digest": digest(key)})
    if not rows:
        return None
    found = rows[0]
    if found.last_used_at is None or now() - found.last_used_at > LAST_USE_RESOLUTION:
        _note_use(found.id)
    return _caller(rows, found.scopes, key_id=found.id, rate_limit=found.rate_limit_per_minute)


def _of_token(token: str) -> Caller | None:
    claims = tokens.read_access_token(token)
    if claims is None:
        return None
    rows = look(_BY_SIGN_IN, {"at": now(), "sign_in_id": claims.sign_in_id})
    if not rows or (rows[0].user_id, rows[0].tenant_id) != (claims.user_id, claims.tenant_id):
        return None
    return _caller(rows, None, sign_in_id=claims.sign_in_id)


def held(callers: Collection[Caller]) -> dict[Caller, frozenset[str]]:
    """What callers that came some time ago may do by now; those whose credential is no longer good are left
    out. A key is taken for good whichever of its texts was sent.
    """
    at = now()
    people = and_(User.is_active, Tenant.is_active)
    keys = (
        select(ApiKey.id, User.role, ApiKey.scopes)
        .join(User, User.id == ApiKey.user_id)
        .join(Tenant, Tenant.id == ApiKey.tenant_id)
        .where(
            ApiKey.id.in_({caller.key_id for caller in callers if caller.key_id}),
            ApiKey.revoked_at.is_(None),
            or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > at),
            people,
        )
    )
    devices = (
        select(SignIn.id, User.role)
        .join(User, User.id == SignIn.user_id)
        .join(Tenant, Tenant.id == SignIn.tenant_id)
        .where(
            SignIn.id.in_({caller.sign_in_id for caller in callers if caller.sign_in_id}),
            SignIn.ended_at.is_(None),
            SignIn.expires_at > at,
            people,
        )
    )
    with platform(writes=False) as db:
        scopes = {id: effective_scopes(role, of_key) for id, role, of_key in db.execute(keys)}
        scopes |= {id: effective_scopes(role, None) for id, role in db.execute(devices)}
    origins = ((caller, caller.key_id or caller.sign_in_id or "") for caller in callers)
    return {caller: scopes[id] for caller, id in origins if id in scopes}


_later = ThreadPoolExecutor(1, thread_name_prefix="last-use")
_noting: set[str] = set()
"""Keys whose use is about to be written: once is enough."""


def _note_use(key_id: str) -> None:
    """Write down that a key was used, beside the request: it need not wait for whoever writes just now."""
    if key_id not in _noting:
        _noting.add(key_id)
        _later.submit(_write_use, key_id)


def _write_use(key_id: str) -> None:
    change = _table(ApiKey).update().where(_KEYS.id == key_id)  # Core: rights do not change by it
    try:
        with platform() as db:
            db.execute(change.values(last_used_at=now(), updated_at=_KEYS.updated_at))
    except SQLAlchemyError as fault:  # the next use tries again; nobody waits for this
        log.warning("last use not written", key_id=key_id, fault=type(fault).__name__)
    finally:
        _noting.discard(key_id)
