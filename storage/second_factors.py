"""Second factors in SQL: their secrets sealed, their codes taken once however many try at the same moment."""

from __future__ import annotations

from sqlalchemy import select

from models.access import digest
from models.base import now
from models.errors import Conflict
from models.second_factor import SecondFactor, new_recovery_codes, new_secret, uri_of
from models.tenancy import User
from storage import secrets
from storage.database import Session, platform


def passes(user_id: str, code: str | None) -> bool:
    """Whether the person may pass with this code; who has set up no second factor needs none."""
    with platform(writes=False) as db:
        factor = _of(db, user_id)
        if factor is None or factor.enabled_at is None:
            return True
    if code is None:
        return False
    with platform() as db:
        factor = _of(db, user_id, lock=True)
        if factor is None or factor.enabled_at is None:
            return True
        secret = secrets.unseal(factor.sealed_secret).decode()
        return factor.take_code(secret, code) or factor.take_recovery_code(code)


def begin(db: Session, user: User) -> tuple[str, str, list[str]]:
    """A new secret that is not asked for yet, its ``otpauth://`` URI, and recovery codes."""
    factor = _of(db, user.id, lock=True)
    if factor is not None and factor.enabled_at is not None:
        raise Conflict("A second factor is set up already. Remove it first.")
    secret, codes = new_secret(), new_recovery_codes()
    factor = factor or SecondFactor(user_id=user.id)
    factor.sealed_secret = secrets.seal(secret.encode())
    factor.recovery_hashes = [digest(code) for code in codes]
    factor.last_step = 0
    db.put(factor)
    return secret, uri_of(secret, user.email), codes


def enable(db: Session, user_id: str, code: str) -> bool:
    """Ask for the second factor from now on, if the code shows that the person's device has the secret."""
    factor = _of(db, user_id, lock=True)
    if factor is None or factor.enabled_at is not None:
        raise Conflict("There is no second factor that waits for its first code.")
    if not factor.take_code(secrets.unseal(factor.sealed_secret).decode(), code):
        return False
    factor.enabled_at = now()
    return True


def remove(db: Session, user_id: str) -> None:
    """Take the second factor away, if there is one."""
    factor = _of(db, user_id, lock=True)
    if factor is not None:
        db.delete(factor)


def _of(db: Session, user_id: str, *, lock: bool = False) -> SecondFactor | None:
    query = select(SecondFactor).where(SecondFactor.user_id == user_id)
    return db.scalar(query.with_for_update() if lock else query)
