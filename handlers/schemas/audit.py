"""The audit log on the wire."""

from __future__ import annotations

from marshmallow import fields

from handlers.schemas import Instant, Wire


class AuditEntry(Wire):
    """The component ``AuditEntry``."""

    id = fields.String()
    created_at = Instant()
    actor = fields.String(attribute="actor_kind")
    actor_id = fields.String(allow_none=True)
    key_id = fields.String(allow_none=True)
    action = fields.String()
    object_type = fields.String()
    object_id = fields.String(allow_none=True)
    fields_ = fields.Raw(attribute="fields", data_key="fields")
    values = fields.Raw()
    operation = fields.String(allow_none=True)
    address = fields.String()
    request_id = fields.String(allow_none=True)


show = AuditEntry().show
