"""Who calls: the caller of the request being answered, and what of a stack it may use."""

from __future__ import annotations

from contextvars import ContextVar

from sqlalchemy import select

from models.access import Caller
from models.errors import CapabilityRequired
from models.tenancy import Stack, Subscription
from storage.database import Session

_caller: ContextVar[Caller] = ContextVar("caller")
bind = _caller.set


def caller() -> Caller:
    """The authenticated caller; ``LookupError`` in a public operation, which has none."""
    return _caller.get()


def require_stack_capability(db: Session, stack_id: str, capability: str) -> None:
    """Raise unless an active subscription for the stack's own product grants the capability."""
    of_product = (
        select(Subscription)
        .join(Stack, Stack.product_id == Subscription.product_id)
        .where(Stack.id == stack_id, Stack.tenant_id == Subscription.tenant_id)
    )
    if not any(subscription.grants(capability) for subscription in db.scalars(of_product)):
        raise CapabilityRequired(f"No active subscription for this stack's product grants {capability}.")
