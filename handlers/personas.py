"""Personas: what answers, with which prompt, and what it may read."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete as remove
from sqlalchemy import select
from sqlalchemy import update as change
from sqlalchemy.orm import joinedload, selectinload

from handlers import problems, reach, turns
from handlers.auth import caller, require_stack_capability
from handlers.briefing import briefing_of
from handlers.replies import Listing, Paging, created
from handlers.schemas import personas as wire
from handlers.slugs import free_slug, one_at_a_time
from models.base import new_id
from models.bots import Bot
from models.chat.conversations import ChatSession
from models.errors import Conflict, NotFound, RuleBroken
from models.knowledge.library import Category, KnowledgeIndex
from models.personas import (
    Persona,
    PersonaCategory,
    PersonaIndex,
    PersonaVersion,
    Rewriter,
)
from models.tenancy import Organization, Stack
from storage import audit, quotas
from storage.configurations import effective
from storage.conversations import Begun
from storage.database import Session, reading, transaction
from storage.provision import check_name
from storage.threads import in_thread

DEFAULTS: dict[str, Any] = {
    "description": "",
    "organization_id": None,
    "system_prompt": "",
    "llm_provider": None,
    "default_chat_model": None,
    "temperature": None,
    "max_output_tokens": None,
    "default_max_documents": None,
    "default_score_threshold": None,
    "question_rewriting": Rewriter.RULE,
    "allow_web_search": False,
    "allow_file_uploads": True,
    "allow_knowledge_search": True,
    "is_active": True,
    "is_default": False,
    "accessible_index_ids": [],
    "accessible_category_ids": [],
}
ORDERINGS = {"name": Persona.name, "created_at": Persona.created_at, "updated_at": Persona.updated_at}
WHOLE = (
    joinedload(Persona.organization),
    selectinload(Persona.accessible_indices),
    selectinload(Persona.accessible_categories),
)
"""What a page of personas shows of each, loaded at once."""
COLUMNS = (
    "id",
    "name",
    "slug",
    "description",
    "stack_id",
    "organization_name",
    "llm_provider",
    "default_chat_model",
    "is_active",
    "is_default",
    "version",
    "created_at",
    "updated_at",
)


def list(paging: Paging, stack_id: str | None = None, organization: str | None = None) -> Listing:
    """The personas that the caller may know of."""
    query = select(Persona).where(reach.to_personas()).options(*WHOLE)
    with reading(caller()) as db:
        if stack_id:
            db.require(Stack, stack_id, parameter="stack_id")
            query = query.where(Persona.stack_id == stack_id)
        if organization:
            db.require(Organization, organization, parameter="organization")
            query = query.where(Persona.organization_id == organization)
    return Listing(
        query,
        wire.show,
        paging,
        ORDERINGS,
        Persona.id,
        caller(),
        searched=(Persona.name, Persona.description),
        columns=COLUMNS,
    )


def create(body: dict[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Define a persona."""
    with transaction(caller()) as db:
        one_at_a_time(db)
        db.require(Stack, body["stack_id"], pointer="/stack_id")
        require_stack_capability(db, body["stack_id"], "chat_ai")
        persona = Persona(stack_id=body["stack_id"], name=body["name"], slug=free_slug(db, Persona, body))
        _apply(db, persona, {**DEFAULTS, **body})
        return created(wire.show(persona), f"/api/v1/chat/personas/{persona.id}")


def get(id: str) -> dict[str, Any]:
    """The persona as it stands."""
    with reading(caller()) as db:
        return wire.show(reach.persona(db, id))


