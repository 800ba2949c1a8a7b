"""Messages on the wire."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from handlers.schemas import Instant, Wire
from handlers.schemas.search import citation_of
from models.chat.moderation import NOTHING_CUT


class Message(Wire):
    """The component ``Message``."""

    id = fields.String()
    session_id = fields.String()
    role = fields.String()
    content = fields.String()
    status = fields.String()
    answer_status = fields.String()
    citations = fields.Function(lambda row: [citation_of(citation) for citation in row.citations])
    numeric_checks = fields.Raw()
    usage = fields.Raw()
    cost = fields.Float()
    model = fields.String()
    provider = fields.String()
    persona_version = fields.Integer()
    latency_ms = fields.Integer()
    first_token_ms = fields.Integer()
    parent_id = fields.String()
    feedback = fields.Raw()
    error = fields.Raw()
    metadata = fields.Raw(attribute="attributes")
    created_at = Instant()


show = Message().show


class Trace(Wire):
    """The component ``Trace``, from a reply's row and what was kept of its making."""

    message_id = fields.String()
    persona_id = fields.String()
    persona_version = fields.Integer()
    configuration = fields.Raw()
    filtering = fields.Raw()
    retrieval = fields.Raw()
    prompt = fields.Raw()
    providers = fields.Raw()
    attempts = fields.Raw()
    finish_reason = fields.String()
    dropped_citations = fields.Raw()
    usage = fields.Raw()
    cost = fields.Float()
    timings = fields.Raw()


def trace_of(row: Any) -> dict[str, Any]:
    """Why a reply is as it is."""
    kept = row.trace
    filtering = kept.get("filtering")
    searched = {
        name: kept.get(name)
        for name in ("mode", "query", "asked", "question", "rewritten_by", "rewriting", "filters", "degraded")
    }
    return Trace().show(
        {
            "message_id": row.id,
            "persona_id": kept.get("persona_id"),
            "persona_version": row.persona_version,
            "filtering": filtering and {**NOTHING_CUT, **filtering},
            "configuration": kept.get("configuration", {"values": {}, "origins": {}}),
            "retrieval": {**searched, "answer_status": row.answer_status, "hits": kept.get("hits", [])},
            "prompt": kept.get("prompt"),
            **{name: kept[name] for name in ("providers", "attempts", "finish_reason", "dropped_citations")},
            "usage": row.usage,
            "cost": row.cost,
            "timings": {
                "retrieval_ms": kept.get("timings", {}).get("retrieval_ms", 0.0),
                "first_token_ms": row.first_token_ms,
                "latency_ms": row.latency_ms,
            },
        }
    )
