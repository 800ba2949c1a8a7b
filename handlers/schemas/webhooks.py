"""Webhooks and their deliveries on the wire; a secret is shown once, where it is made."""

from __future__ import annotations

from typing import Any

import orjson
from marshmallow import fields

from handlers.schemas import Instant, Wire
from models.webhooks import Delivery, DeliveryStatus


class Webhook(Wire):
    """The component ``Webhook``."""

    id = fields.String()
    url = fields.String()
    description = fields.String()
    event_types = fields.List(fields.String())
    is_active = fields.Boolean()
    disabled_reason = fields.String()
    created_at = Instant()
    updated_at = Instant()


class WebhookDelivery(Wire):
    """The component ``WebhookDelivery``."""

    id = fields.String()
    webhook_id = fields.String()
    message_id = fields.String()
    event_type = fields.String()
    status = fields.String()
    attempts = fields.Raw()
    next_attempt_at = fields.Method("_next")
    payload = fields.Method("_payload")
    created_at = Instant()
    updated_at = Instant()

    def _next(self, row: Delivery) -> Any:
        return Instant()._serialize(row.due_at, None, row) if row.status == DeliveryStatus.PENDING else None

    def _payload(self, row: Delivery) -> Any:
        return orjson.loads(row.body)


show = Webhook().show
show_delivery = WebhookDelivery().show
