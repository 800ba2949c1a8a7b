"""The audit log: a row for each act, in the transaction of the act itself.

Rows that go through the database session need no word about it: the hook below sees them when they are
sent. Statements in bulk or in Core pass it by; whoever changes an audited table by one calls ``note`` in the
same transaction. Who acts, and from where, is what the binding bound (``bind``); without it, the system.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import Select, Table, delete, event, inspect, select, update
from sqlalchemy.orm import Session as OrmSession
from sqlalchemy.orm import UOWTransaction

from models.access import VISITOR, Caller
from models.audit import (
    FILE,
    OBJECTS,
    ActorKind,
    AuditAction,
    AuditEntry,
    is_shown,
    is_told,
    name_of,
    shown,
)
from models.base import Base, TenantOwned, new_id, now
from models.chat.conversations import ChatMessage
from models.knowledge.library import Document
from models.tenancy import Tenant
from storage.database import Session, apart, platform
from storage.settings import settings

_ENTRIES = cast(Table, AuditEntry.__table__)
_INSERT = _ENTRIES.insert()
_LINKED = "audit_linked"
"""Where a session keeps what was mentioned and is not told yet."""
_AT_ONCE = 1000


@dataclass(slots=True)
class Act:
    """The request that acts: who sent it, from which address, under which id, to do what."""

    caller: Caller | None
    address: str
    request_id: str
    operation: str | None
    seen: set[str | None] = field(default_factory=set)
    """What of others it has read already: once is told once."""
    lock: threading.Lock = field(default_factory=threading.Lock)


_act: ContextVar[Act | None] = ContextVar("act", default=None)


def bind(caller: Caller | None, *, address: str, request_id: str, operation: str | None) -> None:
    """Say who acts in this context from here on."""
    _act.set(Act(caller, address[:45], request_id[:128], operation))


def note(
    db: Session,
    action: AuditAction,
    object_type: str,
    object_id: str | None,
    *,
    tenant_id: str | None = None,
    fields: Iterable[str] = (),
    values: Mapping[str, Any] | None = None,
) -> None:
    """Write one act down, in the transaction ``db``: for what bulk and Core statements do.

    ``values`` are of those ``fields`` alone that hold nothing personal and no secret.
    """
    told = [*fields]
    _write(db, [_row(action, object_type, object_id, tenant_id or db.tenant_id, told, dict(values or {}))])


def note_each(
    db: Session,
    action: AuditAction,
    object_type: str,
    object_ids: Iterable[str],
    *,
    tenant_id: str | None = None,
    values: Mapping[str, Any] | None = None,
) -> None:
    """Write the same act down for each object, in the transaction ``db``: for statements in bulk."""
    told = dict(values or {})
    rows = [_row(action, object_type, id, tenant_id or db.tenant_id, [*told], told) for id in object_ids]
    if rows:
        _write(db, rows)


def mention(db: Session, row: Base, field: str, before: Iterable[str], after: Iterable[str]) -> None:
    """Tell with the row's next entry that ids which other tables link to it change; the same ones are no
    change.
    """
    held, wanted = sorted(before), sorted(after)
    if held != wanted:
        db.info.setdefault(_LINKED, {}).setdefault(row, {})[field] = {"from": held, "to": wanted}


def read(db: Session, caller: Caller, object_type: str, object_id: str | None) -> None:
    """Write down that somebody reads what is another's, before it is shown; once for each request.
    ``object_id`` None: a list of such things.

    A transaction that only reads cannot keep it, so that it then gets one of its own.
    """
    act = _act.get()
    if act is not None:
        with act.lock:
            if object_id in act.seen:
                return
            act.seen.add(object_id)
    rows = [_row(AuditAction.READ, object_type, object_id, caller.tenant_id, [], {})]
    if db.writes:
        _write(db, rows)
    else:
        with apart(caller) as own:
            _write(own, rows)


def refused(caller: Caller, area: str, object_id: str | None) -> None:
    """Write down that the bound request was refused, in a transaction of its own."""
    with apart(caller) as db:
        note(db, AuditAction.REFUSED, area, object_id)


def forget_visitors(db: Session, tenant_id: str, sessions: Select[str]) -> None:
    """Blank the addresses of those who talked in these conversations, which are about to be deleted: a
    visitor's address is kept for as long as the visitor's words.
    """
    messages = select(ChatMessage.id).where(ChatMessage.session_id.in_(sessions))
    for theirs in (sessions, messages):
        db.execute(
            update(AuditEntry)
            .where(
                AuditEntry.tenant_id == tenant_id,
                AuditEntry.actor_kind == ActorKind.ANONYMOUS,
                AuditEntry.object_id.in_(theirs),
            )
            .values(address=""),
            execution_options={"synchronize_session": False},
        )


def prune() -> int:
    """Delete entries past the days that the host keeps them; how many. In portions: other writers wait."""
    days = settings().audit_retention_days
    if days is None:
        return 0
    with platform(writes=False) as db:
        tenants = [None, *db.scalars(select(Tenant.id))]
    return sum(_prune(tenant_id, now() - timedelta(days=days)) for tenant_id in tenants)


def _prune(tenant_id: str | None, before: datetime) -> int:
    old = select(AuditEntry.id).where(AuditEntry.tenant_id == tenant_id, AuditEntry.created_at < before)
    gone = 0
    while True:
        with platform(writes=False) as db:
            ids = db.scalars(old.limit(_AT_ONCE)).all()
        if not ids:
            return gone
        with platform() as db:
            theirs = delete(AuditEntry).where(AuditEntry.id.in_(ids))
            db.execute(theirs, execution_options={"synchronize_session": False})
        gone += len(ids)


def _write(db: OrmSession, rows: list[dict[str, Any]]) -> None:
    db.connection().execute(_INSERT, rows)


def _row(
    action: AuditAction,
    object_type: str,
    object_id: str | None,
    tenant_id: str | None,
    fields: list[str],
    values: dict[str, Any],
) -> dict[str, Any]:
    act = _act.get()
    caller = act.caller if act else None
    if caller is not None and caller.role == VISITOR:
        caller = None
    kind = ActorKind.SYSTEM if act is None else ActorKind.ANONYMOUS
    if caller is not None:
        kind = ActorKind.KEY if caller.key_id else ActorKind.USER
        if caller.role == ActorKind.OPERATOR:
            kind = ActorKind.OPERATOR
    return {
        "id": new_id(),
        "tenant_id": tenant_id,
        "created_at": now(),
        "actor_kind": kind.value,
        "actor_id": caller.user_id if caller else None,
        "key_id": caller.key_id if caller else None,
        "action": action.value,
        "object_type": object_type,
        "object_id": object_id,
        "fields": fields,
        "values": values,
        "operation": act.operation if act else None,
        "address": act.address if act else "",
        "request_id": act.request_id if act else None,
    }


# ---- What goes through the session ----


@event.listens_for(Session, "after_flush")
def _note_rows(session: OrmSession, context: UOWTransaction) -> None:
    """Every audited row that was just sent. What is not audited costs a look into a table."""
    rows = [
        told
        for action, changed in (
            (AuditAction.CREATE, session.new),
            (AuditAction.UPDATE, session.dirty),
            (AuditAction.DELETE, session.deleted),
        )
        for row in changed
        if row.__tablename__ in OBJECTS and (told := _told(session, action, row)) is not None
    ]
    if not rows:
        return
    ended = {row["object_id"] for row in rows if row["object_type"] == "tenant" and row["action"] == "delete"}
    for row in rows:
        if row["tenant_id"] in ended:
            row["tenant_id"] = None  # what told of a tenant's rows went with it
    _write(session, rows)


def _told(session: OrmSession, action: AuditAction, row: Base) -> dict[str, Any] | None:
    table = row.__tablename__
    fields, values = _changes(action, row)
    linked = session.info.get(_LINKED, {}).pop(row, {})
    fields, values = sorted([*fields, *linked]), {**values, **linked}
    if action is AuditAction.UPDATE and not fields:
        return None
    told = _row(action, _kind_of(row), _object_id(row), _tenant_of(row), fields, values)
    if table == "sign_ins" and told["actor_kind"] == ActorKind.ANONYMOUS:
        told |= {"actor_kind": ActorKind.USER.value, "actor_id": row.__dict__["user_id"]}
    return told


def _kind_of(row: Base) -> str:
    if isinstance(row, Document) and row.__dict__.get("session_id") is not None:
        return FILE
    return OBJECTS[row.__tablename__]


def _tenant_of(row: Base) -> str | None:
    if isinstance(row, TenantOwned):
        return row.tenant_id
    return row.__dict__["id"] if row.__tablename__ == "tenants" else None


def _object_id(row: Base) -> str:
    """Its id; of what joins two things, the first one's."""
    keys = inspect(row).mapper.primary_key_from_instance(row)
    return str(keys[0])


def _changes(action: AuditAction, row: Base) -> tuple[list[str], dict[str, Any]]:
    """The names of the fields that were set, and the values before and after that may be shown."""
    state, table = inspect(row), row.__tablename__
    keys = {} if "id" in state.mapper.columns else {column.name for column in state.mapper.primary_key}
    if action is AuditAction.DELETE:
        return [], {name: {"from": row.__dict__.get(name)} for name in sorted(keys)}
    fields: list[str] = []
    values: dict[str, Any] = {}
    for attribute in state.mapper.attrs:
        name = attribute.key
        linked = getattr(attribute, "secondary", None) is not None
        if not (linked or name in state.mapper.columns) or not is_told(table, name):
            continue
        history = state.attrs[name].history
        if not history.has_changes():
            continue
        after = history.added[0] if history.added else None
        before = history.deleted[0] if history.deleted else None
        if not linked and after == before:
            continue
        fields.append(name_of(name))
        if not linked and is_shown(name):
            values[name] = {"to": shown(name, after)}
            if action is AuditAction.UPDATE:
                values[name] = {"from": shown(name, before), **values[name]}
    return sorted(fields), values
