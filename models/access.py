"""Who calls and what that caller may do: roles, scopes, API keys, sign-ins, signing keys."""

from __future__ import annotations

import hashlib
import secrets
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib import resources
from typing import Any

import yaml
from sqlalchemy import LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Entity, Id, TenantOwned, now, own_key, reference
from models.errors import RuleBroken
from models.tenancy import OPERATOR, Role

ROLES: dict[str, Any] = yaml.safe_load(resources.files(__package__).joinpath("roles.yaml").read_text("utf-8"))
"""The table of areas and roles, as the contract publishes it."""

AREAS = tuple(ROLES["areas"])
"""The parts of the product that scopes speak of."""

SCOPES = tuple(f"{area}:{verb}" for area in AREAS for verb in ("read", "write"))

SCOPES_OF_ROLE: dict[str, frozenset[str]] = {
    role: frozenset(f"{area}:{verb}" for verb in ("read", "write") for area in row[verb])
    for role, row in ROLES["roles"].items()
}
"""What each role may do at most. A key never has more than its maker's role has now."""


VISITOR = "visitor"
"""In place of a role: somebody who talks to a bot and has no account."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request, as far as any rule needs to know. Immutable; made anew when rights change."""

    tenant_id: str
    user_id: str
    role: str
    scopes: frozenset[str]
    grants: frozenset[tuple[str, str]]
    """(product, capability) of each active subscription of the tenant."""
    key_id: str | None = None
    sign_in_id: str | None = None
    name: str = field(default="", compare=False)
    rate_limit: int | None = None
    """Requests a minute, where the key has a limit of its own."""

    @property
    def capabilities(self) -> frozenset[str]:
        """What the tenant may use, of whichever product."""
        return frozenset(capability for _, capability in self.grants)

    @property
    def is_admin(self) -> bool:
        """Whether the caller administers the tenant."""
        return self.role in (Role.ADMIN, Role.OWNER)

    @property
    def is_operator(self) -> bool:
        """Whether the caller runs the installation and belongs to no tenant."""
        return self.role == OPERATOR

    @property
    def identity(self) -> str:
        """What limits and idempotency keys are counted for: the key, or else the user."""
        return f"key:{self.key_id}" if self.key_id else f"user:{self.user_id}"


def effective_scopes(role: str, granted: Iterable[str] | None) -> frozenset[str]:
    """The role's scopes, narrowed to ``granted`` for a key (None: a person, who has all of the role's)."""
    allowed = SCOPES_OF_ROLE.get(role, frozenset())
    return allowed if granted is None else allowed & frozenset(granted)


_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
KEY_PATTERN = r"^bk_(live|oper)_[0-9A-Za-z]{38}$"
"""An API key: ``bk_``, its kind, 32 random characters (190 bits) and 6 of checksum (CRC-32 in base 62)."""


def _checksum(text: str) -> str:
    value, digits = zlib.crc32(text.encode()), ""
    for _ in range(6):
        value, rest = divmod(value, 62)
        digits = _ALPHABET[rest] + digits
    return digits


def new_key(kind: str = "live") -> str:
    """A fresh API key, to be shown once."""
    body = f"bk_{kind}_" + "".join(secrets.choice(_ALPHABET) for _ in range(32))
    return body + _checksum(body)


def is_well_formed(key: str) -> bool:
    """Whether the checksum fits: a mistyped key is refused without asking the database."""
    return len(key) == 46 and key.startswith("bk_") and _checksum(key[:-6]) == key[-6:]


def digest(secret: str) -> str:
    """SHA-256 of a high-entropy secret, as stored. (Passwords are not this: they get argon2id.)"""
    return hashlib.sha256(secret.encode()).hexdigest()


