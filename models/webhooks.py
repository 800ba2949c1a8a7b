"""Webhooks: what a tenant is told of, where it is sent, and how often it is tried (Standard Webhooks 1.0)."""

from __future__ import annotations

import base64
import enum
import random
import secrets
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Index, LargeBinary, String, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Entity, Id, TenantOwned, now, own_key, reference

EVENT_TYPES: Final = (
    "session.created",
    "message.completed",
    "message.failed",
    "file.ready",
    "file.failed",
    "document.ready",
    "document.failed",
    "bot.session.created",
    "feedback.created",
    "user.invited",
    "api_key.created",
    "api_key.revoked",
    "subscription.changed",
)
"""What can be subscribed to. ``openapi/events.yaml`` describes each, with an example."""

TEST: Final = "webhook.test"
"""What a test sends, subscribed to or not."""

FACTS: Final[dict[str, frozenset[str]]] = {
    "session.created": frozenset({"id", "stack_id", "persona_id", "user_id"}),
    "message.completed": frozenset({"id", "session_id", "status", "model", "usage", "latency_ms"}),
    "message.failed": frozenset({"id", "session_id", "status", "model", "error_code"}),
    "file.ready": frozenset({"id", "session_id", "page_count"}),
    "file.failed": frozenset({"id", "session_id", "error_code"}),
    "document.ready": frozenset({"id", "index_id", "page_count"}),
    "document.failed": frozenset({"id", "index_id", "error_code"}),
    "bot.session.created": frozenset({"id", "bot_id", "stack_id", "persona_id"}),
    "feedback.created": frozenset({"message_id", "session_id", "rating"}),
    "user.invited": frozenset({"id", "role"}),
    "api_key.created": frozenset({"id", "user_id", "scopes", "expires_at"}),
    "api_key.revoked": frozenset({"id", "user_id"}),
    "subscription.changed": frozenset({"id", "product_id", "status", "seats", "capabilities"}),
    TEST: frozenset({"webhook_id"}),
}
"""What each event carries: ids and facts, never a text, a name or an address, so that nothing which is
deleted here goes on in a queue or with a receiver.
"""


def check_facts(type: str, data: dict[str, Any]) -> None:
    """A fault of ours, not of a caller's: an event that is not what the contract says of it."""
    if data.keys() != FACTS[type]:
        raise RuntimeError(f"{type} carries {', '.join(sorted(FACTS[type]))}; see models/webhooks.py")


SCHEDULE: Final = tuple(
    timedelta(seconds=seconds)
    for seconds in (5, 5 * 60, 30 * 60, *(hours * 3600 for hours in (2, 5, 10, 14, 20, 24)))
)
"""The waits between ten tries, 75 hours and a half in all."""
JITTER = 0.1
"""Each wait is longer by up to this part of it, so that what failed together does not come back together."""
LONGEST_WAIT = timedelta(hours=24)
"""The most that a receiver's ``Retry-After`` can ask for."""
ATTEMPT_SECONDS = 15.0
LEASE = timedelta(seconds=20)
"""For how long a delivery is its sender's, unless renewed; then it is anybody's again."""
KEPT = timedelta(days=30)
"""For how long deliveries can be looked at, and sent once more."""
MOST_ATTEMPTS_KEPT = 50
OVERLAP = timedelta(hours=24)


