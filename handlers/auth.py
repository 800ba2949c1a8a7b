"""Who calls: the caller of the request being answered, for handlers that need to know."""

from __future__ import annotations

from contextvars import ContextVar

from models.access import Caller

_caller: ContextVar[Caller] = ContextVar("caller")
bind = _caller.set


def caller() -> Caller:
    """The authenticated caller; ``LookupError`` in a public operation, which has none."""
    return _caller.get()
