"""Accounts of people: finding them by address, letters to them with links that serve once, signing out.

What an anonymous request asks for an address is done some time after its answer, so that no answer, and not
the time that it or the next one takes, tells whether the address is known.
"""

from __future__ import annotations

import base64
import time
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from random import SystemRandom

import structlog
from sqlalchemy import ColumnElement, func, select, update

from models.access import ApiKey, SignIn, digest
from models.base import now
from models.errors import Unavailable
from models.letters import Letter, LetterKind
from models.personas import PersonaAssignment
from models.tenancy import RegionAssignment, Role, Seat, Tenant, User
from storage import queue, secrets
from storage.database import Session, platform
from storage.settings import settings

log = structlog.get_logger("booga.accounts")

MAIL = "mail"
"""The kind of job that sends a letter."""


def active(db: Session, which: ColumnElement[bool]) -> User | None:
    """The person of whom that is true and who may sign in."""
    query = select(User).join(Tenant, Tenant.id == User.tenant_id)
    return db.scalar(query.where(which, User.is_active, Tenant.is_active, User.password_hash.is_not(None)))


def is_taken(db: Session, email: str) -> bool:
    """Whether the address signs in to some account already."""
    return db.scalar(select(User.id).where(User.email == email, User.password_hash.is_not(None))) is not None


def other_owners(db: Session, user_id: str) -> int:
    """How many owners beside this one can sign in. The tenant is locked: who asks at the same time waits."""
    db.get(Tenant, db.tenant_id, with_for_update={"key_share": True})
    query = select(func.count()).where(
        User.id != user_id, User.role == Role.OWNER, User.is_active, User.password_hash.is_not(None)
    )
    return db.scalar(query.select_from(User)) or 0


def sign_out(db: Session, user_id: str, *, except_id: str | None = None) -> None:
    """End the person's sign-ins, but for this one. Row by row, so that each is audited."""
    mine = select(SignIn).where(SignIn.user_id == user_id, SignIn.ended_at.is_(None))
    for device in db.scalars(mine.with_for_update()):
        if device.id != except_id:
            device.end()


def let_go(db: Session, user: User) -> None:
    """Delete a person. What they were given goes row by row, so that each is audited."""
    for entity in (ApiKey, Seat, RegionAssignment, PersonaAssignment):
        for row in db.scalars(select(entity).where(entity.user_id == user.id)):
            db.delete(row)
    db.flush()
    db.delete(user)


# -- letters


def write(db: Session, user: User, kind: LetterKind) -> None:
    """Promise a letter with this transaction. A job sends it, so that slow mail delays nobody."""
    letter = db.put(Letter.to(user.tenant_id, user.id, kind))
    queue.enqueue(db, MAIL, letter.id, tenant_id=user.tenant_id)


def link_of(letter: Letter) -> str:
    """The letter's link; its token is made of the letter's id and the installation's secret, and kept as a
    hash. Made again it is the same, so that a mail which was sent twice holds one link.
    """
    mac = secrets.mac("letter", letter.id)
    token = "bkm_" + base64.urlsafe_b64encode(mac).decode().rstrip("=")
    letter.token_hash = digest(token)
    return f"{settings().public_url}/account#{letter.kind}={token}"


def redeem(db: Session, token: str, kinds: Collection[LetterKind]) -> tuple[Letter, User] | None:
    """The letter that a link came with, and its person, both locked; None for whatever is not good."""
    letter = db.scalar(select(Letter).where(Letter.token_hash == digest(token)).with_for_update())
    if letter is None or not letter.is_good() or letter.kind not in kinds:
        return None
    user = db.scalar(select(User).where(User.id == letter.user_id).with_for_update())
    tenant = db.get(Tenant, letter.tenant_id)
    if user is None or not user.is_active or tenant is None or not tenant.is_active:
        return None
    return letter, user


def use_up(db: Session, user_id: str) -> None:
    """None of the person's letters has a good link any more."""
    db.execute(
        update(Letter).where(Letter.user_id == user_id, Letter.used_at.is_(None)).values(used_at=now())
    )


# -- what an anonymous request asks for

SOONEST, LATEST = 0.2, 1.2
"""Seconds after the first wish in which all that wait are seen to: done at once, a letter would slow down
the very answer, and the next one, by a third.
"""
MOST_WISHES = 1000

_later = ThreadPoolExecutor(1, thread_name_prefix="accounts")
_wishes: deque[Callable[[], None]] = deque()


def afterwards(work: Callable[..., None], *args: str) -> None:
    """Do something after the answer that does not depend on it; the database has to be there for it."""
    if len(_wishes) >= MOST_WISHES:
        raise Unavailable("Too many ask for mail at this moment.")
    with platform(writes=False) as db:
        db.execute(select(1))
    _wishes.append(partial(copy_context().run, work, *args))  # the audit log tells who wished
    _later.submit(_see_to_all)


def _see_to_all() -> None:
    if _wishes:
        time.sleep(SystemRandom().uniform(SOONEST, LATEST))
    while _wishes:
        try:
            _wishes.popleft()()
        except Exception as fault:  # whatever it is: nobody waits for this, and who gets no mail asks again
            log.error("mail not promised", fault=type(fault).__name__)


def send_reset(email: str) -> None:
    """A letter by which the account's password can be set anew; those who are still invited get that letter
    again.
    """
    with platform() as db:
        user = active(db, User.email == email)
        if user is not None:
            write(db, user, LetterKind.RESET)
            return
        invited = select(User).join(Tenant, Tenant.id == User.tenant_id)
        for waiting in db.scalars(invited.where(User.email == email, User.is_active, Tenant.is_active)):
            write(db, waiting, LetterKind.INVITATION)


def register(email: str, tenant: str, name: str) -> None:
    """A tenant with its owner, who has no password before the address is confirmed. What was registered
    before and never confirmed makes room.
    """
    with platform() as db:
        _forget_unconfirmed(db)
        user = active(db, User.email == email)
        if user is not None:
            write(db, user, LetterKind.KNOWN)
            return
        made = db.put(Tenant(name=tenant))
        owner = db.put(User(tenant_id=made.id, email=email, name=name, role=Role.OWNER))
        write(db, owner, LetterKind.REGISTRATION)


def _forget_unconfirmed(db: Session) -> None:
    registrations = select(Letter).where(
        Letter.kind == LetterKind.REGISTRATION, Letter.used_at.is_(None), Letter.expires_at < now()
    )
    for letter in db.scalars(registrations.limit(100)):
        accepted = select(User.id).where(User.tenant_id == letter.tenant_id, User.password_hash.is_not(None))
        tenant = db.get(Tenant, letter.tenant_id)
        if tenant is not None and db.scalar(accepted.limit(1)) is None:
            db.delete(tenant)
        else:
            letter.used_at = now()
