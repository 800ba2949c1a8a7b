"""Replays of idempotent POSTs: the first answer to a key is kept for a day
(draft-ietf-httpapi-idempotency-key-header).

For plain operations the record is written in the handler's own transaction, so that the work and the memory
of it cannot part. For replies of a session, which outlive a transaction, the record holds the reply's id;
its row tells the rest.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import orjson
from sqlalchemy import select

from handlers.problems import Problem
from handlers.replies import Upload
from models.base import now
from models.work import IdempotencyRecord
from openapi.exchange import Exchange
from storage.database import Session

KEPT = timedelta(hours=24)


class Replay:
    """One use of an ``Idempotency-Key``."""

    def __init__(self, exchange: Exchange, key: str) -> None:
        caller, operation = exchange.caller, exchange.operation
        if caller is None or operation is None:
            raise RuntimeError("an idempotency key needs a caller and an operation")
        self.caller, self.operation, self.key = caller.identity, operation.id, key
        self.fingerprint = _fingerprint(exchange)

    def _record(self, db: Session) -> IdempotencyRecord | None:
        record = db.scalar(
            select(IdempotencyRecord).where(
                IdempotencyRecord.caller == self.caller,
                IdempotencyRecord.operation == self.operation,
                IdempotencyRecord.key == self.key,
            )
        )
        if record is not None and record.expires_at < now():
            db.delete(record)
            db.flush()
            return None
        if record is not None and record.fingerprint != self.fingerprint:
            raise Problem(
                "idempotency-key-reused",
                "This Idempotency-Key was used with other content.",
                faults=[{"parameter": "Idempotency-Key", "detail": "was used with other content"}],
            )
        return record

    def answered(self, db: Session) -> tuple[bytes | None, int, dict[str, str]] | None:
        """The first answer, if there was one."""
        record = self._record(db)
        if record is None or record.status is None:
            return None
        return record.body or None, record.status, {**(record.headers or {}), "Idempotent-Replayed": "true"}

    def message_id(self, db: Session) -> str | None:
        """The reply that this key began, if it began one."""
        record = self._record(db)
        return record.message_id if record else None

    def keep(
        self,
        db: Session,
        status: int | None,
        headers: dict[str, Any],
        body: bytes,
        message_id: str | None = None,
    ) -> None:
        """Remember the answer (or the reply's id), in the transaction of the work itself."""
        db.put(
            IdempotencyRecord(
                caller=self.caller,
                operation=self.operation,
                key=self.key,
                fingerprint=self.fingerprint,
                status=status,
                headers=headers,
                body=_without_secrets(body),
                message_id=message_id,
                expires_at=now() + KEPT,
            )
        )


SHOWN_ONCE = ("key", "secret")


def _without_secrets(body: bytes) -> bytes:
    if not any(b'"%b"' % name.encode() in body for name in SHOWN_ONCE):
        return body
    document = orjson.loads(body)
    return orjson.dumps({name: value for name, value in document.items() if name not in SHOWN_ONCE})


def _fingerprint(exchange: Exchange) -> str:
    digest = hashlib.sha256(orjson.dumps(exchange.path_values, option=orjson.OPT_SORT_KEYS))
    digest.update(exchange.body_fingerprint.encode())
    for name, value in sorted(exchange.arguments.items()):
        if isinstance(value, Upload):
            digest.update(f"{name}:{value.name}:".encode())
            while part := value.file.read(262_144):
                digest.update(part)
            value.file.seek(0)
        elif name != "body":
            digest.update(f"{name}={value!r};".encode())
    return digest.hexdigest()
