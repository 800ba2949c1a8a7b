"""Knowledge indices on the wire."""

from __future__ import annotations

from marshmallow import fields

from handlers.schemas import Instant, Named


class KnowledgeIndex(Named):
    """The component ``KnowledgeIndex``. ``document_count`` is given beside the row."""

    description = fields.String()
    document_count = fields.Integer()
    created_at = Instant()
    updated_at = Instant()


dump = KnowledgeIndex().show
