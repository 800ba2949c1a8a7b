"""Who may do what to a tenant's people."""

from __future__ import annotations

from models.errors import Conflict, Forbidden
from models.tenancy import Role, User


def check_may_touch(actor: str, *roles: str) -> None:
    """Raise where somebody who is no owner would change an owner, or make one."""
    if actor != Role.OWNER and Role.OWNER in roles:
        raise Forbidden("Only an owner may do this to an owner, or make one.")


def check_can_go(user: User, others: int) -> None:
    """Raise where no owner would be left who can sign in; ``others``: how many can beside this person."""
    if user.role == Role.OWNER and user.is_active and not others:
        raise Conflict("The last owner stays. Make somebody else an owner first.")
