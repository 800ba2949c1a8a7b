"""What visitors of bots are shown: a bot's looks, and messages without the tenant's own affairs."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from handlers.schemas import Instant, Wire


class BotConfig(Wire):
    """The component ``BotConfig``."""

    name = fields.String()
    icon_url = fields.String()
    theme = fields.Raw()
    greeting = fields.String()
    suggested_questions = fields.Raw()
    collect_feedback = fields.Boolean()


class VisitorCitation(Wire):
    """The component ``VisitorCitation``: what is quoted and where it stands, and no way to the original."""

    number = fields.Integer()
    document_name = fields.String()
    page = fields.Integer()
    sheet = fields.String()
    cell = fields.String()
    heading = fields.String()
    quote = fields.String()
    url = fields.Constant(None)
    cited = fields.Boolean()


citation = VisitorCitation().show


class VisitorMessage(Wire):
    """The component ``VisitorMessage``."""

    id = fields.String()
    session_id = fields.String()
    role = fields.String()
    content = fields.String()
    status = fields.String()
    answer_status = fields.String()
    citations = fields.Function(lambda row: [citation(passage) for passage in row.citations])
    parent_id = fields.String()
    feedback = fields.Raw()
    error = fields.Raw()
    created_at = Instant()


show = VisitorMessage().show


def config(bot: Any) -> dict[str, Any]:
    """A bot as its visitors see it."""
    return BotConfig().show(bot)
