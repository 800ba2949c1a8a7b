"""Messages on the wire."""

from __future__ import annotations

from marshmallow import fields

from handlers.schemas import Instant, Wire
from handlers.schemas.search import citation_of


class Message(Wire):
    """The component ``Message``."""

    id = fields.String()
    session_id = fields.String()
    role = fields.String()
    content = fields.String()
    status = fields.String()
    answer_status = fields.String()
    citations = fields.Function(lambda row: [citation_of(citation) for citation in row.citations])
    numeric_checks = fields.Raw()
    usage = fields.Raw()
    cost = fields.Float()
    model = fields.String()
    provider = fields.String()
    persona_version = fields.Integer()
    latency_ms = fields.Integer()
    first_token_ms = fields.Integer()
    parent_id = fields.String()
    feedback = fields.Constant(None)
    error = fields.Raw()
    metadata = fields.Raw(attribute="attributes")
    created_at = Instant()


show = Message().show
