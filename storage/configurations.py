"""The settings that hold in a stack, read afresh for each use: a change holds at once, in every worker."""

from __future__ import annotations

from datetime import timedelta
from typing import cast

from sqlalchemy import Table, bindparam, func, or_, select, update

from models.audit import AuditAction
from models.base import Id, now
from models.chat.conversations import ChatSession, SessionStatus
from models.configuration import Configuration, Effective
from models.errors import Conflict
from models.tenancy import Stack, User
from storage import audit
from storage.database import Session, platform

_SIGNS = (
    func.coalesce(ChatSession.last_message_at, ChatSession.created_at),
    func.coalesce(ChatSession.revived_at, ChatSession.created_at),
)
"""Signs of life of a session."""


_TABLE, _STACKS = cast(Table, Configuration.__table__).c, cast(Table, Stack.__table__).c
_OWNER = select(_STACKS.tenant_id).where(_STACKS.id == bindparam("stack_id"))
_HOLD = select(_TABLE.stack_id, _TABLE["values"]).where(
    _TABLE.tenant_id == func.coalesce(bindparam("tenant_id", type_=Id), _OWNER.scalar_subquery()),
    or_(_TABLE.stack_id == bindparam("stack_id"), _TABLE.stack_id.is_(None)),
)
"""In SQLAlchemy Core, at every turn: a third of what the same costs over entities."""


def effective(db: Session, stack_id: str | None) -> Effective:
    """The settings that hold in a stack of the session's tenant (None: where a stack has none of its own)."""
    rows = db.connection().execute(_HOLD, {"tenant_id": db.tenant_id, "stack_id": stack_id})
    found = {row.stack_id: row.values for row in rows}
    return Effective.of(found.get(stack_id, {}), found.get(None, {}))


def check_room(db: Session, configuration: Effective, user_id: str, stack_id: str) -> None:
    """Raise ``Conflict`` unless the user may have one more active session in the stack.

    The user's row is held until the transaction ends, so that two who ask at once are not both the last.
    """
    most = configuration["max_concurrent_sessions"]
    if most is None:
        return
    db.get(User, user_id, with_for_update={"key_share": True})
    active = select(func.count()).where(
        ChatSession.user_id == user_id,
        ChatSession.stack_id == stack_id,
        ChatSession.status == SessionStatus.ACTIVE,
    )
    if configuration.timeout is not None:
        active = active.where(or_(*(sign >= now() - configuration.timeout for sign in _SIGNS)))
    if (db.scalar(active) or 0) >= most:
        raise Conflict(f"You have {most} active sessions here, which is the most. Archive or delete one.")


def is_idle(configuration: Effective, session: ChatSession) -> bool:
    """Whether a session was idle for longer than it may be."""
    last = max(session.last_message_at or session.created_at, session.revived_at or session.created_at)
    return configuration.timeout is not None and now() - last > configuration.timeout


def expire() -> int:
    """Mark sessions that were idle for longer than their stack's configuration allows; how many."""
    expired = 0
    with platform(writes=False) as db:
        timed = [
            (stack_id, configuration.timeout)
            for stack_id in _stacks_with_timeout(db)
            if (configuration := effective(db, stack_id)).timeout is not None
        ]
    for stack_id, timeout in timed:
        expired += _expire(stack_id, timeout or timedelta())
    return expired


def _stacks_with_timeout(db: Session) -> list[str]:
    setting = Configuration.values["session_timeout_minutes"].as_string()
    own = select(Configuration.stack_id).where(Configuration.stack_id.is_not(None), setting.is_not(None))
    whole = select(Stack.id).join(Configuration, Configuration.tenant_id == Stack.tenant_id)
    inherited = whole.where(Configuration.stack_id.is_(None), setting.is_not(None))
    return [*{*db.scalars(own), *db.scalars(inherited)}]


def _expire(stack_id: str, timeout: timedelta) -> int:
    idle = (
        ChatSession.stack_id == stack_id,
        ChatSession.status == SessionStatus.ACTIVE,
        *(sign < now() - timeout for sign in _SIGNS),
    )
    with platform(writes=False) as db:
        ids = list(db.scalars(select(ChatSession.id).where(*idle).limit(1000)))
    if not ids:
        return 0
    change = {"status": {"from": SessionStatus.ACTIVE, "to": SessionStatus.EXPIRED}}
    with platform() as db:
        stack = db.get_one(Stack, stack_id)
        expired = db.scalars(
            update(ChatSession)
            .where(ChatSession.id.in_(ids), *idle)
            .values(status=SessionStatus.EXPIRED, updated_at=ChatSession.updated_at)
            .returning(ChatSession.id)
            .execution_options(synchronize_session=False)
        ).all()
        of = stack.tenant_id
        audit.note_each(db, AuditAction.UPDATE, "session", expired, tenant_id=of, values=change)
    return len(expired)