def replace(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Set every field; what is left out takes its default."""
    with transaction(caller()) as db:
        one_at_a_time(db)
        persona = db.require(Persona, id, lock=True)
        if body["stack_id"] != persona.stack_id:
            raise RuleBroken("A persona stays in its stack.", pointer="/stack_id")
        _apply(db, persona, {**DEFAULTS, **body})
        return wire.show(persona)


def update(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Set the fields that came."""
    with transaction(caller()) as db:
        one_at_a_time(db)
        persona = db.require(Persona, id, lock=True)
        _apply(db, persona, body)
        return wire.show(persona)


def delete(id: str) -> None:
    """Remove the persona; its sessions stay readable."""
    with transaction(caller()) as db:
        persona = db.require(Persona, id, lock=True)
        if db.scalar(select(Bot.id).where(Bot.persona_id == id).limit(1)) is not None:
            raise Conflict("A bot speaks with this persona. Give the bot another one first.")
        db.execute(change(ChatSession).where(ChatSession.persona_id == id).values(persona_id=None))
        db.delete(persona)


def duplicate(id: str, body: dict[str, Any] | None = None) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Make another persona with the same settings, assigned to nobody; never the default one."""
    with transaction(caller()) as db:
        one_at_a_time(db)
        original = db.require(Persona, id)
        require_stack_capability(db, original.stack_id, "chat_ai")
        named = {"name": f"{original.name[:190]} (copy)", **(body or {})}
        values = {**_kept(original), **named, "is_default": False}
        copy = Persona(stack_id=original.stack_id, name=values["name"], slug=free_slug(db, Persona, named))
        _apply(db, copy, {name: value for name, value in values.items() if name != "slug"})
        return created(wire.show(copy), f"/api/v1/chat/personas/{copy.id}")


def _kept(persona: Persona) -> dict[str, Any]:
    return persona.snapshot(
        [index.id for index in persona.accessible_indices],
        [category.id for category in persona.accessible_categories],
    )


def versions(id: str, paging: Paging) -> Listing:
    """Each state that the persona had."""
    with reading(caller()) as db:
        db.require(Persona, id)
    return Listing(
        select(PersonaVersion).where(PersonaVersion.persona_id == id),
        wire.show_version,
        paging,
        {"-version": PersonaVersion.version.desc(), "version": PersonaVersion.version},
        PersonaVersion.id,
        caller(),
        columns=("version", "values", "author_id", "created_at"),
    )


def restore(id: str, version: int) -> dict[str, Any]:
    """Make an earlier state the present one, as a new version."""
    with transaction(caller()) as db:
        one_at_a_time(db)
        persona = db.require(Persona, id, lock=True)
        kept = db.scalar(
            select(PersonaVersion).where(PersonaVersion.persona_id == id, PersonaVersion.version == version)
        )
        if kept is None:
            raise NotFound("The persona has no such version.", parameter="version")
        values = {**DEFAULTS, **kept.values, "is_default": persona.is_default}
        _apply(db, persona, _still_there(db, values), anew=True)
        return wire.show(persona)


def _still_there(db: Session, values: dict[str, Any]) -> dict[str, Any]:
    """An earlier state without what was deleted since: a persona cannot be given it back."""
    for field, target in (("accessible_index_ids", KnowledgeIndex), ("accessible_category_ids", Category)):
        known = set(db.scalars(select(target.id).where(target.id.in_(values[field]))))
        values[field] = [id for id in values[field] if id in known]
    if values["organization_id"] and db.get(Organization, values["organization_id"]) is None:
        values["organization_id"] = None
    return values


async def preview(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Answer one question as the persona would; nothing is stored but the tokens spent."""
    turn = turns.house().begin(await in_thread(_trial, id, body["content"]))
    await turns.whole(turn)
    if turn.reply.error is not None:
        raise problems.of_provider(turn.reply.error)
    return {
        "content": turn.reply.text,
        "citations": turn.reply.citations,
        "answer_status": turn.reply.answer_status,
        "usage": turn.usage(),
    }


def _trial(id: str, question: str) -> turns.Order:
    with reading(caller()) as db:
        persona = reach.persona(db, id)
        require_stack_capability(db, persona.stack_id, "chat_ai")
        briefing = briefing_of(db, persona.id)
        order = briefing.order(
            caller(),
            session_id=None,
            searches=briefing.reads,
            begun=Begun(new_id(), new_id()),
            question=question,
            configuration=effective(db, persona.stack_id),
        )
    quotas.admit(caller(), order.reply_id, order.tokens)
    return order


def _apply(db: Session, persona: Persona, values: dict[str, Any], *, anew: bool = False) -> None:
    """Set fields, check what they refer to, and keep the result as a new version; what changes nothing makes
    one only ``anew``.
    """
    is_new = persona.version is None
    if values.get("organization_id"):
        db.require(Organization, values["organization_id"], pointer="/organization_id")
    check_name(db, values.get("llm_provider"), "/llm_provider")
    if "default_chat_model" in values:
        effective(db, persona.stack_id).check_model(values["default_chat_model"], "/default_chat_model")
    held = persona.snapshot([], []) if is_new else _kept(persona)
    grants = ("accessible_index_ids", "accessible_category_ids")
    wanted = values | {field: sorted({*values[field]}) for field in grants if field in values}
    if not (is_new or anew) and held == held | {name: wanted[name] for name in held.keys() & wanted.keys()}:
        return
    for field in grants:
        audit.mention(db, persona, field, held[field], set(values.get(field, held[field])))
    if values.get("is_default"):
        of_stack = select(Persona).where(Persona.stack_id == persona.stack_id, Persona.is_default)
        for other in db.scalars(of_stack):
            other.is_default = other is persona
        db.flush()  # before this one takes their place: a stack has one at most
    if not is_new and values.get("slug", persona.slug) != persona.slug:
        persona.slug = free_slug(db, Persona, values)
    for name, value in values.items():
        if name not in (*grants, "slug", "stack_id"):
            setattr(persona, name, value)
    persona.version = 1 if is_new else persona.version + 1
    db.put(persona)
    _grant(db, persona, KnowledgeIndex, PersonaIndex, "index_id", "accessible_index_ids", values)
    _grant(db, persona, Category, PersonaCategory, "category_id", "accessible_category_ids", values)
    db.flush()
    db.refresh(persona)
    db.put(
        PersonaVersion(
            persona_id=persona.id, version=persona.version, values=_kept(persona), author_id=caller().user_id
        )
    )


def _grant(
    db: Session, persona: Persona, target: Any, link: Any, column: str, field: str, values: dict[str, Any]
) -> None:
    """Make the persona's grants of one kind exactly those of ``values[field]``, if it came."""
    if field not in values:
        return
    wanted = set(values[field])
    known = set(db.scalars(select(target.id).where(target.id.in_(wanted)))) if wanted else set()
    for position, id in enumerate(values[field]):
        if id not in known:
            raise NotFound(pointer=f"/{field}/{position}")
    db.execute(remove(link).where(link.persona_id == persona.id))
    db.add_all(link(**{"persona_id": persona.id, column: id}) for id in sorted(wanted))
