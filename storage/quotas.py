"""What a tenant may use: tokens of a day, bytes and documents. Reserved before it is used, settled after.

Reservations of one tenant queue up at one row, so that however many ask at once, never more is promised
than is left. A tenant without a quota waits for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import cache
from typing import Any, cast

from sqlalchemy import Connection, Table, bindparam, func, select, update
from sqlalchemy import delete as remove
from sqlalchemy.dialects import postgresql, sqlite

from models.base import now
from models.errors import QuotaExhausted, TooManyRequests
from models.knowledge.library import Document
from models.tenancy import Tenant, TokenDay, TokenReservation
from storage.database import OfTenant, Session, reading, transaction

FORGET_TENANT = "forget_tenant"
"""The kind of job that removes what a deleted tenant left outside of SQL."""

HELD = timedelta(minutes=30)
"""For how long a reservation that nobody settles is held: its process is gone."""


def spent_today(db: Session, tenant_id: str) -> int:
    """Tokens that the tenant has spent on this day (UTC)."""
    query = select(TokenDay.tokens).where(TokenDay.tenant_id == tenant_id, TokenDay.day == now().date())
    return db.scalar(query) or 0


def stored(db: Session, tenant_id: str) -> tuple[int, int]:
    """Bytes and number of the tenant's documents, files of sessions included."""
    query = select(func.coalesce(func.sum(Document.size), 0), func.count())
    size, count = db.execute(query.where(Document.tenant_id == tenant_id)).one()
    return int(size), count


def check_room(db: Session, tenant_id: str) -> None:
    """Raise ``QuotaExhausted`` if what was just added is more than the tenant may keep.

    In the transaction that adds it, which then does not commit; others of the tenant wait for its end.
    """
    tenant = db.get_one(Tenant, tenant_id)
    if tenant.max_storage_bytes is None and tenant.max_documents is None:
        return
    tenant = db.get_one(Tenant, tenant_id, with_for_update={"key_share": True}, populate_existing=True)
    size, count = stored(db, tenant_id)
    if tenant.max_documents is not None and count > tenant.max_documents:
        raise QuotaExhausted(f"The tenant may keep {tenant.max_documents} documents.")
    if tenant.max_storage_bytes is not None and size > tenant.max_storage_bytes:
        raise QuotaExhausted(f"The tenant may keep {tenant.max_storage_bytes} bytes of documents.")


_TENANTS = cast(Table, Tenant.__table__).c
_LIMIT = select(_TENANTS.max_tokens_per_day).where(_TENANTS.id == bindparam("tenant_id"))


def admit(of: OfTenant, reply_id: str, tokens: int) -> None:
    """Have room for a reply that may spend ``tokens``, within the caller's transaction if there is one."""
    with reading(of) as db:
        limit = db.connection().execute(_LIMIT, {"tenant_id": of.tenant_id}).scalar()
    if limit is not None:
        with transaction(of) as db:
            reserve(db, of.tenant_id, reply_id, tokens)


def reserve(db: Session, tenant_id: str, reply_id: str, tokens: int) -> None:
    """Hold ``tokens`` of the day's for a reply; ``TooManyRequests`` until midnight if fewer are left."""
    limit = db.scalar(select(Tenant.max_tokens_per_day).where(Tenant.id == tenant_id))
    if limit is None:
        return
    at = now()
    _ensure_day(db.connection(), tenant_id, at)
    of_today = (TokenDay.tenant_id == tenant_id, TokenDay.day == at.date())
    spent = db.scalar(select(TokenDay.tokens).where(*of_today).with_for_update()) or 0
    db.execute(
        remove(TokenReservation)
        .where(TokenReservation.tenant_id == tenant_id, TokenReservation.expires_at <= at)
        .execution_options(synchronize_session=False)
    )
    held_query = select(func.coalesce(func.sum(TokenReservation.tokens), 0))
    held = int(db.scalar(held_query.where(TokenReservation.tenant_id == tenant_id)) or 0)
    if spent + held + tokens > limit:
        midnight = datetime.combine(at.date() + timedelta(days=1), datetime.min.time(), at.tzinfo)
        detail = f"The tenant may spend {limit} tokens a day, and too few of them are left."
        raise TooManyRequests(detail, max(1, int((midnight - at).total_seconds())))
    db.add(TokenReservation(id=reply_id, tenant_id=tenant_id, tokens=tokens, expires_at=at + HELD))
    db.flush()


_DAYS = cast(Table, TokenDay.__table__)
_SPEND = (
    update(_DAYS)
    .where(_DAYS.c.tenant_id == bindparam("of"), _DAYS.c.day == bindparam("on"))
    .values(tokens=_DAYS.c.tokens + bindparam("more"))
)
_LET_GO = remove(TokenReservation).where(TokenReservation.id.in_(bindparam("ids", expanding=True)))


def settle(connection: Connection, spent: Iterable[tuple[str, str, int]]) -> None:
    """Replies (tenant, id, tokens) have ended: count what they spent, let go of what was held."""
    spent = list(spent)
    if not spent:
        return
    at, sums = now(), dict[str, int]()
    for tenant_id, _, tokens in spent:
        sums[tenant_id] = sums.get(tenant_id, 0) + tokens
    for tenant_id, tokens in sorted(sums.items()):
        _ensure_day(connection, tenant_id, at)
        connection.execute(_SPEND, {"of": tenant_id, "on": at.date(), "more": tokens})
    connection.execute(_LET_GO, {"ids": [id for _, id, _ in spent]})


def abandon(connection: Connection, tenant_id: str, reply_id: str) -> None:
    """A reply's writer is gone: what was held for it counts as spent, since nobody knows how much was."""
    held = connection.execute(select(TokenReservation.tokens).where(TokenReservation.id == reply_id)).scalar()
    if held is not None:
        settle(connection, [(tenant_id, reply_id, held)])


def _ensure_day(connection: Connection, tenant_id: str, at: datetime) -> None:
    new = _new_day(connection.dialect.name)
    connection.execute(new, {"tenant_id": tenant_id, "day": at.date(), "tokens": 0})


@cache
def _new_day(dialect: str) -> Any:
    return (sqlite.insert if dialect == "sqlite" else postgresql.insert)(_DAYS).on_conflict_do_nothing()
