"""API keys on the wire; a key's text is shown beside it, once."""

from __future__ import annotations

from marshmallow import fields

from handlers.schemas import Instant, Named


class ApiKey(Named):
    """The component ``ApiKey``."""

    prefix = fields.String()
    scopes = fields.List(fields.String())
    user_id = fields.String()
    rate_limit_per_minute = fields.Integer()
    expires_at = Instant()
    last_used_at = Instant()
    created_at = Instant()
    updated_at = Instant()


COLUMNS = tuple(ApiKey().declared_fields)
show = ApiKey().show
