"""Documents on the wire."""

from __future__ import annotations

from marshmallow import fields

from handlers.schemas import Instant, Named, Wire


class DocumentMetadata(Wire):
    """The component ``DocumentMetadata``; what is not known is null."""

    company = fields.Function(lambda found: found.get("company"))
    aliases = fields.Function(lambda found: found.get("aliases") or [])
    ticker = fields.Function(lambda found: found.get("ticker"))
    fiscal_year = fields.Function(lambda found: found.get("fiscal_year"))
    period = fields.Function(lambda found: found.get("period"))
    form = fields.Function(lambda found: found.get("form"))


class Ingested:
    """Mixed into wire shapes: what every file tells of itself and of how far it is on its way to being
    found.
    """

    status = fields.String()
    progress = fields.Float()
    error_code = fields.String()
    error_detail = fields.String()
    content_sha256 = fields.String()
    media_type = fields.String()
    size = fields.Integer()
    page_count = fields.Integer()
    chunk_count = fields.Integer()
    created_at = Instant()
    updated_at = Instant()


class Document(Ingested, Named):
    """The component ``Document``."""

    index_id = fields.String()
    category_ids = fields.List(fields.String())
    vector_count = fields.Integer()
    metadata = fields.Nested(DocumentMetadata, attribute="attributes")


show = Document().show
