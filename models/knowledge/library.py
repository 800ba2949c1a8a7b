"""What a tenant knows: indices, categories, documents, and the passages and postings that search reads."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from models.base import Base, Entity, Id, TenantOwned, own_key, reference


class IngestStatus(enum.StrEnum):
    """Where a file is on its way to being searchable."""

    PENDING = "pending"
    PARSING = "parsing"
    EMBEDDING = "embedding"
    READY = "ready"
    FAILED = "failed"


class KnowledgeIndex(TenantOwned, Entity):
    """A collection of documents that personas are given as a whole; one vector collection."""

    __tablename__ = "knowledge_indices"
    __table_args__ = (own_key(), UniqueConstraint("tenant_id", "name"))

    name: Mapped[str] = mapped_column(String(200))
    description: Mapped[str] = mapped_column(String(2000), default="")


class Category(TenantOwned, Entity):
    """A label on documents, across indices, by which personas and searches are narrowed."""

    __tablename__ = "categories"
    __table_args__ = (own_key(), UniqueConstraint("tenant_id", "name"))

    name: Mapped[str] = mapped_column(String(200))
    description: Mapped[str] = mapped_column(String(2000), default="")


class DocumentCategory(TenantOwned, Base):
    """That a document carries a category."""

    __tablename__ = "document_categories"
    __table_args__ = (
        reference("document_id", "documents", ondelete="CASCADE"),
        reference("category_id", "categories", ondelete="CASCADE"),
    )

    document_id: Mapped[str] = mapped_column(Id, primary_key=True)
    category_id: Mapped[str] = mapped_column(Id, primary_key=True, index=True)


class Document(TenantOwned, Entity):
    """A file and what became of it. It belongs to an index (knowledge) or to a session (an upload).

    ``layout`` is what ranking knows of the passages (see ``models.knowledge.keywords``); ``scope_id`` is
    the index or the session, under which its postings and vectors are filed; ``parsed_at`` is when its
    passages were last written.
    """

    __tablename__ = "documents"
    __table_args__ = (
        own_key(),
        reference("index_id", "knowledge_indices", ondelete="CASCADE"),
        reference("session_id", "chat_sessions", ondelete="CASCADE"),
        CheckConstraint("(index_id IS NULL) <> (session_id IS NULL)", name="document_in_one_place"),
        Index("document_once", "scope_id", "content_sha256", unique=True),
    )

    index_id: Mapped[str | None] = mapped_column(Id, index=True)
    session_id: Mapped[str | None] = mapped_column(Id, index=True)
    scope_id: Mapped[str] = mapped_column(Id)
    user_id: Mapped[str | None] = mapped_column(Id)
    name: Mapped[str] = mapped_column(String(300))
    media_type: Mapped[str] = mapped_column(String(200), default="application/octet-stream")
    size: Mapped[int]
    content_sha256: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(20), default=IngestStatus.PENDING)
    progress: Mapped[float] = mapped_column(default=0.0)
    error_code: Mapped[str | None] = mapped_column(String(50))
    error_detail: Mapped[str | None] = mapped_column(String(1000))
    page_count: Mapped[int | None]
    chunk_count: Mapped[int] = mapped_column(default=0)
    vector_count: Mapped[int] = mapped_column(default=0)
    embedder: Mapped[str | None] = mapped_column(String(200))
    parsed_at: Mapped[datetime | None]
    attributes: Mapped[dict[str, Any]] = mapped_column(default=dict)
    layout: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)

    categories: Mapped[list[Category]] = relationship(
        secondary="document_categories",
        primaryjoin="Document.id == DocumentCategory.document_id",
        secondaryjoin="DocumentCategory.category_id == Category.id",
        order_by="Category.name",
        lazy="selectin",
        viewonly=True,
    )

    @property
    def category_ids(self) -> list[str]:
        """The ids of its categories."""
        return [category.id for category in self.categories]

    @property
    def is_searchable(self) -> bool:
        """Whether its text can be found yet (by keyword; vectors follow)."""
        return self.status in (IngestStatus.EMBEDDING, IngestStatus.READY)


class Chunk(TenantOwned, Base):
    """A passage of a document, letter for letter as it stands on its page. Its vector's id is
    ``document_id:position``.
    """

    __tablename__ = "chunks"
    __table_args__ = (reference("document_id", "documents", ondelete="CASCADE"),)

    document_id: Mapped[str] = mapped_column(Id, primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    unit: Mapped[int]
    page: Mapped[int | None]
    sheet: Mapped[str | None] = mapped_column(String(200))
    cell: Mapped[str | None] = mapped_column(String(50))
    heading: Mapped[str | None] = mapped_column(String(300))
    start: Mapped[int]
    end: Mapped[int]
    text: Mapped[str]
    context: Mapped[str] = mapped_column(default="")


class Posting(Base):
    """Where a term stands in a document: packed (chunk position, count) pairs.

    Keyed by index (or session) first, so that a search reads the rows of its own scope alone and statistics
    cannot mix.
    """

    __tablename__ = "keyword_postings"
    __table_args__ = (
        ForeignKeyConstraint(["document_id"], ["documents.id"], ondelete="CASCADE"),
        {"sqlite_with_rowid": False},
    )

    scope_id: Mapped[str] = mapped_column(Id, primary_key=True)
    term: Mapped[str] = mapped_column(String(64), primary_key=True)
    document_id: Mapped[str] = mapped_column(Id, primary_key=True, index=True)
    entries: Mapped[bytes] = mapped_column(LargeBinary)
