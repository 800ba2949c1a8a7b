"""Settings of stacks and of the tenant."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from handlers.auth import caller, require_stack_capability
from handlers.replies import Listing, Paging, created
from handlers.schemas import configurations as wire
from handlers.slugs import one_at_a_time
from models.configuration import DEFAULTS, Configuration
from models.errors import Conflict, RuleBroken
from models.personas import Persona
from models.tenancy import Stack
from storage.configurations import effective
from storage.database import Session, reading, transaction

MOST_NAMED = 5
MODELS = {"default_chat_model", "available_chat_models"}
ORDERINGS = {"created_at": Configuration.created_at, "updated_at": Configuration.updated_at}


def list(paging: Paging, stack_id: str | None = None) -> Listing:
    """The tenant's configurations."""
    query = select(Configuration)
    if stack_id is not None:
        with reading(caller()) as db:
            db.require(Stack, stack_id, parameter="stack_id")
        query = query.where(Configuration.stack_id == stack_id)
    columns = ("id", "stack_id", *DEFAULTS, "created_at", "updated_at")
    return Listing(query, wire.show, paging, ORDERINGS, Configuration.id, caller(), columns=columns)


def create(body: dict[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Set up a stack, or all of the tenant."""
    stack_id = body.get("stack_id")
    with transaction(caller()) as db:
        one_at_a_time(db)  # two with the same place must not both find it free
        if stack_id is not None:
            db.require(Stack, stack_id, pointer="/stack_id")
            require_stack_capability(db, stack_id, "chat_ai")
        there = select(Configuration.id).where(Configuration.stack_id.is_not_distinct_from(stack_id))
        if db.scalar(there) is not None:
            raise Conflict("There is one already; change that.", pointer="/stack_id")
        configuration = Configuration(stack_id=stack_id, values={})
        _set(db, configuration, body)
        return created(wire.show(configuration), f"/api/v1/chat/configurations/{configuration.id}")


def get(id: str) -> dict[str, Any]:
    """The configuration as it stands."""
    with reading(caller()) as db:
        return wire.show(db.require(Configuration, id))


def replace(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Set every setting; what is left out is inherited."""
    return update(id, {**dict.fromkeys(DEFAULTS), **body})


def update(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Set the settings that came."""
    with transaction(caller()) as db:
        one_at_a_time(db)
        configuration = db.require(Configuration, id, lock=True)
        _set(db, configuration, body)
        return wire.show(configuration)


def delete(id: str) -> None:
    """Inherit everything again."""
    with transaction(caller()) as db:
        one_at_a_time(db)
        configuration = db.require(Configuration, id, lock=True)
        db.delete(configuration)
        db.flush()
        outside = _outside(db, configuration.stack_id)
        if outside:
            raise Conflict(f"Without it these name models that may not be used: {outside}.")


def current(stack_id: str) -> dict[str, Any]:
    """What holds in a stack, and why."""
    with reading(caller()) as db:
        db.require(Stack, stack_id, parameter="stack_id")
        holds = effective(db, stack_id)
    return {"values": {**holds.values}, "origins": {**holds.origins}}


def _set(db: Session, configuration: Configuration, values: dict[str, Any]) -> None:
    """Set these, and check that what is asked for by default may be used wherever they reach."""
    configuration.set(values)
    db.put(configuration)
    if MODELS & values.keys():
        pointer = "/default_chat_model" if values.get("default_chat_model") else "/available_chat_models"
        holds = effective(db, configuration.stack_id)
        holds.check_model(holds["default_chat_model"], pointer)
        outside = _outside(db, configuration.stack_id)
        if outside:
            raise RuleBroken(f"These name models that could not be used then: {outside}.", pointer=pointer)


def _outside(db: Session, stack_id: str | None) -> str:
    """Which stacks and personas within a configuration's reach ask by default for what may not be used."""
    stacks = select(Stack).order_by(Stack.name) if stack_id is None else select(Stack).filter_by(id=stack_id)
    found = []
    for stack in db.scalars(stacks):
        holds = effective(db, stack.id)
        named = [(f"the stack {stack.name}", holds["default_chat_model"])]
        personas = select(Persona.name, Persona.default_chat_model).where(Persona.stack_id == stack.id)
        named += [
            (f"the persona {name}", model) for name, model in db.execute(personas.order_by(Persona.name))
        ]
        found += [f"{who} ({model})" for who, model in named if not holds.allows(model)]
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return ", ".join(found[:MOST_NAMED]) + more
