"""Personas on the wire."""

from __future__ import annotations

from marshmallow import fields

from handlers.schemas import Instant, Named, Wire


class Persona(Wire):
    """The component ``Persona``."""

    id = fields.String()
    name = fields.String()
    slug = fields.String()
    description = fields.String()
    stack_id = fields.String()
    organization = fields.Nested(Named)
    organization_id = fields.String()
    organization_name = fields.Function(lambda row: row.organization.name if row.organization else None)
    system_prompt = fields.String()
    llm_provider = fields.String()
    default_chat_model = fields.String()
    temperature = fields.Float()
    max_output_tokens = fields.Integer()
    default_max_documents = fields.Integer()
    default_score_threshold = fields.Float()
    question_rewriting = fields.String()
    allow_web_search = fields.Boolean()
    allow_file_uploads = fields.Boolean()
    allow_knowledge_search = fields.Boolean()
    accessible_indices = fields.List(fields.Nested(Named))
    accessible_index_ids = fields.Function(lambda row: [index.id for index in row.accessible_indices])
    accessible_categories = fields.List(fields.Nested(Named))
    accessible_category_ids = fields.Function(
        lambda row: [category.id for category in row.accessible_categories]
    )
    is_active = fields.Boolean()
    is_default = fields.Boolean()
    version = fields.Integer()
    created_at = Instant()
    updated_at = Instant()


show = Persona().show


class PersonaVersion(Wire):
    """The component ``PersonaVersion``."""

    version = fields.Integer()
    values = fields.Raw()
    author_id = fields.String()
    created_at = Instant()


show_version = PersonaVersion().show
