"""Seats: who may use what a subscription gives. Never more than were bought."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from handlers import tenancy
from handlers.auth import caller
from handlers.replies import Listing, Paging
from handlers.schemas import tenancy as wire
from models.errors import Conflict, NotFound, RuleBroken
from models.tenancy import Seat, Subscription, User
from storage.database import reading, transaction

show = wire.Seat().show


def list(id: str, paging: Paging) -> Listing:
    """Who has a seat."""
    with reading(caller()) as db:
        subscription = db.require(Subscription, id)
    return Listing(
        select(Seat).where(Seat.subscription_id == subscription.id),
        show,
        paging,
        {"created_at": Seat.created_at},
        Seat.user_id,
        caller(),
        columns=wire.columns(wire.Seat),
    )


def put(id: str, user_id: str) -> dict[str, Any]:
    """Give a user a seat, or find the one that is there. Those who ask at once are served one by one."""
    with transaction(caller()) as db:
        subscription = db.require(Subscription, id, lock=True)
        user = db.require(User, user_id)
        seat = db.get(Seat, (subscription.id, user.id))
        if seat is not None:
            return show(seat)
        if not user.is_active:
            raise RuleBroken("The user is not active.", parameter="user_id")
        if tenancy.seats_used(db, subscription) >= subscription.seats:
            raise Conflict(f"All {subscription.seats} seats are taken.")
        seat = Seat(subscription_id=subscription.id, user_id=user.id)
        db.add(seat)
        db.flush()
        return show(seat)


def delete(id: str, user_id: str) -> None:
    """Take a seat back."""
    with transaction(caller()) as db:
        subscription = db.require(Subscription, id, lock=True)
        seat = db.get(Seat, (subscription.id, user_id.lower()))
        if seat is None:
            raise NotFound()
        db.delete(seat)
