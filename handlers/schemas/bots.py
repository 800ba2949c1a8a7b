"""Bots on the wire."""

from __future__ import annotations

from marshmallow import fields

from handlers.schemas import Instant, Named, Wire


class Bot(Wire):
    """The component ``Bot``."""

    id = fields.String()
    name = fields.String()
    slug = fields.String()
    description = fields.String()
    persona = fields.Nested(Named)
    persona_id = fields.String()
    stack_id = fields.String()
    organization_id = fields.String()
    allowed_origins = fields.Raw()
    public_key = fields.String()
    is_active = fields.Boolean()
    icon_url = fields.String()
    theme = fields.Raw()
    greeting = fields.String()
    suggested_questions = fields.Raw()
    rate_limit_per_minute = fields.Integer()
    daily_message_limit = fields.Integer()
    daily_token_budget = fields.Integer()
    retention_days = fields.Integer()
    collect_feedback = fields.Boolean()
    created_at = Instant()
    updated_at = Instant()


show = Bot().show
