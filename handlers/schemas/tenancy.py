"""Tenants, what they subscribed to and where it stands, on the wire."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from handlers.schemas import Instant, Named, Wire


class Quotas(Wire):
    """The component ``Quotas``."""

    tokens_per_day = fields.Integer(attribute="max_tokens_per_day")
    storage_bytes = fields.Integer(attribute="max_storage_bytes")
    documents = fields.Integer(attribute="max_documents")


class Tenant(Named):
    """The component ``Tenant``."""

    is_active = fields.Boolean()
    quotas = fields.Function(lambda tenant: Quotas().dump(tenant))
    created_at = Instant()
    updated_at = Instant()


class Organization(Named):
    """The component ``Organization``."""

    created_at = Instant()
    updated_at = Instant()


class Stack(Named):
    """The component ``Stack``."""

    product_id = fields.String()
    region_id = fields.String()
    created_at = Instant()
    updated_at = Instant()


class Region(Named):
    """The component ``Region``."""

    slug = fields.String()
    created_at = Instant()
    updated_at = Instant()


class Product(Region):
    """The component ``Product``."""

    capabilities = fields.List(fields.String())


class Subscription(Wire):
    """The component ``Subscription``. ``seats_used`` is given beside the row."""

    id = fields.String()
    tenant_id = fields.String()
    product_id = fields.String()
    status = fields.String()
    seats = fields.Integer()
    seats_used = fields.Integer()
    capabilities = fields.List(fields.String())
    period_start = Instant()
    period_end = Instant()
    created_at = Instant()
    updated_at = Instant()


class Seat(Wire):
    """The component ``Seat``."""

    subscription_id = fields.String()
    user_id = fields.String()
    created_at = Instant()


def columns(wire: type[Wire]) -> tuple[str, ...]:
    """The fields in their order, for CSV."""
    return tuple(wire().declared_fields)


def used(now: int, limit: Any) -> dict[str, Any]:
    """The component ``Used``."""
    return {"used": now, "limit": limit}
