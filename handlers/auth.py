"""Who calls: the caller of the request being answered, and what of a stack it may use."""

from __future__ import annotations

from contextvars import ContextVar

from models.access import Caller
from models.errors import CapabilityRequired
from models.tenancy import Seat, Stack, admissions
from storage.database import Session

_caller: ContextVar[Caller] = ContextVar("caller")
bind = _caller.set


def caller() -> Caller:
    """The authenticated caller; ``LookupError`` in a public operation, which has none."""
    return _caller.get()


_products: dict[str, str] = {}
"""The product of each stack seen so far; a stack never changes it."""


def require_stack_capability(db: Session, stack_id: str, capability: str) -> None:
    """Raise unless an active subscription for the stack's own product grants the capability, and the caller
    has a seat in one and is admitted to the stack's region. Administrators need neither seat nor region.
    """
    product_id = _products.get(stack_id)
    if product_id is None:
        product_id = _products[stack_id] = db.require(Stack, stack_id).product_id
    if (product_id, capability) not in caller().grants:
        raise CapabilityRequired(f"No active subscription for this stack's product grants {capability}.")
    if caller().is_admin:
        return
    admitted = admissions().where(Seat.user_id == caller().user_id, Stack.id == stack_id)
    if db.scalar(admitted.limit(1)) is None:
        raise CapabilityRequired(
            "You have no seat in a subscription of this stack's product, or are not admitted to its region."
        )
