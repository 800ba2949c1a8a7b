"""Columns that every table shares: identity, times, and the tenant a row belongs to."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import uuid_utils
from sqlalchemy import JSON, DateTime, Dialect, ForeignKey, ForeignKeyConstraint, UniqueConstraint, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column
from sqlalchemy.types import TypeDecorator


def now() -> datetime:
    """The present instant, UTC."""
    return datetime.now(UTC)


def new_id() -> str:
    """A UUID of version 7 (RFC 9562): ids made later sort later, so that new rows stay together in an
    index.
    """
    return str(uuid_utils.uuid7())


class Instant(TypeDecorator[datetime]):
    """An instant that is UTC and aware on both databases (SQLite keeps no zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive time, which would mean another instant on another machine."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a stored instant needs a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """UTC again, whatever zone the database's session has."""
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


class _Id(Uuid[str]):
    """A UUID as text. SQLite keeps its digits, of which SQLAlchemy would make an object to write it out."""

    cache_ok = True

    def __init__(self) -> None:
        super().__init__(as_uuid=False)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], str | None] | None:
        """The text of what the database gives."""
        return super().result_processor(dialect, coltype) if dialect.supports_native_uuid else _written_out


def _written_out(digits: str | None) -> str | None:
    if digits is None:
        return None
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


Id = _Id()


class Base(DeclarativeBase):
    """All tables."""

    type_annotation_map = {
        datetime: Instant,
        dict[str, Any]: Json,
        list[str]: Json,
        list[dict[str, Any]]: Json,
    }


class Entity(Base):
    """A row with an id of its own and the times at which it was made and last changed."""

    __abstract__ = True

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class TenantOwned:
    """Mixed into each table whose rows belong to one tenant; the database session sees only that tenant's."""

    @declared_attr
    def tenant_id(cls) -> Mapped[str]:  # noqa: N805 - SQLAlchemy passes the class
        """The owner of the row."""
        return mapped_column(Id, ForeignKey("tenants.id", ondelete="CASCADE"), index=True)


def own_key() -> UniqueConstraint:
    """What references to a tenant's row are made of, so that none can point into another tenant."""
    return UniqueConstraint("tenant_id", "id")


def reference(column: str, table: str, **options: Any) -> ForeignKeyConstraint:
    """A foreign key to ``table`` that holds within the tenant only."""
    return ForeignKeyConstraint(["tenant_id", column], [f"{table}.tenant_id", f"{table}.id"], **options)
