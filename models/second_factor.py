"""A second factor: one-time passwords by time (RFC 6238), and recovery codes for a lost device."""

from __future__ import annotations

import secrets
from datetime import datetime

import pyotp
from sqlalchemy import LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from models.access import digest
from models.base import Entity, Id, TenantOwned, now, own_key, reference

STEP_SECONDS = 30
DRIFT = 1
"""Steps by which a device's clock may be off."""
RECOVERY_CODES = 10
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"


def new_secret() -> str:
    """160 random bits, in base 32 as authenticator apps take them."""
    return pyotp.random_base32()


def new_recovery_codes() -> list[str]:
    """Ten codes of some 79 bits each, to be shown once."""
    return [
        "-".join("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(4))
        for _ in range(RECOVERY_CODES)
    ]


def uri_of(secret: str, email: str) -> str:
    """What a QR code for authenticator apps says (``otpauth://``)."""
    return pyotp.TOTP(secret).provisioning_uri(name=email, issuer_name="Booga")


class SecondFactor(TenantOwned, Entity):
    """A person's second factor; asked for from ``enabled_at`` on. ``last_step`` is the newest time step whose
    code was taken: no code serves twice.
    """

    __tablename__ = "second_factors"
    __table_args__ = (own_key(), reference("user_id", "users", ondelete="CASCADE"))

    user_id: Mapped[str] = mapped_column(Id, unique=True)
    sealed_secret: Mapped[bytes] = mapped_column(LargeBinary)
    recovery_hashes: Mapped[list[str]]
    last_step: Mapped[int] = mapped_column(default=0)
    enabled_at: Mapped[datetime | None]

    def take_code(self, secret: str, code: str) -> bool:
        """Take a code of the authenticator: of this step or a neighbour, and of none that was taken."""
        present = int(now().timestamp()) // STEP_SECONDS
        totp = pyotp.TOTP(secret)
        for step in range(present - DRIFT, present + DRIFT + 1):
            expected = totp.at(step * STEP_SECONDS)
            if step > self.last_step and secrets.compare_digest(expected.encode(), code.encode()):
                self.last_step = step
                return True
        return False

    def take_recovery_code(self, code: str) -> bool:
        """Take a recovery code, which serves once."""
        hashed = digest(code.strip().lower())
        if hashed not in self.recovery_hashes:
            return False
        self.recovery_hashes = [other for other in self.recovery_hashes if other != hashed]
        return True
