"""Bots: personas on other people's sites, and what their visitors may spend."""

from __future__ import annotations

import re
import secrets
import string
from datetime import date
from ipaddress import IPv6Address
from typing import Any

from sqlalchemy import ForeignKeyConstraint, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from models.base import Base, Entity, Id, TenantOwned, own_key, reference
from models.errors import RuleBroken
from models.personas import Persona

_ALPHABET = string.ascii_letters + string.digits
_USUAL_PORTS = {"http": 80, "https": 443}


def new_public_key() -> str:
    """A bot's name in its site's pages: public, yet not to be guessed (143 bits)."""
    return "bot_" + "".join(secrets.choice(_ALPHABET) for _ in range(24))


class Bot(TenantOwned, Entity):
    """A persona that visitors of the allowed sites may ask without signing in."""

    __tablename__ = "bots"
    __table_args__ = (
        own_key(),
        reference("stack_id", "stacks"),
        reference("persona_id", "personas"),
        reference("organization_id", "organizations"),
        UniqueConstraint("tenant_id", "slug"),
    )

    stack_id: Mapped[str] = mapped_column(Id, index=True)
    persona_id: Mapped[str] = mapped_column(Id, index=True)
    organization_id: Mapped[str | None] = mapped_column(Id)
    name: Mapped[str] = mapped_column(String(200))
    slug: Mapped[str] = mapped_column(String(100))
    description: Mapped[str] = mapped_column(String(2000), default="")
    allowed_origins: Mapped[list[str]] = mapped_column(default=list)
    public_key: Mapped[str] = mapped_column(String(40), unique=True, default=new_public_key)
    epoch: Mapped[int] = mapped_column(default=0)
    """Visitors' tokens of an earlier one are dead."""
    is_active: Mapped[bool] = mapped_column(default=True)
    icon_url: Mapped[str | None] = mapped_column(String(2000))
    theme: Mapped[dict[str, Any]] = mapped_column(default=dict)
    greeting: Mapped[str] = mapped_column(String(2000), default="")
    suggested_questions: Mapped[list[str]] = mapped_column(default=list)
    rate_limit_per_minute: Mapped[int] = mapped_column(default=20)
    daily_message_limit: Mapped[int | None]
    daily_token_budget: Mapped[int | None]
    retention_days: Mapped[int | None]
    collect_feedback: Mapped[bool] = mapped_column(default=True)

    persona: Mapped[Persona] = relationship(viewonly=True)

    def set_active(self, wanted: bool) -> None:
        """Pause, or go on; who was talking to a paused bot begins anew."""
        if self.is_active and not wanted:
            self.epoch += 1
        self.is_active = wanted

    def allow(self, origins: list[str]) -> None:
        """Let these sites' pages talk to it, and no others."""
        for position, origin in enumerate(origins):
            check_origin(origin, f"/allowed_origins/{position}")
        if sorted(origins) != sorted(self.allowed_origins or []):
            self.epoch = (self.epoch or 0) + 1
        self.allowed_origins = origins

    def renew_key(self) -> None:
        """Another public key; the old one and its visitors' tokens are dead."""
        self.public_key = new_public_key()
        self.epoch += 1


def check_origin(origin: str, pointer: str) -> None:
    """Refuse an origin as no browser would send it (RFC 6454, 6.1), since it would never match."""
    scheme, _, place = origin.partition("://")
    port = re.search(r":(\d+)$", place)
    if port is not None and int(port[1]) == _USUAL_PORTS[scheme]:
        detail = "Browsers leave out the usual port of a scheme; leave it out here, too."
        raise RuleBroken(detail, pointer=pointer)
    if port is not None and int(port[1]) > 65_535:
        raise RuleBroken("There is no such port.", pointer=pointer)
    if place.startswith("[") and not _is_ipv6(place[1 : place.index("]")]):
        raise RuleBroken("This is no IPv6 address as browsers write it (RFC 5952).", pointer=pointer)


def _is_ipv6(text: str) -> bool:
    try:
        return str(IPv6Address(text)) == text
    except ValueError:
        return False


class BotDay(TenantOwned, Base):
    """What a bot's visitors used on one day (UTC). ``reserved``: tokens of replies that are being written."""

    __tablename__ = "bot_days"
    __table_args__ = (reference("bot_id", "bots", ondelete="CASCADE"),)

    bot_id: Mapped[str] = mapped_column(Id, primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    messages: Mapped[int] = mapped_column(default=0)
    tokens: Mapped[int] = mapped_column(default=0)
    reserved: Mapped[int] = mapped_column(default=0)


class BotReservation(TenantOwned, Base):
    """Tokens that a running reply may use at most, until what it used is known."""

    __tablename__ = "bot_reservations"
    __table_args__ = (
        reference("bot_id", "bots", ondelete="CASCADE"),
        ForeignKeyConstraint(["message_id"], ["messages.id"], ondelete="CASCADE"),
    )

    message_id: Mapped[str] = mapped_column(Id, primary_key=True)
    bot_id: Mapped[str] = mapped_column(Id, index=True)
    day: Mapped[date]
    tokens: Mapped[int]
