"""Providers on the wire; a key never is."""

from __future__ import annotations

from marshmallow import fields

from handlers.schemas import Instant, Wire


class LlmModel(Wire):
    """The component ``LlmModel``."""

    name = fields.String()
    input_price = fields.Float()
    output_price = fields.Float()
    context_window = fields.Function(lambda model: model.get("context_window"))


class LlmProvider(Wire):
    """The component ``LlmProvider``."""

    id = fields.String()
    name = fields.String()
    kind = fields.String()
    base_url = fields.String()
    api_key_hint = fields.String()
    models = fields.List(fields.Nested(LlmModel))
    order = fields.Integer()
    is_active = fields.Boolean()
    created_at = Instant()
    updated_at = Instant()


show = LlmProvider().show
