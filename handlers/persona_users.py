"""Who may use which persona: assignments, those who are eligible, and what a caller itself is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, and_, literal, select

from handlers import reach
from handlers.auth import caller
from handlers.personas import WHOLE
from handlers.problems import Problem
from handlers.replies import Listing, Paging, envelope
from handlers.schemas import people as wire
from handlers.schemas import personas as persona_wire
from models.personas import Persona, PersonaAssignment
from models.tenancy import Seat, Stack, User, admissions
from storage.configurations import effective
from storage.database import Session, reading, transaction

ORDERINGS = {"email": User.email, "name": User.name, "created_at": User.created_at}
COLUMNS = ("id", "email", "name", "role", "is_active")


def list(id: str, paging: Paging) -> Listing:
    """Who the persona is assigned to."""
    with reading(caller()) as db:
        db.require(Persona, id)
    assigned = select(PersonaAssignment.user_id).where(PersonaAssignment.persona_id == id)
    return Listing(
        select(User).where(User.id.in_(assigned)),
        wire.show,
        paging,
        ORDERINGS,
        User.id,
        caller(),
        searched=(User.email, User.name),
        columns=COLUMNS,
    )


def assign(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Let these users chat with the persona; whoever is not eligible refuses all."""
    wanted = body["user_ids"]
    with transaction(caller()) as db:
        persona = db.require(Persona, id, lock=True)
        _check_eligible(db, persona.stack_id, wanted)
        already = set(
            db.scalars(select(PersonaAssignment.user_id).where(PersonaAssignment.persona_id == persona.id))
        )
        new = [user_id for user_id in wanted if user_id not in already]
        db.add_all(PersonaAssignment(persona_id=persona.id, user_id=user_id) for user_id in new)
        return {"assigned": new, "unchanged": [user_id for user_id in wanted if user_id in already]}


def unassign(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Take the persona from these users; one that does not have it is told as unchanged."""
    wanted = body["user_ids"]
    with transaction(caller()) as db:
        persona = db.require(Persona, id, lock=True)
        link = and_(PersonaAssignment.persona_id == persona.id, PersonaAssignment.user_id.in_(wanted))
        assignments = {row.user_id: row for row in db.scalars(select(PersonaAssignment).where(link))}
        strangers = [user_id for user_id in wanted if user_id not in assignments]
        _check_known(db, strangers)
        for row in assignments.values():
            db.delete(row)
        unassigned = [user_id for user_id in wanted if user_id in assignments]
        return {"unassigned": unassigned, "unchanged": strangers}


def assigned(stack_id: str) -> dict[str, Any]:
    """The stack's personas that are explicitly assigned to the caller."""
    mine = select(PersonaAssignment.persona_id).where(PersonaAssignment.user_id == caller().user_id)
    with reading(caller()) as db:
        db.require(Stack, stack_id, parameter="stack_id")
        rows = db.scalars(
            select(Persona)
            .where(Persona.stack_id == stack_id, Persona.id.in_(mine), Persona.is_active)
            .options(*WHOLE)
            .order_by(Persona.name, Persona.id)
        ).unique()
        shown = [persona_wire.show(row) for row in rows]
    return envelope(shown, count=len(shown))


def eligible(stack_id: str) -> dict[str, Any]:
    """The users who may be given personas of a stack."""
    with reading(caller()) as db:
        stack = db.require(Stack, stack_id, parameter="stack_id")
        rows = db.scalars(_eligible(stack).order_by(User.email))
        shown = [wire.show(row) for row in rows]
    return envelope(shown, count=len(shown))


def access(stack_id: str) -> dict[str, Any]:
    """Whether the caller has knowledge search in a stack, through which personas, to which indices."""
    with reading(caller()) as db:
        db.require(Stack, stack_id, parameter="stack_id")
        switched_on = effective(db, stack_id)["enable_knowledge_search"]
        rows = db.scalars(
            select(Persona)
            .where(
                literal(switched_on),
                Persona.stack_id == stack_id,
                reach.to_personas(),
                Persona.is_active,
                Persona.allow_knowledge_search,
            )
            .options(*WHOLE)
            .order_by(Persona.name, Persona.id)
        ).unique()
        reading_personas = [row for row in rows if row.accessible_indices or row.accessible_categories]
        indices = {index.id: index.name for row in reading_personas for index in row.accessible_indices}
        categories = {c.id: c.name for row in reading_personas for c in row.accessible_categories}
    return envelope(
        {
            "has_access": bool(reading_personas),
            "personas": [{"id": row.id, "name": row.name} for row in reading_personas],
            "indices": _named(indices),
            "categories": _named(categories),
        }
    )


def _named(things: dict[str, str]) -> Sequence[dict[str, str]]:
    return [{"id": id, "name": name} for id, name in sorted(things.items(), key=lambda pair: pair[1])]


def _eligible(stack: Stack) -> Select[User]:
    """Active users with a seat in a running subscription of the stack's product, admitted to its region."""
    admitted = admissions().where(Stack.id == stack.id).with_only_columns(Seat.user_id)
    return select(User).where(User.is_active, User.id.in_(admitted))


def _check_eligible(db: Session, stack_id: str, wanted: Sequence[str]) -> None:
    known = _eligible(db.require(Stack, stack_id)).where(User.id.in_(wanted)).with_only_columns(User.id)
    _refuse(wanted, set(db.scalars(known)), "has no seat in this stack's product or is not of its region")


def _check_known(db: Session, wanted: Sequence[str]) -> None:
    known = select(User.id).where(User.id.in_(wanted))
    _refuse(wanted, set(db.scalars(known)), "is no user of this tenant")


def _refuse(wanted: Sequence[str], known: set[str], why: str) -> None:
    """422 that names each id that is not known; another tenant's is told like one that never was."""
    faults = [
        {"pointer": f"/user_ids/{position}", "detail": why}
        for position, user_id in enumerate(wanted)
        if user_id not in known
    ]
    if faults:
        raise Problem("unprocessable", f"{len(faults)} of the users cannot have this persona.", faults=faults)
