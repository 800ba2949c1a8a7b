"""What the caller may read of the tenant's knowledge: one rule for lists, items, originals and search.

Administrators reach all of it. Everybody else reaches what the personas that it may chat with are given: the
documents of their indices, and those that carry one of their categories. The rest is as if it were not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import ColumnElement, Select, select, true
from sqlalchemy.orm import InstrumentedAttribute

from handlers.auth import caller
from models.base import Entity
from models.chat.conversations import ChatSession
from models.errors import NotFound
from models.knowledge.library import Category, Document, DocumentCategory, KnowledgeIndex
from models.personas import Persona, PersonaAssignment, PersonaCategory, PersonaIndex
from models.tenancy import Seat, Stack, admissions
from storage import audit
from storage.database import Session
from storage.retrieval import Reach

Granted = InstrumentedAttribute[str]
E = TypeVar("E", bound=Entity)


def to_personas() -> ColumnElement[bool]:
    """The condition for personas that the caller may chat with: those that it was given, in stacks that it
    is admitted to by seat and region.
    """
    if caller().is_admin:
        return true()
    admitted = admissions().where(Seat.user_id == caller().user_id).with_only_columns(Stack.id)
    return given() & Persona.stack_id.in_(admitted)


def given() -> ColumnElement[bool]:
    """The condition for personas that the caller was given, whether or not it has seat and region: those
    assigned to it, and default ones. Administrators have all.
    """
    if caller().is_admin:
        return true()
    assigned = select(PersonaAssignment.persona_id).where(PersonaAssignment.user_id == caller().user_id)
    return Persona.id.in_(assigned) | Persona.is_default


def persona(db: Session, id: str, *, pointer: str | None = None) -> Persona:
    """A persona that the caller may chat with; else as if it were not there."""
    return require(db, Persona, id, to_personas(), pointer=pointer)


def session(db: Session, id: str, *, lock: bool = False) -> ChatSession:
    """A conversation that the caller may read: its own, or any of the tenant for administrators."""
    found = db.require(ChatSession, id, lock=lock)
    if found.user_id != caller().user_id and not caller().is_admin:
        raise NotFound()
    if found.user_id != caller().user_id:
        audit.read(db, caller(), "session", found.id)
    return found


def file(db: Session, id: str, *, lock: bool = False) -> Document:
    """A file of a conversation that the caller may read."""
    found = require(db, Document, id, to_files(), lock=lock)
    session(db, found.session_id or "")
    return found


def _granted(grant: Granted) -> Select[str]:
    """The ids that the caller's personas are given, as far as these answer from knowledge at all."""
    return (
        select(grant)
        .join(Persona, Persona.id == grant.class_.persona_id)
        .where(to_personas(), Persona.is_active, Persona.allow_knowledge_search)
    )


def to_indices() -> ColumnElement[bool]:
    """The condition for indices that the caller reaches."""
    return true() if caller().is_admin else KnowledgeIndex.id.in_(_granted(PersonaIndex.index_id))


def to_categories() -> ColumnElement[bool]:
    """The condition for categories that the caller reaches."""
    return true() if caller().is_admin else Category.id.in_(_granted(PersonaCategory.category_id))


def to_documents() -> ColumnElement[bool]:
    """The condition for documents of indices that the caller reaches. Files of sessions are none of them."""
    if caller().is_admin:
        return Document.index_id.is_not(None)
    labelled = select(DocumentCategory.document_id).where(
        DocumentCategory.category_id.in_(_granted(PersonaCategory.category_id))
    )
    return Document.index_id.in_(_granted(PersonaIndex.index_id)) | (
        Document.index_id.is_not(None) & Document.id.in_(labelled)
    )


def to_files() -> ColumnElement[bool]:
    """The condition for files of sessions that the caller reaches: its own, and all for administrators."""
    if caller().is_admin:
        return Document.session_id.is_not(None)
    own = select(ChatSession.id).where(ChatSession.user_id == caller().user_id)
    return Document.session_id.in_(own)


def require(
    db: Session,
    entity: type[E],
    id: str,
    reached: ColumnElement[bool],
    *,
    pointer: str | None = None,
    parameter: str | None = None,
    lock: bool = False,
) -> E:
    """The row with that id, if the caller reaches it; else as if it were not there."""
    row = db.require(entity, id, pointer=pointer, parameter=parameter, lock=lock)
    is_reached = db.scalar(select(entity.id).where(entity.id == row.id, reached)) is not None
    return row if is_reached else db.require(entity, None, pointer=pointer, parameter=parameter)


def known(
    db: Session, entity: type[E], ids: Sequence[str], reached: ColumnElement[bool], *, pointer: str
) -> list[str]:
    """The ids of a body's list at ``pointer``; refused unless the caller reaches each of them."""
    wanted = [id.lower() for id in ids]
    found = set(db.scalars(select(entity.id).where(entity.id.in_(wanted), reached))) if wanted else set()
    for position, id in enumerate(wanted):
        if id not in found:
            db.require(entity, None, pointer=f"{pointer}/{position}")
    return wanted


def of_caller(db: Session) -> Reach:
    """The same rule as a search takes it."""
    if caller().is_admin:
        return Reach(everything=True)
    return Reach(
        index_ids=db.scalars(_granted(PersonaIndex.index_id)).all(),
        category_ids=db.scalars(_granted(PersonaCategory.category_id)).all(),
    )
