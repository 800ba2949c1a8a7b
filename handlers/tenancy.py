"""What the resources of tenants have in common: lists by name, rows that may be in use, names that are
taken, times that came as text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import object_session

from handlers.auth import caller
from handlers.replies import Column, Listing, Paging
from handlers.schemas import Wire
from handlers.schemas import tenancy as wire
from models.base import Entity
from models.errors import Conflict
from models.tenancy import Organization, Product, Region, Seat, Stack, Subscription
from storage.database import EVERYONE, Everyone, OfTenant, Session, reading, transaction

Kind = type[Organization | Stack | Product | Region]


def listing(kind: Kind, shown: Wire, paging: Paging, *searched: Column) -> Listing:
    """The rows of a kind that has a name, as a list."""
    return Listing(
        select(kind),
        shown.show,
        paging,
        {"name": kind.name, "created_at": kind.created_at, "updated_at": kind.updated_at},
        kind.id,
        caller(),
        searched=searched,
        columns=wire.columns(type(shown)),
    )


def put(db: Session, row: Entity, taken: str, pointer: str) -> None:
    """Send a row to the database; what has to be unique and is not is a conflict."""
    try:
        with db.begin_nested():
            db.put(row)
    except IntegrityError as fault:
        raise Conflict(taken, pointer=pointer) from fault
    db.refresh(row)


def remove(db: Session, row: Entity, used_by: str) -> None:
    """Delete a row, unless something refers to it that would be left hanging."""
    try:
        with db.begin_nested():
            db.delete(row)
            db.flush()
    except IntegrityError as fault:
        raise Conflict(f"{used_by} it. Remove them first.") from fault


def seats_used(db: Session, subscription: Subscription) -> int:
    """How many people have a seat."""
    query = select(func.count()).select_from(Seat).where(Seat.subscription_id == subscription.id)
    return db.scalar(query) or 0


def show_subscription(subscription: Subscription) -> dict[str, Any]:
    """The subscription with the number of its taken seats."""
    db = object_session(subscription)
    if not isinstance(db, Session):
        raise RuntimeError("a subscription is shown while its session is open")
    return {**wire.Subscription().show(subscription), "seats_used": seats_used(db, subscription)}


def instant(text: str | None) -> datetime | None:
    """A time of the contract."""
    return None if text is None else datetime.fromisoformat(text)


def seen() -> OfTenant | Everyone:
    """Whose rows the caller sees: its tenant's, and everybody's for operators."""
    return EVERYONE if caller().is_operator else caller()


@contextmanager
def looking() -> Iterator[Session]:
    """A view of what the caller sees, also across tenants for operators."""
    with reading(caller()) as db, _beyond(db):
        yield db


@contextmanager
def changing() -> Iterator[Session]:
    """A unit of work of an operator, across tenants."""
    with transaction(caller()) as db, _beyond(db):
        yield db


@contextmanager
def _beyond(db: Session) -> Iterator[Session]:
    own = db.tenant_id
    if caller().is_operator:
        db.tenant_id = None
    try:
        yield db
        db.flush()
    finally:
        db.tenant_id = own
