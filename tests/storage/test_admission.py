"""Who may go on with a reply that is being written, as everything that this stands on ends."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, update

from handlers.commands import make_tenant
from models.base import now
from models.tenancy import RegionAssignment, Role, Seat, Stack, Subscription, Tenant, User
from storage import admission
from storage.admission import Place
from storage.database import Session, platform

Change = Callable[[Session, "People"], Any]


class People:
    """Who is in the stack of a tenant, and in that of another one."""

    def __init__(self) -> None:
        self.tenant = make_tenant("Tenant A", "owner@example.com", "correct horse battery")
        self.other = make_tenant("Tenant B", "other@example.com", "correct horse battery")
        self.stack = self.tenant["stack_id"]
        of = {"tenant_id": self.tenant["tenant_id"]}
        with platform() as db:
            seats = db.query(Seat).filter_by(user_id=self.tenant["user_id"]).one()
            region = db.get_one(Stack, self.stack).region_id
            self.ids = {"owner": self.tenant["user_id"]}
            for role in (Role.ADMIN, Role.MEMBER, Role.VIEWER):
                user = db.put(User(**of, email=f"{role}@example.com", role=role))
                self.ids[role.value] = user.id
            for role in (Role.MEMBER, Role.VIEWER):
                id = self.ids[role.value]
                db.put(Seat(**of, subscription_id=seats.subscription_id, user_id=id))
                db.put(RegionAssignment(**of, user_id=id, region_id=region))

    def place(self, who: str) -> Place:
        """Where somebody's reply is written; "visitor": a bot's."""
        return self.ids.get(who), self.stack

    def who_goes_on(self) -> set[str]:
        """Those of the tenant, and of the other one, whose replies go on."""
        places = {who: self.place(who) for who in (*self.ids, "visitor")}
        places["another tenant's"] = self.other["user_id"], self.other["stack_id"]
        gone = admission.ended(set(places.values()))
        return {who for who, place in places.items() if place not in gone}


@pytest.fixture
def people(migrated: None) -> People:
    return People()


EVERYBODY = {"owner", "admin", "member", "visitor", "another tenant's"}
OTHERS = {"another tenant's"}


def _subscription(**values: Any) -> Change:
    def change(db: Session, people: People) -> Any:
        of = Subscription.tenant_id == people.tenant["tenant_id"]
        return db.execute(update(Subscription).where(of).values(**values))

    return change


def _user(who: str, **values: Any) -> Change:
    def change(db: Session, people: People) -> Any:
        return db.execute(update(User).where(User.id == people.ids[who]).values(**values))

    return change


def _without(entity: type[Seat | RegionAssignment]) -> Change:
    def change(db: Session, people: People) -> Any:
        return db.execute(delete(entity).where(entity.tenant_id == people.tenant["tenant_id"]))

    return change


ENDS: dict[str, tuple[Change, set[str]]] = {
    "nothing": (lambda db, people: None, EVERYBODY),
    "the seats": (_without(Seat), EVERYBODY - {"member"}),
    "the regions": (_without(RegionAssignment), EVERYBODY - {"member"}),
    "a member's account": (_user("member", is_active=False), EVERYBODY - {"member"}),
    "a member's role": (_user("member", role=Role.VIEWER), EVERYBODY - {"member"}),
    "an owner's account": (_user("owner", is_active=False), EVERYBODY - {"owner"}),
    "an admin's role": (_user("admin", role=Role.MEMBER), EVERYBODY - {"admin"}),
    "the subscription": (_subscription(status="suspended"), OTHERS),
    "the capability": (_subscription(capabilities=[]), OTHERS),
    "the period": (_subscription(period_end=now() - timedelta(seconds=1)), OTHERS),
    "the tenant": (
        lambda db, people: db.execute(
            update(Tenant).where(Tenant.id == people.tenant["tenant_id"]).values(is_active=False)
        ),
        OTHERS,
    ),
}


@pytest.mark.parametrize("what", ENDS)
def test_with_it_end_the_replies_that_stood_on_it_and_no_other(what: str, people: People) -> None:
    change, left = ENDS[what]
    with platform() as db:
        change(db, people)
    assert people.who_goes_on() == left


def test_a_seat_of_one_tenant_admits_to_no_stack_of_another(people: People) -> None:
    stranger = people.ids["member"], people.other["stack_id"]
    assert admission.ended({stranger}) == {stranger}
