"""Users of a tenant as others see them."""

from __future__ import annotations

from marshmallow import fields

from handlers.schemas import Wire


class Person(Wire):
    """The component ``Person``."""

    id = fields.String()
    email = fields.String()
    name = fields.String()
    role = fields.String()
    is_active = fields.Boolean()


show = Person().show
