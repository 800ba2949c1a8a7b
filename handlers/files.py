"""Files that a user adds to one session, searched with its next questions."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from sqlalchemy import func, select

from handlers import reach
from handlers.auth import caller, require_stack_capability
from handlers.documents import LIMIT, again, check_vectors, file_name, media_type_of, removal
from handlers.replies import Upload, envelope
from handlers.schemas import files as wire
from models.chat.conversations import ChatSession
from models.configuration import Effective
from models.errors import Conflict, FeatureDisabled, RuleBroken, TooLarge
from models.knowledge.library import Document
from models.personas import Persona
from storage import files, library
from storage.configurations import effective
from storage.database import Session, reading, transaction

MOST = 100
"""Files of one session."""


def list(session_id: str) -> dict[str, Any]:
    """The session's files, oldest first."""
    with reading(caller()) as db:
        session = reach.session(db, session_id)
        rows = db.scalars(
            select(Document)
            .where(Document.session_id == session.id)
            .order_by(Document.created_at, Document.id)
        )
        shown = [wire.show(row) for row in rows]
    return envelope(shown, count=len(shown))


def create(file: Upload, session_id: str) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Add a file, or find the one with the same content."""
    with reading(caller()) as db:
        session = _open_session(db, session_id)
        configuration = effective(db, session.stack_id)
    name = file_name(file)
    _check_allowed(configuration, name, file.size)
    check_vectors()
    with files.receiving(caller(), file.file, limit=LIMIT) as incoming, transaction(caller()) as db:
        session = _open_session(db, session_id)
        added, is_new = library.add_document(
            db,
            incoming,
            name=name,
            media_type=media_type_of(name) or "",
            session_id=session.id,
            user_id=caller().user_id,
        )
        if is_new and (db.scalar(select(func.count()).where(Document.session_id == session.id)) or 0) > MOST:
            raise Conflict(f"A session takes {MOST} files.")
        return envelope(wire.show(added)), 202, {"Location": f"/api/v1/chat/files/{added.id}"}


def _check_allowed(configuration: Effective, name: str, size: int) -> None:
    """Refuse what the stack's configuration does not take."""
    if not configuration["enable_file_uploads"]:
        raise FeatureDisabled("Files are switched off here.", pointer="/file")
    allowed, ending = configuration["allowed_file_types"], PurePath(name).suffix[1:].lower()
    if allowed is not None and ending not in {kind.lstrip(".").lower() for kind in allowed}:
        raise RuleBroken(f"Only these are taken here: {', '.join(allowed) or 'none'}.", pointer="/file")
    if size > configuration["max_file_size_mb"] * 1024 * 1024:
        raise TooLarge(f"A file may hold {configuration['max_file_size_mb']} MiB here.", pointer="/file")


def get(id: str) -> dict[str, Any]:
    """The file's record."""
    with reading(caller()) as db:
        return envelope(wire.show(reach.file(db, id)))


def delete(id: str) -> dict[str, Any]:
    """Remove the file and all that was made of it."""
    with transaction(caller()) as db:
        file = reach.file(db, id, lock=True)
        return envelope(removal(library.delete_document(db, file)))


def retry(id: str) -> tuple[dict[str, Any], int]:
    """Read a failed file anew."""
    with transaction(caller()) as db:
        file = reach.file(db, id, lock=True)
        again(db, file)
        return envelope(wire.show(file)), 202


def _open_session(db: Session, id: str) -> ChatSession:
    """A session of the caller's that takes files."""
    session = reach.session(db, id.lower())
    require_stack_capability(db, session.stack_id, "chat_ai")
    session.accept_question()
    persona = db.get(Persona, session.persona_id) if session.persona_id else None
    if persona is None or not persona.allow_file_uploads:
        raise FeatureDisabled("The session's persona takes no files.", pointer="/file")
    return session
