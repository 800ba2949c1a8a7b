"""Who belongs to what: tenants, what they subscribed to, their stacks and their people."""

from __future__ import annotations

import enum
from datetime import date, datetime

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    ForeignKey,
    Index,
    Select,
    String,
    UniqueConstraint,
    and_,
    or_,
    select,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Entity, Id, TenantOwned, now, own_key, reference


class Role(enum.StrEnum):
    """What a person may do in a tenant, weakest first."""

    VIEWER = "viewer"
    MEMBER = "member"
    ADMIN = "admin"
    OWNER = "owner"


OPERATOR = "operator"
"""The role of those who run the installation; no role that a tenant can give."""
PLATFORM = "00000000-0000-0000-0000-000000000000"
"""The tenant of operators, which is no company: their sessions see no tenant's rows, and no list shows it."""


class Tenant(Entity):
    """A company whose data nobody else sees."""

    __tablename__ = "tenants"

    name: Mapped[str] = mapped_column(String(200))
    is_active: Mapped[bool] = mapped_column(default=True)
    max_tokens_per_day: Mapped[int | None] = mapped_column(BigInteger)
    max_storage_bytes: Mapped[int | None] = mapped_column(BigInteger)
    max_documents: Mapped[int | None]


class Product(Entity):
    """What can be subscribed to, with the capabilities it carries (global)."""

    __tablename__ = "products"

    name: Mapped[str] = mapped_column(String(200))
    slug: Mapped[str] = mapped_column(String(100), unique=True)
    capabilities: Mapped[list[str]]


class Region(Entity):
    """Where a stack stands (global)."""

    __tablename__ = "regions"

    name: Mapped[str] = mapped_column(String(200))
    slug: Mapped[str] = mapped_column(String(100), unique=True)


class Subscription(TenantOwned, Entity):
    """A tenant's right to a product: seats, capabilities and the period in which they hold."""

    __tablename__ = "subscriptions"
    __table_args__ = (own_key(),)

    product_id: Mapped[str] = mapped_column(Id, ForeignKey("products.id"))
    status: Mapped[str] = mapped_column(String(20), default="active")
    seats: Mapped[int]
    capabilities: Mapped[list[str]]
    period_start: Mapped[datetime]
    period_end: Mapped[datetime | None]

    def grants(self, capability: str, at: datetime | None = None) -> bool:
        """Whether this subscription gives ``capability`` at that instant (default: now)."""
        moment = at or now()
        running = self.period_start <= moment and (self.period_end is None or moment < self.period_end)
        return self.status == "active" and running and capability in self.capabilities

    @classmethod
    def runs(cls, at: datetime | None = None) -> ColumnElement[bool]:
        """The condition for subscriptions that hold at that instant (default: now)."""
        moment = at or now()
        return and_(
            cls.status == "active",
            cls.period_start <= moment,
            or_(cls.period_end.is_(None), cls.period_end > moment),
        )


class Stack(TenantOwned, Entity):
    """A tenant's product in a region: what personas and sessions belong to."""

    __tablename__ = "stacks"
    __table_args__ = (own_key(), UniqueConstraint("tenant_id", "product_id", "region_id"))

    name: Mapped[str] = mapped_column(String(200))
    product_id: Mapped[str] = mapped_column(Id, ForeignKey("products.id"))
    region_id: Mapped[str] = mapped_column(Id, ForeignKey("regions.id"))


class Organization(TenantOwned, Entity):
    """A label within a tenant; it grants nothing."""

    __tablename__ = "organizations"
    __table_args__ = (own_key(),)

    name: Mapped[str] = mapped_column(String(200))


class User(TenantOwned, Entity):
    """A person of a tenant. An address signs in to one account in the whole installation, but may be invited
    by many: an invitation claims nothing, so that it tells nobody who has an account elsewhere.
    """

    __tablename__ = "users"
    __table_args__ = (
        own_key(),
        UniqueConstraint("tenant_id", "email", name="users_tenant_id_email_key"),
        Index(
            "users_who_sign_in",
            "email",
            unique=True,
            sqlite_where=text("password_hash IS NOT NULL"),
            postgresql_where=text("password_hash IS NOT NULL"),
        ),
    )

    email: Mapped[str] = mapped_column(String(320), index=True)
    name: Mapped[str] = mapped_column(String(200), default="")
    role: Mapped[str] = mapped_column(String(20), default=Role.MEMBER)
    is_active: Mapped[bool] = mapped_column(default=True)
    password_hash: Mapped[str | None] = mapped_column(String(200))

    @property
    def is_invited(self) -> bool:
        """Whether the invitation is not accepted yet."""
        return self.password_hash is None


class Seat(TenantOwned, Base):
    """A user's place in a subscription."""

    __tablename__ = "seats"
    __table_args__ = (
        reference("subscription_id", "subscriptions", ondelete="CASCADE"),
        reference("user_id", "users", ondelete="CASCADE"),
    )

    subscription_id: Mapped[str] = mapped_column(Id, primary_key=True)
    user_id: Mapped[str] = mapped_column(Id, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=now)


class RegionAssignment(TenantOwned, Base):
    """A user's admission to a region."""

    __tablename__ = "region_assignments"
    __table_args__ = (reference("user_id", "users", ondelete="CASCADE"),)

    user_id: Mapped[str] = mapped_column(Id, primary_key=True)
    region_id: Mapped[str] = mapped_column(Id, ForeignKey("regions.id", ondelete="CASCADE"), primary_key=True)


def admissions() -> Select[str, str]:
    """A query for (user, stack): who has a seat in a running subscription of the stack's product and is
    admitted to its region.
    """
    of_product = and_(Stack.tenant_id == Subscription.tenant_id, Stack.product_id == Subscription.product_id)
    to_region = and_(RegionAssignment.user_id == Seat.user_id, RegionAssignment.region_id == Stack.region_id)
    return (
        select(Seat.user_id, Stack.id)
        .join(Subscription, Subscription.id == Seat.subscription_id)
        .join(Stack, of_product)
        .join(RegionAssignment, to_region)
        .where(Subscription.runs())
    )


class TokenDay(TenantOwned, Base):
    """Tokens that a tenant with a quota has spent on a day (UTC). Reservations queue up at its row."""

    __tablename__ = "token_days"

    tenant_id: Mapped[str] = mapped_column(
        Id, ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    day: Mapped[date] = mapped_column(primary_key=True)
    tokens: Mapped[int] = mapped_column(BigInteger, default=0)


class TokenReservation(TenantOwned, Base):
    """Tokens that a running reply may yet spend; ``id`` is the reply's. One that nobody settles expires."""

    __tablename__ = "token_reservations"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    tokens: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[datetime]
