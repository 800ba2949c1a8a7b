"""Deliveries of events to webhooks (Standard Webhooks 1.0): claimed under a lease, sent, noted.

Every server process and every ``booga worker`` has couriers; the table is the truth, so that there is no
leader, and what a killed process had in hand is sent by another once its lease ends. A receiver is told at
least once, each time under the same ``webhook-id``.

No receiver waits for another one: each has only so many deliveries in hand, and those that failed or were
slow the last time share places of their own.
"""

from __future__ import annotations

import os
import re
import secrets as random_names
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import structlog
from sqlalchemy import delete as remove
from sqlalchemy import or_, select, update

from models.base import now
from models.webhooks import ATTEMPT_SECONDS, KEPT, LEASE, Delivery, DeliveryStatus, Webhook
from storage import events, outbound, secrets
from storage.database import platform
from storage.outbound import Answered, OutboundRefused

POLL_SECONDS = 1.0
"""How soon is sent what another process published, or what is tried again. Our own goes at once."""
PLACES = 32
"""Deliveries in hand at once, of receivers that do well; as many again of all others."""
AT_ONCE = 4
"""Deliveries in hand for one receiver that does well; one for any other."""
SLOW_SECONDS = 2.0
READ_BYTES = 4096
EXCERPT = 500
_RENEWAL_SECONDS = LEASE.total_seconds() / 4
_PRUNING_SECONDS = 3600.0
_UNPRINTABLE = re.compile(r"[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\uffff]")

_log = structlog.get_logger("booga.webhooks")


@dataclass(frozen=True, slots=True)
class Parcel:
    """A delivery in hand."""

    id: str
    webhook_id: str
    url: str
    sealed_secrets: list[bytes] = field(repr=False)
    message_id: str
    body: bytes = field(repr=False)


