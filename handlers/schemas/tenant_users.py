"""A tenant's people on the wire."""

from __future__ import annotations

from marshmallow import fields

from handlers.schemas import Instant, Wire


class TenantUser(Wire):
    """The component ``TenantUser``."""

    id = fields.String()
    email = fields.String()
    name = fields.String()
    role = fields.String()
    is_active = fields.Boolean()
    is_invited = fields.Boolean()
    created_at = Instant()
    updated_at = Instant()


show = TenantUser().show
