"""Chat sessions on the wire."""

from __future__ import annotations

from marshmallow import fields

from handlers.schemas import Instant, Wire


class Session(Wire):
    """The component ``Session``."""

    id = fields.String()
    title = fields.String()
    status = fields.String()
    persona_id = fields.String()
    stack_id = fields.String()
    user_id = fields.String()
    bot_id = fields.String()
    model = fields.String()
    metadata = fields.Raw(attribute="attributes")
    message_count = fields.Integer()
    last_message_at = Instant()
    created_at = Instant()
    updated_at = Instant()


show = Session().show
