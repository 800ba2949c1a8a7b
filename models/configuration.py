"""What an administrator sets for a stack, or for all of the tenant; null is inherited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Entity, Id, TenantOwned, own_key, reference
from models.errors import RuleBroken
from models.knowledge.relevance import DEFAULT_THRESHOLD

DEFAULTS: Mapping[str, Any] = {
    "enable_streaming": True,
    "enable_file_uploads": True,
    "max_file_size_mb": 50,
    "allowed_file_types": None,
    "enable_knowledge_search": True,
    "default_max_documents": 8,
    "default_score_threshold": DEFAULT_THRESHOLD,
    "enable_web_search": False,
    "web_search_provider": "searxng",
    "web_search_max_results": 5,
    "default_chat_model": None,
    "available_chat_models": None,
    "max_concurrent_sessions": None,
    "session_timeout_minutes": None,
    "enable_content_filtering": False,
    "content_filter_level": "low",
}
"""What holds where nobody said otherwise. Null there is no limit: any file that can be read, any model, any
number of sessions, for any time.
"""


class Configuration(TenantOwned, Entity):
    """Settings of a stack, or (without one) of all of the tenant. ``values`` holds those that are set."""

    __tablename__ = "configurations"
    __table_args__ = (
        own_key(),
        reference("stack_id", "stacks", ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "stack_id"),
        Index(
            "one_configuration_of_the_tenant",
            "tenant_id",
            unique=True,
            sqlite_where=text("stack_id IS NULL"),
            postgresql_where=text("stack_id IS NULL"),
        ),
    )

    stack_id: Mapped[str | None] = mapped_column(Id)
    values: Mapped[dict[str, Any]] = mapped_column(default=dict)

    def set(self, values: Mapping[str, Any]) -> None:
        """Set these; null takes a setting back, so that it is inherited."""
        merged = {**self.values, **{name: values[name] for name in DEFAULTS if name in values}}
        self.values = {name: value for name, value in merged.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Effective:
    """The settings that hold in a stack, and where each comes from: ``stack``, ``tenant`` or ``default``."""

    values: Mapping[str, Any] = field(default_factory=lambda: DEFAULTS)
    origins: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(DEFAULTS, "default"))

    @classmethod
    def of(cls, stack: Mapping[str, Any], tenant: Mapping[str, Any]) -> Effective:
        """What a stack's own settings leave open is the tenant's, and then the default."""
        values, origins = dict(DEFAULTS), dict.fromkeys(DEFAULTS, "default")
        for origin, given in (("tenant", tenant), ("stack", stack)):
            values |= given
            origins |= dict.fromkeys(given, origin)
        return cls(values, origins)

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @property
    def filter_level(self) -> str | None:
        """How closely content is looked at; None: not at all."""
        level: str = self["content_filter_level"]
        return level if self["enable_content_filtering"] else None

    @property
    def timeout(self) -> timedelta | None:
        """After how long an idle session expires."""
        minutes = self["session_timeout_minutes"]
        return None if minutes is None else timedelta(minutes=minutes)

    def chat_model(self, asked: str | None) -> str | None:
        """The model that answers: the one asked for, or the default, or the first of those that may be used;
        None leaves it to the provider.
        """
        return asked or self["default_chat_model"] or next(iter(self["available_chat_models"] or ()), None)

    def allows(self, chat_model: str | None) -> bool:
        """Whether this model may be used; none is left to the provider."""
        allowed = self["available_chat_models"]
        return chat_model is None or allowed is None or chat_model in allowed

    def check_model(self, chat_model: str | None, pointer: str) -> None:
        """Refuse a model that is not among those that may be used."""
        if not self.allows(chat_model):
            known = ", ".join(self["available_chat_models"][:20]) or "none"
            raise RuleBroken(f"This model may not be used here; these may: {known}.", pointer=pointer)