class Couriers:
    """The sending of one process: a thread that claims, and one for each delivery in hand."""

    def __init__(self) -> None:
        self._name = f"{socket.gethostname()[:60]}:{os.getpid()}:{random_names.token_hex(4)}"
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._held: dict[str, Parcel] = {}
        self._poor: set[str] = set()
        """Receivers that failed or were slow the last time."""
        self._thread = threading.Thread(target=self._serve, name="couriers", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        events.waiting.add(self._woken)
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End within ``timeout`` seconds; what is still in hand then is given back."""
        deadline = time.monotonic() + timeout
        self._stopping.set()
        self._woken.set()
        self._thread.join(timeout)
        while self._held and time.monotonic() < deadline:
            time.sleep(0.02)  # threads that send end by themselves
        held = list(self._held)
        if held:
            with platform() as db:
                db.execute(
                    update(Delivery)
                    .where(Delivery.id.in_(held), Delivery.holder == self._name)
                    .values(holder=None, lease_until=None, tries=Delivery.tries - 1)
                )

    def _serve(self) -> None:
        renewed = pruned = time.monotonic() - _PRUNING_SECONDS
        while not self._stopping.is_set():
            self._woken.clear()
            parcels = self._guarded(self._claim) or []
            for parcel in parcels:
                threading.Thread(target=self._carry, args=(parcel,), name="courier", daemon=True).start()
            if time.monotonic() - renewed > _RENEWAL_SECONDS:
                renewed = time.monotonic()
                self._guarded(self._renew)
            if time.monotonic() - pruned > _PRUNING_SECONDS:
                pruned = time.monotonic()
                self._guarded(prune)
            if not parcels:
                self._woken.wait(POLL_SECONDS)

    def _guarded(self, step: Callable[[], Any]) -> Any:
        """A step whose faults (the database is away, say) must not end the thread."""
        try:
            return step()
        except Exception as fault:  # whatever it is, the next round may go better
            _log.error("deliveries_fault", fault=type(fault).__name__)
            self._stopping.wait(POLL_SECONDS)
            return None

    def _claim(self) -> list[Parcel]:
        """Take what is due, as far as there are places, from each receiver alike."""
        at = now()
        due = (
            Delivery.status == DeliveryStatus.PENDING,
            Delivery.due_at <= at,
            or_(Delivery.lease_until.is_(None), Delivery.lease_until < at),
        )
        in_hand = Counter(parcel.webhook_id for parcel in list(self._held.values()))
        full = [id for id, count in in_hand.items() if count >= self._most(id)]
        receivers = (
            select(Delivery.webhook_id)
            .join(Webhook, Webhook.id == Delivery.webhook_id)
            .where(*due, Webhook.is_active, Delivery.webhook_id.not_in(full))
            .distinct()
        )
        with platform(writes=False) as db:
            waiting = list(db.scalars(receivers))
        room = {
            poor: PLACES - sum(in_hand[id] for id in in_hand if (id in self._poor) is poor)
            for poor in (True, False)
        }
        claimed: list[Parcel] = []
        wanted: list[tuple[str, int]] = []
        for id in waiting:
            poor = id in self._poor
            count = min(self._most(id) - in_hand[id], room[poor])
            if count > 0:
                room[poor] -= count
                wanted.append((id, count))
        if not wanted:
            return []
        with platform() as db:
            for id, count in wanted:
                webhook = db.get(Webhook, id)
                if webhook is None or not webhook.is_active:
                    continue
                rows = (
                    select(Delivery)
                    .where(*due, Delivery.webhook_id == id)
                    .order_by(Delivery.due_at)
                    .limit(count)
                    .with_for_update(skip_locked=True)
                )
                for row in db.scalars(rows):
                    row.holder, row.lease_until = self._name, at + LEASE
                    row.tries += 1
                    sealed = webhook.sealed_secrets()
                    claimed.append(Parcel(row.id, id, webhook.url, sealed, row.message_id, row.body.encode()))
        self._held |= {parcel.id: parcel for parcel in claimed}
        return claimed

    def _most(self, webhook_id: str) -> int:
        return 1 if webhook_id in self._poor else AT_ONCE

    def _carry(self, parcel: Parcel) -> None:
        try:
            self._guarded(lambda: self._note(parcel, *_sent(parcel)))
        finally:
            self._held.pop(parcel.id, None)
            self._woken.set()

    def _note(self, parcel: Parcel, attempt: dict[str, Any], answered: Answered | None) -> None:
        """Write what came of a try of ours, and what follows."""
        code = attempt["status_code"]
        well = code is not None and 200 <= code < 300
        if well and attempt["duration_ms"] < SLOW_SECONDS * 1000:
            self._poor.discard(parcel.webhook_id)
        else:
            self._poor.add(parcel.webhook_id)
        gone = code == 410
        with platform() as db:
            webhook = db.get(Webhook, parcel.webhook_id, with_for_update=True) if gone else None
            row = db.scalar(
                select(Delivery)
                .where(Delivery.id == parcel.id, Delivery.holder == self._name)
                .with_for_update()
            )
            if row is None:
                return
            row.take(attempt, retry_after=retry_after(answered) if answered else None, gone=gone)
            if webhook is not None:
                webhook.is_active, webhook.disabled_reason = False, "gone"
                db.flush()
                db.execute(
                    update(Delivery)
                    .where(Delivery.webhook_id == webhook.id, Delivery.status == DeliveryStatus.PENDING)
                    .values(status=DeliveryStatus.DEAD, holder=None, lease_until=None)
                )
            status = row.status
        if status == DeliveryStatus.DEAD:
            _log.warning("delivery_dead", webhook_id=parcel.webhook_id, delivery_id=parcel.id, code=code)

    def _renew(self) -> None:
        held = list(self._held)
        if held:
            with platform() as db:
                db.execute(
                    update(Delivery)
                    .where(Delivery.id.in_(held), Delivery.holder == self._name)
                    .values(lease_until=now() + LEASE)
                )


def _sent(parcel: Parcel) -> tuple[dict[str, Any], Answered | None]:
    """Send it; what is kept of the try, and the answer if there was one."""
    began, at = time.monotonic(), now()
    answered, error = None, None
    try:
        answered = outbound.post(
            parcel.url,
            parcel.body,
            signed(parcel, at),
            seconds=ATTEMPT_SECONDS,
            limit=READ_BYTES,
        )
    except OutboundRefused as refused:
        error = refused.detail
    except Exception as fault:  # a fault of ours is told without its words, and the delivery is tried again
        _log.error("delivery_failed", delivery_id=parcel.id, fault=type(fault).__name__)
        error = "The server failed to send this."
    attempt = {
        "at": at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "status_code": answered.status if answered else None,
        "duration_ms": int((time.monotonic() - began) * 1000),
        "error": error,
        "response_excerpt": _excerpt(answered.body) if answered else None,
    }
    return attempt, answered


def signed(parcel: Parcel, at: datetime) -> dict[str, str]:
    """The headers of a try: signed with the present secret and, during an overlap, with the one before."""
    from standardwebhooks.webhooks import Webhook as Signer  # not needed where nothing is sent

    text = parcel.body.decode()
    signatures = [
        Signer(secrets.unseal(sealed)).sign(parcel.message_id, at, text) for sealed in parcel.sealed_secrets
    ]
    return {
        "Content-Type": "application/json",
        "User-Agent": "Booga-Webhooks",
        "webhook-id": parcel.message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def retry_after(answered: Answered) -> timedelta | None:
    """How long the receiver asks to be left alone (RFC 9110, 10.2.3)."""
    told = answered.headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}", told):
        return timedelta(seconds=int(told))
    try:
        return max(parsedate_to_datetime(told) - now(), timedelta(0))
    except (ValueError, TypeError):  # no date, or one without a zone: as if nothing had been asked
        return None


def _excerpt(body: bytes) -> str:
    """The beginning of an answer, as any database and any terminal can bear it."""
    return _UNPRINTABLE.sub("\ufffd", body.decode("utf-8", "replace"))[:EXCERPT]


def prune() -> int:
    """Remove deliveries that are older than they are kept; how many."""
    with platform() as db:
        gone = db.execute(remove(Delivery).where(Delivery.created_at < now() - KEPT))
        return gone.rowcount  # type: ignore[attr-defined,no-any-return]  # a deletion's result has it
