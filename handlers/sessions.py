"""Conversations: begin, list, change, end, and read them whole."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, or_, select

from handlers import reach
from handlers.auth import caller, require_stack_capability
from handlers.replies import Fresh, Listing, Paging, Text, created, csv_rows
from handlers.schemas import messages as message_wire
from handlers.schemas import sessions as wire
from models.base import now
from models.chat.conversations import ChatMessage, ChatSession, SessionStatus
from models.configuration import Effective
from models.errors import Conflict, NotFound, ReplyRunning, RuleBroken
from models.personas import Persona
from models.tenancy import Stack
from storage import audit, conversations, events, library, retrieval
from storage.configurations import check_room, effective, is_idle
from storage.database import Session, reading, transaction

ORDERINGS = {
    "created_at": ChatSession.created_at,
    "last_message_at": ChatSession.last_message_at,
    "title": ChatSession.title,
}
COLUMNS = [
    "id",
    "title",
    "status",
    "persona_id",
    "stack_id",
    "user_id",
    "bot_id",
    "model",
    "message_count",
    "last_message_at",
    "created_at",
    "updated_at",
]
MOST_AT_ONCE, MOST_EXPORTED = 1000, 100
HISTORY_COLUMNS = ["role", "content", "status", "model", "created_at", "id", "parent_id"]


def list(
    paging: Paging,
    status: str | None = None,
    stack_id: str | None = None,
    persona_id: str | None = None,
    show_all: bool = False,
) -> Listing:
    """The caller's sessions, or everybody's for administrators who ask for them."""
    with reading(caller()) as db:
        if stack_id is not None:
            db.require(Stack, stack_id, parameter="stack_id")
        if persona_id is not None:
            db.require(Persona, persona_id, parameter="persona_id")
        if show_all and caller().is_admin:
            audit.read(db, caller(), "session", None)
    return listing(_found(status, stack_id, persona_id, show_all=show_all), paging)


def listing(query: Select[ChatSession], paging: Paging) -> Listing:
    """Sessions as lists show them, searched in titles and messages."""
    query = _searched(query, paging.search)
    paging.search = None
    return Listing(query, wire.show, paging, ORDERINGS, ChatSession.id, caller(), columns=tuple(COLUMNS))


def _found(
    status: str | None = None,
    stack_id: str | None = None,
    persona_id: str | None = None,
    search: str | None = None,
    show_all: bool = False,
) -> Select[ChatSession]:
    """The caller's sessions (or everybody's) for which every condition holds."""
    query = select(ChatSession)
    if not (show_all and caller().is_admin):
        query = query.where(ChatSession.user_id == caller().user_id)
    for column, value in (
        (ChatSession.status, status),
        (ChatSession.stack_id, stack_id),
        (ChatSession.persona_id, persona_id),
    ):
        if value is not None:
            query = query.where(column == value)
    return _searched(query, search)


def _searched(query: Select[ChatSession], words: str | None) -> Select[ChatSession]:
    if not words:
        return query
    said = conversations.said_lately(caller(), words)
    return query.where(or_(ChatSession.title.icontains(words, autoescape=True), ChatSession.id.in_(said)))


def bulk(body: dict[str, Any]) -> dict[str, Any] | Fresh:
    """Do the same to many conversations, each told for itself."""
    action, dry_run = body["action"], body.get("dry_run", False)
    most = MOST_EXPORTED if action == "export" else MOST_AT_ONCE
    ids = body["ids"] if "ids" in body else _ids_of(body["filter"], most)
    if len(ids) > most:
        raise RuleBroken(f"At most {most} at once.", pointer="/ids" if "ids" in body else "/filter")
    results = []
    for id in ids:
        try:
            results.append({"id": id, "status": "ok", **_do(action, id, dry_run)})
        except NotFound:
            results.append({"id": id, "status": "not_found"})
        except ReplyRunning:
            results.append({"id": id, "status": "reply_running"})
        except Conflict:
            results.append({"id": id, "status": "no_room"})
    succeeded = sum(result["status"] == "ok" for result in results)
    told = {"results": results, "succeeded": succeeded, "failed": len(results) - succeeded}
    return Fresh(told) if action == "export" else told


def _ids_of(wanted: dict[str, Any], most: int) -> Sequence[str]:
    with reading(caller()) as db:
        for name, entity in (("stack_id", Stack), ("persona_id", Persona)):
            if name in wanted:
                db.require(entity, wanted[name], pointer=f"/filter/{name}")
        idle_since = wanted.pop("idle_since", None)
        query = _found(**wanted)
        if idle_since:
            last = func.coalesce(ChatSession.last_message_at, ChatSession.created_at)
            query = query.where(last < datetime.fromisoformat(idle_since))
        ordered = query.with_only_columns(ChatSession.id).order_by(ChatSession.created_at, ChatSession.id)
        return db.scalars(ordered.limit(most + 1)).all()


def _do(action: str, id: str, dry_run: bool) -> dict[str, Any]:
    """One conversation's part of a bulk call; each is a unit of its own."""
    if action == "export":
        with reading(caller()) as db:
            session = reach.session(db, id)
            return {} if dry_run else {"history": _history(db, session, session.leaf_id)}
    with transaction(caller()) as db:
        session = reach.session(db, id, lock=True)
        if action == "delete":
            conversations.check_free(db, session)
            if not dry_run:
                library.delete_session_files(db, session.id)
                conversations.remove_session(db, session)
            return {}
        if action == "restore":
            _check_room(db, effective(db, session.stack_id), session)
        if dry_run:
            return {}
        if action == "restore":
            session.status, session.revived_at = SessionStatus.ACTIVE, now()
        else:
            session.status = SessionStatus.ARCHIVED
        return {}


