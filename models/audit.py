"""What is written down of who did what: which things, which of their fields, which values may be shown."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, TenantOwned, new_id, now


class AuditAction(enum.StrEnum):
    """What was done. ``refused``: somebody tried what the rights do not allow."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    READ = "read"
    REFUSED = "refused"


class ActorKind(enum.StrEnum):
    """Who did it. ``anonymous``: a request without credentials; ``system``: a job or a host's command."""

    USER = "user"
    KEY = "key"
    OPERATOR = "operator"
    ANONYMOUS = "anonymous"
    SYSTEM = "system"


class AuditEntry(TenantOwned, Base):
    """One act. It is only ever added; what is of no tenant (products, regions) has none here either."""

    __tablename__ = "audit_entries"
    __table_args__ = (
        Index("audit_entries_in_order", "tenant_id", "created_at", "id"),
        Index("audit_entries_of_object", "tenant_id", "object_id"),
        Index("audit_entries_of_actor", "tenant_id", "actor_id", "created_at", "id"),
        Index("audit_entries_of_kind", "tenant_id", "actor_kind", "created_at", "id"),
        Index("audit_entries_of_action", "tenant_id", "action", "created_at", "id"),
        Index("audit_entries_of_type", "tenant_id", "object_type", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    tenant_id: Mapped[str | None] = mapped_column(Id, ForeignKey("tenants.id", ondelete="CASCADE"))  # type: ignore[assignment]  # alone among a tenant's rows it may have none
    created_at: Mapped[datetime] = mapped_column(default=now)
    actor_kind: Mapped[str] = mapped_column(String(20))
    actor_id: Mapped[str | None] = mapped_column(Id)
    key_id: Mapped[str | None] = mapped_column(Id)
    action: Mapped[str] = mapped_column(String(20))
    object_type: Mapped[str] = mapped_column(String(50))
    object_id: Mapped[str | None] = mapped_column(Id)
    fields: Mapped[list[str]] = mapped_column(default=list)
    values: Mapped[dict[str, Any]] = mapped_column(default=dict)
    operation: Mapped[str | None] = mapped_column(String(100))
    address: Mapped[str] = mapped_column(String(45), default="")
    request_id: Mapped[str | None] = mapped_column(String(128))


OBJECTS: dict[str, str] = {
    "api_keys": "api_key",
    "bots": "bot",
    "categories": "category",
    "chat_sessions": "session",
    "configurations": "configuration",
    "documents": "document",
    "knowledge_indices": "index",
    "letters": "letter",
    "llm_providers": "llm_provider",
    "messages": "message",
    "organizations": "organization",
    "persona_assignments": "persona_assignment",
    "personas": "persona",
    "products": "product",
    "region_assignments": "region_assignment",
    "regions": "region",
    "seats": "seat",
    "second_factors": "second_factor",
    "sign_ins": "sign_in",
    "stacks": "stack",
    "subscriptions": "subscription",
    "tenants": "tenant",
    "tenant_exports": "export",
    "users": "user",
    "webhooks": "webhook",
}
"""What is audited, by table, and what the log calls it. Every other table stands in ``NOT_AUDITED``."""

FILE = "file"
"""What the log calls a document that stands in a conversation."""

NOT_AUDITED: frozenset[str] = frozenset(
    {
        "audit_entries",  # itself
        "bot_days",  # counts
        "bot_reservations",  # counts
        "chunks",  # made of a document
        "citations",  # part of a message
        "document_categories",  # shows as its document's
        "idempotency_records",  # a memory of answers
        "jobs",  # work that follows from what is audited
        "keyword_postings",  # made of a document
        "latency_hours",  # counts
        "outbox_events",  # follows from what is audited
        "persona_categories",  # shows as its persona's
        "persona_indices",  # shows as its persona's
        "persona_versions",  # shows as its persona's
        "signing_keys",  # the installation's, made by itself
        "token_days",  # counts
        "token_reservations",  # counts
        "usage_hours",  # counts
        "usage_records",  # counts
        "webhook_deliveries",  # follow from what happened; what somebody sends by hand is noted
    }
)
"""Tables whose rows are nobody's acts, and why."""

_UNTOLD = frozenset({"id", "tenant_id", "created_at", "updated_at", "last_used_at", "version"})
_UNTOLD_OF: dict[str, frozenset[str]] = {
    "chat_sessions": frozenset(
        {"message_count", "last_message_at", "leaf_id", "counts", "revived_at", "visitor_id"}
    ),
    "documents": frozenset(
        {
            "status",
            "progress",
            "error_code",
            "error_detail",
            "chunk_count",
            "vector_count",
            "embedder",
            "layout",
            "page_count",
            "parsed_at",
            "scope_id",
            "media_type",
            "size",
            "content_sha256",
        }
    ),
    "second_factors": frozenset({"last_step"}),
    "tenant_exports": frozenset({"status", "progress", "size", "detail", "expires_at"}),
    "sign_ins": frozenset({"seed", "rotation", "expires_at", "address", "user_agent"}),
}
"""What the server itself keeps beside what people decide."""

_TOLD_ALONE: dict[str, frozenset[str]] = {
    "letters": frozenset({"kind", "user_id"}),
    "messages": frozenset({"rating", "comment", "stop_requested"}),
}
"""Where the server keeps nearly everything, the fields that people decide after the row was made."""

_SHOWN = frozenset(
    {
        "allow_file_uploads",
        "allow_knowledge_search",
        "allow_web_search",
        "available_chat_models",
        "bot_id",
        "capabilities",
        "collect_feedback",
        "content_filter_level",
        "default_chat_model",
        "default_max_documents",
        "default_score_threshold",
        "ended_at",
        "event_types",
        "expires_at",
        "index_id",
        "is_active",
        "is_default",
        "kind",
        "llm_provider",
        "order",
        "organization_id",
        "period_end",
        "period_start",
        "persona_id",
        "product_id",
        "region_id",
        "revoked_at",
        "role",
        "scopes",
        "seats",
        "session_id",
        "stack_id",
        "status",
        "stop_requested",
        "subscription_id",
        "temperature",
        "user_id",
    }
)
"""Fields whose values tell of no person and hold no secret, nor words that somebody wrote."""

_CALLED = {
    "attributes": "metadata",
    "password_hash": "password",
    "recovery_hashes": "recovery_codes",
    "sealed_key": "api_key",
    "sealed_secret": "secret",
}


def is_told(table: str, field: str) -> bool:
    """Whether a change of this field is an act."""
    if table in _TOLD_ALONE:
        return field in _TOLD_ALONE[table]
    return field not in _UNTOLD and field not in _UNTOLD_OF.get(table, ())


def name_of(field: str) -> str:
    """What those who read the log call a field."""
    return _CALLED.get(field, field)


def shown(field: str, value: Any) -> Any:
    """The value as the log keeps it."""
    if isinstance(value, datetime):
        return value.isoformat()
    return value


def is_shown(field: str) -> bool:
    """Whether its values may stand in the log."""
    return field in _SHOWN


_ADMINISTRATORS = ("tenants", "api_keys", "webhooks", "audit")


def is_kept_when_refused(scope: str | None) -> bool:
    """Whether a refusal of this scope is an act worth keeping: changes, and all that is for administrators
    alone.
    """
    area, _, verb = (scope or "").partition(":")
    return verb == "write" or area in _ADMINISTRATORS
