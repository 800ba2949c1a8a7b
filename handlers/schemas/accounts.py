"""Signed-in devices on the wire."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from handlers.schemas import Instant, Wire
from models.access import SignIn


class Device(Wire):
    """The component ``Device``."""

    id = fields.String()
    address = fields.String()
    user_agent = fields.String()
    is_current = fields.Boolean()
    created_at = Instant()
    last_used_at = Instant()
    expires_at = Instant()


_device = Device()


def show(device: SignIn, current: str | None) -> dict[str, Any]:
    """A device, and whether it is the one that asks."""
    return _device.show(
        {
            "id": device.id,
            "address": device.address,
            "user_agent": device.user_agent,
            "is_current": device.id == current,
            "created_at": device.created_at,
            "last_used_at": device.updated_at,
            "expires_at": device.expires_at,
        }
    )
