"""Mails to people: what each says, and the link in it that serves once."""

from __future__ import annotations

import enum
from datetime import datetime, timedelta

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Entity, Id, TenantOwned, now, own_key, reference


class LetterKind(enum.StrEnum):
    """What a letter is about."""

    INVITATION = "invitation"
    REGISTRATION = "registration"
    RESET = "reset"
    KNOWN = "known"


LIFETIMES = {
    LetterKind.INVITATION: timedelta(days=7),
    LetterKind.REGISTRATION: timedelta(days=1),
    LetterKind.RESET: timedelta(hours=1),
    LetterKind.KNOWN: timedelta(hours=1),
}
"""How long a letter's link serves, and for how long it is tried to be sent."""

WELCOMES = (LetterKind.INVITATION, LetterKind.REGISTRATION)
"""Letters whose link sets somebody's first password."""

SUBJECTS = {
    LetterKind.INVITATION: "You are invited to {tenant}",
    LetterKind.REGISTRATION: "Confirm your address",
    LetterKind.RESET: "Choose a new password",
    LetterKind.KNOWN: "You have an account already",
}
TEXTS = {
    LetterKind.INVITATION: """You are invited to work with {tenant} on Booga.

Choose a password here, within a week:

{link}

If you do not know {tenant}, leave this mail alone: nothing happens.
""",
    LetterKind.REGISTRATION: """A tenant is being registered with this address on Booga.

Choose a password here, within a day:

{link}

If that was not you, leave this mail alone: nothing happens.
""",
    LetterKind.RESET: """Somebody asked for a new password for your account with {tenant} on Booga.

Choose one here, within an hour. All of your devices are signed out then:

{link}

If that was not you, leave this mail alone: your password stays what it is.
""",
    LetterKind.KNOWN: """Somebody tried to register this address on Booga, but it has an account already,
with {tenant}.

If that was you, sign in, or ask for a new password. Else leave this mail alone: nothing has changed.
""",
}


class Letter(TenantOwned, Entity):
    """A mail to a person. ``token_hash`` is of the secret in its link, null until the link is made; the
    secret itself is kept nowhere.
    """

    __tablename__ = "letters"
    __table_args__ = (own_key(), reference("user_id", "users", ondelete="CASCADE"))

    user_id: Mapped[str] = mapped_column(Id, index=True)
    kind: Mapped[str] = mapped_column(String(20))
    token_hash: Mapped[str | None] = mapped_column(String(64), unique=True)
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]

    @classmethod
    def to(cls, tenant_id: str, user_id: str, kind: LetterKind) -> Letter:
        """A letter that is about to be sent."""
        return cls(tenant_id=tenant_id, user_id=user_id, kind=kind, expires_at=now() + LIFETIMES[kind])

    def is_good(self) -> bool:
        """Neither used nor out of date."""
        return self.used_at is None and self.expires_at > now()


def compose(kind: str, tenant: str, link: str) -> tuple[str, str]:
    """Subject and text. A registration's holds no word of whoever registers, who may be anybody."""
    called = " ".join(tenant.split())
    which = LetterKind(kind)
    return SUBJECTS[which].format(tenant=called), TEXTS[which].format(tenant=called, link=link)