class DeliveryStatus(enum.StrEnum):
    """Where a delivery is. ``dead`` is the dead letter: tried often enough, or refused for good."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


def new_secret() -> tuple[str, bytes]:
    """A signing secret as its receiver keeps it (``whsec_`` and base64), and as bytes."""
    key = secrets.token_bytes(32)
    return "whsec_" + base64.b64encode(key).decode(), key


class Webhook(TenantOwned, Entity):
    """An endpoint of the tenant's and what it is told of. Secrets are encrypted.

    ``disabled_reason`` is ``gone`` when the receiver answered 410, else None.
    """

    __tablename__ = "webhooks"
    __table_args__ = (own_key(),)

    url: Mapped[str] = mapped_column(String(2000))
    description: Mapped[str] = mapped_column(String(500), default="")
    event_types: Mapped[list[str]]
    is_active: Mapped[bool] = mapped_column(default=True)
    disabled_reason: Mapped[str | None] = mapped_column(String(20))
    sealed_secret: Mapped[bytes] = mapped_column(LargeBinary)
    sealed_previous: Mapped[bytes | None] = mapped_column(LargeBinary)
    previous_until: Mapped[datetime | None]

    def rotate(self, sealed: bytes, overlap: timedelta) -> None:
        """Sign with a new secret, and for ``overlap`` with the one before it, too."""
        self.sealed_previous = self.sealed_secret if overlap else None
        self.previous_until = now() + overlap if overlap else None
        self.sealed_secret = sealed

    def sealed_secrets(self) -> list[bytes]:
        """What to sign with now, the newest first."""
        overlaps = self.previous_until is not None and self.previous_until > now()
        kept = [self.sealed_previous] if overlaps and self.sealed_previous is not None else []
        return [self.sealed_secret, *kept]

    def switch(self, on: bool) -> None:
        """Pause it, or go on: what waits is kept, and goes out when it is active again."""
        self.is_active = on
        if on:
            self.disabled_reason = None


_PENDING = text("status = 'pending'")


class Delivery(TenantOwned, Entity):
    """An event on its way to one endpoint.

    ``event_id`` makes the ``webhook-id`` that every try carries; ``body`` is what is sent, byte for byte;
    ``tries`` counts along the schedule; ``attempts`` keeps what came of each; ``holder`` sends it until
    ``lease_until``.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        own_key(),
        reference("webhook_id", "webhooks", ondelete="CASCADE"),
        Index("webhook_deliveries_listed", "webhook_id", "created_at", "id"),
        Index("webhook_deliveries_due", "due_at", sqlite_where=_PENDING, postgresql_where=_PENDING),
        Index(
            "webhook_deliveries_of_one",
            "webhook_id",
            "due_at",
            sqlite_where=_PENDING,
            postgresql_where=_PENDING,
        ),
    )

    webhook_id: Mapped[str] = mapped_column(Id)
    event_id: Mapped[str] = mapped_column(Id)
    event_type: Mapped[str] = mapped_column(String(50))
    body: Mapped[str]
    status: Mapped[str] = mapped_column(String(20), default=DeliveryStatus.PENDING)
    tries: Mapped[int] = mapped_column(default=0)
    attempts: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    due_at: Mapped[datetime] = mapped_column(default=now)
    lease_until: Mapped[datetime | None]
    holder: Mapped[str | None] = mapped_column(String(100))

    @property
    def message_id(self) -> str:
        """The ``webhook-id``: the same for every try, and for every endpoint that is told of the event."""
        return message_id(self.event_id)

    @property
    def is_under_way(self) -> bool:
        """Whether somebody sends it at this moment."""
        return self.lease_until is not None and self.lease_until > now()

    def again(self) -> None:
        """Send it now, along the whole schedule, under the same ``webhook-id``."""
        self.status, self.tries, self.due_at = DeliveryStatus.PENDING, 0, now()

    def take(self, attempt: dict[str, Any], *, retry_after: timedelta | None, gone: bool) -> None:
        """Note what came of a try, and what follows from it."""
        self.attempts = [*self.attempts, attempt][-MOST_ATTEMPTS_KEPT:]
        self.lease_until = self.holder = None
        code = attempt["status_code"]
        if code is not None and 200 <= code < 300:
            self.status = DeliveryStatus.DELIVERED
            return
        wait = None if gone else wait_after(self.tries, retry_after)
        if wait is None:
            self.status = DeliveryStatus.DEAD
        else:
            self.due_at = now() + wait


def message_id(event_id: str) -> str:
    """An event's ``webhook-id``."""
    return "msg_" + event_id.replace("-", "")


def wait_after(tries: int, retry_after: timedelta | None) -> timedelta | None:
    """How long to wait after the ``tries``-th try failed; None: it was the last one."""
    if tries > len(SCHEDULE):
        return None
    planned = SCHEDULE[max(tries, 1) - 1] * (1 + random.uniform(0, JITTER))  # noqa: S311 - no secret hangs on it
    return max(planned, min(retry_after or timedelta(0), LONGEST_WAIT))
