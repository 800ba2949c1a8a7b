"""The tenant's audit log: who did what to which object, from where."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select

from handlers.auth import caller
from handlers.replies import Listing, Paging
from handlers.schemas import audit as wire
from models.audit import AuditEntry

COLUMNS = (
    "id",
    "created_at",
    "actor",
    "actor_id",
    "key_id",
    "action",
    "object_type",
    "object_id",
    "fields",
    "values",
    "operation",
    "address",
    "request_id",
)


def list(
    paging: Paging,
    actor: str | None = None,
    actor_id: str | None = None,
    action: str | None = None,
    object_type: str | None = None,
    object_id: str | None = None,
    from_: str | None = None,
    to: str | None = None,
) -> Listing:
    """The acts for which every condition holds, newest first."""
    query = select(AuditEntry)
    for column, value in (
        (AuditEntry.actor_kind, actor),
        (AuditEntry.actor_id, actor_id),
        (AuditEntry.action, action),
        (AuditEntry.object_type, object_type),
        (AuditEntry.object_id, object_id),
    ):
        if value is not None:
            query = query.where(column == value)
    if from_ is not None:
        query = query.where(AuditEntry.created_at >= datetime.fromisoformat(from_))
    if to is not None:
        query = query.where(AuditEntry.created_at < datetime.fromisoformat(to))
    return Listing(
        query,
        wire.show,
        paging,
        {"created_at": AuditEntry.created_at},
        AuditEntry.id,
        caller(),
        columns=COLUMNS,
        by_cursor=(AuditEntry.created_at, AuditEntry.id),
    )
