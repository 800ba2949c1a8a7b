"""Work that outlives a request: jobs, and the answers kept for repeated requests."""

from __future__ import annotations

import enum
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Index, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Entity, Id, TenantOwned, now


class JobStatus(enum.StrEnum):
    """Where a job is; one that is done has no row. ``dead`` is the dead letter: tried often enough."""

    QUEUED = "queued"
    RUNNING = "running"
    DEAD = "dead"


JOB_LEASE = timedelta(seconds=20)
JOB_ATTEMPTS = 3
JOB_BACKOFF = timedelta(seconds=2)
JOB_LONGEST_BACKOFF = timedelta(seconds=30)


def backoff(times: int) -> timedelta:
    """How long to wait after the ``times``-th failure: 2, 4, 8, 16, then 30 seconds."""
    factor: int = 2 ** min(times - 1, 8)
    return min(JOB_BACKOFF * factor, JOB_LONGEST_BACKOFF)


class Job(TenantOwned, Entity):
    """Work by kind and subject (an id, never a pickle). A lease that ends makes it anybody's again.

    ``details`` holds what the subject's own row can no longer tell; the lower ``priority`` comes first;
    ``postponed`` counts the times when a part that the job needs was away, which is no fault of the job.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index("jobs_due", "status", "priority", "due_at"),
        UniqueConstraint("kind", "subject_id"),
    )

    kind: Mapped[str] = mapped_column(String(50))
    subject_id: Mapped[str] = mapped_column(Id)
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
    priority: Mapped[int] = mapped_column(default=5)
    status: Mapped[str] = mapped_column(String(20), default=JobStatus.QUEUED)
    attempts: Mapped[int] = mapped_column(default=0)
    postponed: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime] = mapped_column(default=now)
    lease_until: Mapped[datetime | None]
    worker: Mapped[str | None] = mapped_column(String(100))
    error: Mapped[str | None] = mapped_column(String(1000))


class IdempotencyRecord(TenantOwned, Entity):
    """The first answer to a POST, kept for a day under the caller's own key (IETF
    draft-ietf-httpapi-idempotency-key).
    """

    __tablename__ = "idempotency_records"
    __table_args__ = (UniqueConstraint("tenant_id", "caller", "operation", "key"),)

    caller: Mapped[str] = mapped_column(String(100))
    operation: Mapped[str] = mapped_column(String(100))
    key: Mapped[str] = mapped_column(String(255))
    fingerprint: Mapped[str] = mapped_column(String(64))
    message_id: Mapped[str | None] = mapped_column(Id)
    status: Mapped[int | None]
    headers: Mapped[dict[str, Any] | None]
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    expires_at: Mapped[datetime]