class ApiKey(TenantOwned, Entity):
    """A key that acts as its maker, within its scopes.

    After a rotation the one before stays good until ``previous_until``.
    """

    __tablename__ = "api_keys"
    __table_args__ = (own_key(), reference("user_id", "users", ondelete="CASCADE"))

    user_id: Mapped[str] = mapped_column(Id, index=True)
    name: Mapped[str] = mapped_column(String(200))
    prefix: Mapped[str] = mapped_column(String(16))
    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    previous_hash: Mapped[str | None] = mapped_column(String(64), index=True)
    previous_until: Mapped[datetime | None]
    scopes: Mapped[list[str]]
    rate_limit_per_minute: Mapped[int | None]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]

    @classmethod
    def issue(
        cls,
        *,
        user_id: str,
        role: str,
        name: str,
        scopes: Iterable[str],
        expires_at: datetime | None = None,
        rate_limit_per_minute: int | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key of ``user_id`` and its secret text. Scopes beyond the maker's role are refused."""
        check_scopes(scopes, effective_scopes(role, None))
        secret = new_key("oper" if role == OPERATOR else "live")
        key = cls(
            user_id=user_id,
            name=name,
            prefix=secret[:12],
            key_hash=digest(secret),
            scopes=sorted(set(scopes)),
            expires_at=expires_at,
            rate_limit_per_minute=rate_limit_per_minute,
        )
        return key, secret

    def rotate(self, overlap: timedelta) -> str:
        """A new secret text in place of the present one, which stays good for ``overlap``."""
        secret = new_key(self.prefix[3:7])
        self.previous_hash = self.key_hash if overlap else None
        self.previous_until = now() + overlap if overlap else None
        self.key_hash, self.prefix = digest(secret), secret[:12]
        return secret

    def is_usable(self) -> bool:
        """Neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now())


def check_scopes(wanted: Iterable[str], held: frozenset[str]) -> None:
    """Raise unless all of ``wanted`` are held by whoever grants them."""
    beyond = sorted(set(wanted) - held)
    if beyond:
        raise RuleBroken(f"Your role does not hold {', '.join(beyond)}.", pointer="/scopes")


REFRESH_LIFETIME = timedelta(days=30)
"""How long a device stays signed in without a word from it."""


class SignIn(TenantOwned, Entity):
    """A signed-in device: the family of refresh tokens that descends from one login.

    ``rotation`` counts them, and only the newest is good. One that was spent is a sign of theft and ends the
    family (RFC 9700, 4.14). ``seed`` is what they are made from, encrypted; ``updated_at`` is the last use.
    """

    __tablename__ = "sign_ins"
    __table_args__ = (own_key(), reference("user_id", "users", ondelete="CASCADE"))

    user_id: Mapped[str] = mapped_column(Id, index=True)
    seed: Mapped[bytes] = mapped_column(LargeBinary)
    rotation: Mapped[int] = mapped_column(default=0)
    address: Mapped[str] = mapped_column(String(45), default="")
    user_agent: Mapped[str] = mapped_column(String(300), default="")
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]

    @classmethod
    def begin(cls, *, tenant_id: str, user_id: str, seed: bytes, address: str, user_agent: str) -> SignIn:
        """A device that has just signed in."""
        return cls(
            tenant_id=tenant_id,
            user_id=user_id,
            seed=seed,
            rotation=0,
            address=address[:45],
            user_agent=user_agent[:300],
            expires_at=now() + REFRESH_LIFETIME,
        )

    def is_open(self) -> bool:
        """Whether its tokens are still good."""
        return self.ended_at is None and self.expires_at > now()

    def spend(self, rotation: int) -> bool:
        """Take the refresh token of this rotation; a spent one is refused, and ends the family."""
        if not self.is_open():
            return False
        if rotation != self.rotation:
            self.end()
            return False
        self.rotation += 1
        self.expires_at = now() + REFRESH_LIFETIME
        return True

    def end(self) -> None:
        """Sign the device out."""
        self.ended_at = self.ended_at or now()


class SigningKey(Entity):
    """A private key for access tokens, encrypted with the installation's secret; ``id`` is the JWT's
    ``kid``. It signs until ``retired_at``, and verifies until the last token it signed has expired.
    """

    __tablename__ = "signing_keys"

    algorithm: Mapped[str] = mapped_column(String(20))
    private_key: Mapped[bytes] = mapped_column(LargeBinary)
    retired_at: Mapped[datetime | None]
