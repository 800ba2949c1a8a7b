"""Personas: what answers, with which prompt and provider, and which knowledge it may read."""

from __future__ import annotations

import enum
import re
import unicodedata
from typing import Any

from sqlalchemy import CheckConstraint, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from models.base import Base, Entity, Id, TenantOwned, own_key, reference
from models.knowledge.library import Category, KnowledgeIndex
from models.tenancy import Organization


class Rewriter(enum.StrEnum):
    """Who makes a question stand alone that leans on those before it."""

    RULE = "rule"
    PROVIDER = "provider"


class PersonaIndex(TenantOwned, Base):
    """That a persona may read an index."""

    __tablename__ = "persona_indices"
    __table_args__ = (
        reference("persona_id", "personas", ondelete="CASCADE"),
        reference("index_id", "knowledge_indices", ondelete="CASCADE"),
    )

    persona_id: Mapped[str] = mapped_column(Id, primary_key=True)
    index_id: Mapped[str] = mapped_column(Id, primary_key=True, index=True)


class PersonaCategory(TenantOwned, Base):
    """That a persona may read the documents of a category."""

    __tablename__ = "persona_categories"
    __table_args__ = (
        reference("persona_id", "personas", ondelete="CASCADE"),
        reference("category_id", "categories", ondelete="CASCADE"),
    )

    persona_id: Mapped[str] = mapped_column(Id, primary_key=True)
    category_id: Mapped[str] = mapped_column(Id, primary_key=True, index=True)


class PersonaAssignment(TenantOwned, Base):
    """That a user may chat with a persona."""

    __tablename__ = "persona_assignments"
    __table_args__ = (
        reference("persona_id", "personas", ondelete="CASCADE"),
        reference("user_id", "users", ondelete="CASCADE"),
    )

    persona_id: Mapped[str] = mapped_column(Id, primary_key=True)
    user_id: Mapped[str] = mapped_column(Id, primary_key=True, index=True)


class Persona(TenantOwned, Entity):
    """An assistant as its tenant defined it. Its history is kept in ``PersonaVersion``."""

    __tablename__ = "personas"
    __table_args__ = (
        own_key(),
        reference("stack_id", "stacks"),
        reference("organization_id", "organizations"),
        UniqueConstraint("tenant_id", "slug"),
        Index(
            "one_default_persona",
            "stack_id",
            unique=True,
            sqlite_where=text("is_default"),
            postgresql_where=text("is_default"),
        ),
    )

    stack_id: Mapped[str] = mapped_column(Id, index=True)
    organization_id: Mapped[str | None] = mapped_column(Id)
    name: Mapped[str] = mapped_column(String(200))
    slug: Mapped[str] = mapped_column(String(100))
    description: Mapped[str] = mapped_column(String(2000), default="")
    system_prompt: Mapped[str] = mapped_column(default="")
    llm_provider: Mapped[str | None] = mapped_column(String(100))
    default_chat_model: Mapped[str | None] = mapped_column(String(200))
    temperature: Mapped[float | None]
    max_output_tokens: Mapped[int | None]
    default_max_documents: Mapped[int | None]
    default_score_threshold: Mapped[float | None]
    question_rewriting: Mapped[str] = mapped_column(String(20), default=Rewriter.RULE, server_default="rule")
    allow_web_search: Mapped[bool] = mapped_column(default=False)
    allow_file_uploads: Mapped[bool] = mapped_column(default=True)
    allow_knowledge_search: Mapped[bool] = mapped_column(default=True)
    is_active: Mapped[bool] = mapped_column(default=True)
    is_default: Mapped[bool] = mapped_column(default=False)
    version: Mapped[int] = mapped_column(default=1)

    organization: Mapped[Organization | None] = relationship(viewonly=True)
    accessible_indices: Mapped[list[KnowledgeIndex]] = relationship(
        secondary="persona_indices",
        primaryjoin="Persona.id == PersonaIndex.persona_id",
        secondaryjoin="PersonaIndex.index_id == KnowledgeIndex.id",
        order_by="KnowledgeIndex.name",
        viewonly=True,
    )
    accessible_categories: Mapped[list[Category]] = relationship(
        secondary="persona_categories",
        primaryjoin="Persona.id == PersonaCategory.persona_id",
        secondaryjoin="PersonaCategory.category_id == Category.id",
        order_by="Category.name",
        viewonly=True,
    )

    def snapshot(self, index_ids: list[str], category_ids: list[str]) -> dict[str, Any]:
        """All that decides an answer, as a version keeps it."""
        fields = {name: getattr(self, name) for name in VERSIONED}
        return {
            **fields,
            "accessible_index_ids": sorted(index_ids),
            "accessible_category_ids": sorted(category_ids),
        }


VERSIONED = [
    "name",
    "slug",
    "description",
    "organization_id",
    "system_prompt",
    "llm_provider",
    "default_chat_model",
    "temperature",
    "max_output_tokens",
    "default_max_documents",
    "default_score_threshold",
    "question_rewriting",
    "allow_web_search",
    "allow_file_uploads",
    "allow_knowledge_search",
    "is_active",
    "is_default",
]


class PersonaVersion(TenantOwned, Entity):
    """A persona as it stood at one time; never changed afterwards."""

    __tablename__ = "persona_versions"
    __table_args__ = (
        own_key(),
        reference("persona_id", "personas", ondelete="CASCADE"),
        UniqueConstraint("persona_id", "version"),
        CheckConstraint("version > 0"),
    )

    persona_id: Mapped[str] = mapped_column(Id)
    version: Mapped[int]
    values: Mapped[dict[str, Any]]
    author_id: Mapped[str | None] = mapped_column(Id)


LONGEST_SLUG = 80


def slug_of(name: str) -> str:
    """A name as it may stand in a URL: ASCII letters, digits and hyphens, ``LONGEST_SLUG`` at most."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:LONGEST_SLUG].rstrip("-") or "persona"