def _check_room(db: Session, configuration: Effective, session: ChatSession) -> None:
    """Raise ``Conflict`` if to revive the session would be one more active than its user may have."""
    is_counted = session.status == SessionStatus.ACTIVE and not is_idle(configuration, session)
    if session.user_id is not None and not is_counted:
        check_room(db, configuration, session.user_id, session.stack_id)


def create(body: dict[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Begin a conversation."""
    retrieval.prepare()
    with transaction(caller()) as db:
        persona_id, stack_id = _persona(db, body.get("persona_id"), body.get("stack_id"))
        require_stack_capability(db, stack_id, "chat_ai")
        configuration = effective(db, stack_id)
        configuration.check_model(body.get("model"), "/model")
        check_room(db, configuration, caller().user_id, stack_id)
        session = db.put(
            ChatSession(
                user_id=caller().user_id,
                persona_id=persona_id,
                stack_id=stack_id,
                title=body.get("title"),
                model=body.get("model"),
                attributes=body.get("metadata", {}),
            )
        )
        told = {name: getattr(session, name) for name in ("id", "stack_id", "persona_id", "user_id")}
        events.publish(db, "session.created", told)
        return created(wire.show(session), f"/api/v1/chat/sessions/{session.id}")


def get(id: str) -> dict[str, Any]:
    """The conversation's facts."""
    with reading(caller()) as db:
        return wire.show(reach.session(db, id))


def replace(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Set every setting; what is left out takes its default."""
    with transaction(caller()) as db:
        session = reach.session(db, id, lock=True)
        values = {"title": None, "status": "active", "persona_id": None, "model": None, "metadata": {}} | body
        return _change(db, session, values)


def update(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Set the settings that came."""
    with transaction(caller()) as db:
        return _change(db, reach.session(db, id, lock=True), body)


def delete(id: str) -> None:
    """Remove the conversation with its messages and files."""
    with transaction(caller()) as db:
        session = reach.session(db, id, lock=True)
        library.delete_session_files(db, session.id)
        conversations.remove_session(db, session)


def history(id: str, leaf: str | None, exchange: Any) -> dict[str, Any] | Text:
    """The whole conversation, as the caller wants to read it."""
    with reading(caller()) as db:
        session = reach.session(db, id)
        if leaf is not None and db.require(ChatMessage, leaf).session_id != id:
            raise NotFound()
        told = _history(db, session, leaf or session.leaf_id)
    facts, shown = told["session"], told["messages"]
    if exchange.media_type == "text/csv":
        lines = csv_rows(
            [HISTORY_COLUMNS, *([message[name] for name in HISTORY_COLUMNS] for message in shown)]
        )
        return Text(lines, "text/csv; charset=utf-8")
    if exchange.media_type == "text/markdown":
        return Text(_markdown(facts, shown), "text/markdown; charset=utf-8")
    return told


def _history(db: Session, session: ChatSession, leaf: str | None) -> dict[str, Any]:
    rows = conversations.branch(db, session.id, leaf, with_citations=True)
    return {"session": wire.show(session), "messages": [message_wire.show(row) for row in rows]}


def _markdown(session: dict[str, Any], messages: Any) -> str:
    parts = [f"# {session['title'] or 'Conversation'}"]
    for message in messages:
        parts.append(f"## {'Question' if message['role'] == 'user' else 'Answer'} ({message['created_at']})")
        parts.append(message["content"])
        cited = [citation for citation in message["citations"] if citation["cited"]]
        if cited:
            parts.append("\n".join(f"{c['number']}. {_place(c)}" for c in cited))
    return "\n\n".join(parts) + "\n"


def _place(citation: dict[str, Any]) -> str:
    place = f"[{citation['document_name']}]({citation['url']})"
    if citation["page"] is not None:
        return f"{place}, page {citation['page']}"
    where = " ".join(part for part in (citation["sheet"], citation["cell"] or citation["heading"]) if part)
    return f"{place}, {where}" if where else place


def _persona(db: Session, persona_id: str | None, stack_id: str | None) -> tuple[str, str]:
    """The persona asked for, or the default one of the stack (of the only stack, where none is named), and
    its stack.
    """
    if stack_id is not None:
        db.require(Stack, stack_id, pointer="/stack_id")
    if persona_id is not None:
        asked = select(Persona.id, Persona.stack_id, Persona.is_active)
        persona = db.execute(asked.where(Persona.id == persona_id, reach.given())).first()
        if persona is None:
            raise NotFound(pointer="/persona_id")
        if stack_id is not None and persona.stack_id != stack_id:
            raise RuleBroken("This persona belongs to another stack.", pointer="/persona_id")
        if not persona.is_active:
            raise RuleBroken("This persona is switched off.", pointer="/persona_id")
        return persona.id, persona.stack_id
    if stack_id is None:
        stacks = db.scalars(select(Stack.id).limit(2)).all()
        if len(stacks) != 1:
            raise RuleBroken("Name a persona or a stack.", pointer="/stack_id")
        stack_id = stacks[0]
    default = db.scalar(
        select(Persona.id).where(Persona.stack_id == stack_id, Persona.is_default, Persona.is_active)
    )
    if default is None:
        raise RuleBroken("The stack has no default persona; name one.", pointer="/persona_id")
    return default, stack_id


def _change(db: Session, session: ChatSession, values: dict[str, Any]) -> dict[str, Any]:
    if "persona_id" in values:
        session.persona_id, _ = _persona(db, values["persona_id"], session.stack_id)
    configuration = effective(db, session.stack_id)
    if "model" in values:
        configuration.check_model(values["model"], "/model")
    if values.get("status") == SessionStatus.ACTIVE:
        _check_room(db, configuration, session)
        session.revived_at = now()
    for name in ("title", "status", "model"):
        if name in values:
            setattr(session, name, values[name])
    if "metadata" in values:
        session.attributes = values["metadata"]
    db.flush()
    return wire.show(session)
