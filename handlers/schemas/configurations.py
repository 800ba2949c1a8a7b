"""Configurations on the wire."""

from __future__ import annotations

from marshmallow import fields

from handlers.schemas import Instant, Wire


def _setting(name: str) -> fields.Raw:
    """A setting of ``values``; null where it is not set."""
    return fields.Raw(attribute=f"values.{name}", dump_default=None)


class Configuration(Wire):
    """The component ``Configuration``."""

    id = fields.String()
    stack_id = fields.String()
    enable_streaming = _setting("enable_streaming")
    enable_file_uploads = _setting("enable_file_uploads")
    max_file_size_mb = _setting("max_file_size_mb")
    allowed_file_types = _setting("allowed_file_types")
    enable_knowledge_search = _setting("enable_knowledge_search")
    default_max_documents = _setting("default_max_documents")
    default_score_threshold = _setting("default_score_threshold")
    enable_web_search = _setting("enable_web_search")
    web_search_provider = _setting("web_search_provider")
    web_search_max_results = _setting("web_search_max_results")
    default_chat_model = _setting("default_chat_model")
    available_chat_models = _setting("available_chat_models")
    max_concurrent_sessions = _setting("max_concurrent_sessions")
    session_timeout_minutes = _setting("session_timeout_minutes")
    enable_content_filtering = _setting("enable_content_filtering")
    content_filter_level = _setting("content_filter_level")
    created_at = Instant()
    updated_at = Instant()


show = Configuration().show
