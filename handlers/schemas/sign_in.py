"""The caller's own profile on the wire."""

from __future__ import annotations

from marshmallow import fields

from handlers.schemas import Instant, Named, Wire


class Profile(Wire):
    """The component ``Profile``."""

    id = fields.String()
    email = fields.String()
    name = fields.String()
    role = fields.String()
    tenant = fields.Nested(Named)
    scopes = fields.List(fields.String())
    capabilities = fields.List(fields.String())
    created_at = Instant()


show = Profile().show
