"""Who may go on with what is running: asked again and again while replies are written."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select

from models.access import SCOPES_OF_ROLE
from models.tenancy import Role, Seat, Stack, Subscription, Tenant, User, admissions
from storage.database import platform

Place = tuple[str | None, str]
"""A user (None: a bot's visitor) in a stack."""


def ended(places: Collection[Place]) -> set[Place]:
    """Those of the places where nobody may chat any more: the subscription, the account, its role, its seat
    or its region has ended.
    """
    stack_ids, user_ids = {stack for _, stack in places}, {user for user, _ in places if user is not None}
    with platform(writes=False) as db:
        running = (
            select(Stack.id, Subscription.capabilities)
            .join(Tenant, Tenant.id == Stack.tenant_id)
            .join(
                Subscription,
                (Subscription.tenant_id == Stack.tenant_id) & (Subscription.product_id == Stack.product_id),
            )
            .where(Stack.id.in_(stack_ids), Tenant.is_active, Subscription.runs())
        )
        open_stacks = {id for id, capabilities in db.execute(running) if "chat_ai" in capabilities}
        people = db.execute(select(User.id, User.role).where(User.id.in_(user_ids), User.is_active))
        roles = {id: role for id, role in people if "chat:write" in SCOPES_OF_ROLE.get(role, ())}
        admitted = set(map(tuple, db.execute(admissions().where(Seat.user_id.in_(user_ids)))))
    free = {id for id, role in roles.items() if role in (Role.ADMIN, Role.OWNER)}

    def goes_on(user: str | None, stack: str) -> bool:
        is_in = user is None or user in free or (user in roles and (user, stack) in admitted)
        return stack in open_stacks and is_in

    return {place for place in places if not goes_on(*place)}
