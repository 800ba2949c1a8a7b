"""Exports on the wire."""

from __future__ import annotations

from marshmallow import fields

from handlers.schemas import Instant, Wire


class TenantExport(Wire):
    """The component ``TenantExport``."""

    id = fields.String()
    status = fields.String()
    progress = fields.Float()
    size = fields.Integer(allow_none=True)
    detail = fields.String(allow_none=True)
    expires_at = Instant(allow_none=True)
    created_at = Instant()
    updated_at = Instant()


show = TenantExport().show
