"""A tenant's data as an archive: what an export is, and what stands in it."""

from __future__ import annotations

import enum
from datetime import datetime, timedelta

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Entity, TenantOwned, own_key
from models.errors import Conflict, NotFound


class ExportStatus(enum.StrEnum):
    """Where an export is."""

    PENDING = "pending"
    RUNNING = "running"
    READY = "ready"
    FAILED = "failed"
    EXPIRED = "expired"


LIFETIME = timedelta(days=7)
"""For how long an archive can be fetched; then it is removed."""


class TenantExport(TenantOwned, Entity):
    """One archive of everything that a tenant has. ``size`` is in bytes."""

    __tablename__ = "tenant_exports"
    __table_args__ = (own_key(),)

    status: Mapped[str] = mapped_column(String(20), default=ExportStatus.PENDING)
    progress: Mapped[float] = mapped_column(default=0.0)
    size: Mapped[int | None] = mapped_column(BigInteger)
    detail: Mapped[str | None] = mapped_column(String(300))
    expires_at: Mapped[datetime | None]

    def check_ready(self) -> None:
        """Raise unless the archive can be fetched."""
        if self.status == ExportStatus.EXPIRED:
            raise NotFound("The archive has expired. Ask for another one.")
        if self.status != ExportStatus.READY:
            raise Conflict(f"The archive is not ready: its status is {self.status}.")


LEFT_OUT = frozenset(
    {
        "bot_reservations",
        "chunks",
        "idempotency_records",
        "jobs",
        "keyword_postings",
        "letters",
        "outbox_events",
        "second_factors",
        "tenant_exports",
        "token_reservations",
    }
)
"""Tables that hold nothing of the tenant's own: what is made of its files, promises, secrets."""

CATALOGUES = frozenset({"products", "regions"})
"""Tables of the installation that the tenant's rows refer to, and that every tenant may read."""

_SECRET = ("hash", "secret", "sealed", "password", "seed", "private")


def is_exported(column: str) -> bool:
    """Whether a column may leave the server. (What counts or limits tokens is no token.)"""
    parts = column.split("_")
    return parts[-1] != "token" and not any(word in parts for word in _SECRET)
