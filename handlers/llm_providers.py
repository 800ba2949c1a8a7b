"""The tenant's own providers: where they are, with which key, what they serve, and in which order."""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy import select

from handlers.auth import caller
from handlers.replies import Listing, Paging, created
from handlers.requests import Exchange, Replay
from handlers.schemas import llm_providers as wire
from models.chat.providers import LlmProvider, check_fields, offered
from models.errors import Conflict
from models.personas import Persona
from models.tenancy import Tenant
from storage import provision
from storage.database import Session, reading, transaction
from storage.provision import Own
from storage.threads import in_thread

DEFAULTS: dict[str, Any] = {"base_url": None, "api_key": None, "models": [], "order": 0, "is_active": True}
ORDERINGS = {
    "order": LlmProvider.order,
    "name": LlmProvider.name,
    "created_at": LlmProvider.created_at,
    "updated_at": LlmProvider.updated_at,
}
COLUMNS = (
    "id",
    "name",
    "kind",
    "base_url",
    "api_key_hint",
    "models",
    "order",
    "is_active",
    "created_at",
    "updated_at",
)


def list(paging: Paging) -> Listing:
    """The tenant's providers."""
    return Listing(
        select(LlmProvider),
        wire.show,
        paging,
        ORDERINGS,
        LlmProvider.id,
        caller(),
        searched=(LlmProvider.name,),
        columns=COLUMNS,
    )


def create(body: dict[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Add a provider."""
    provision.check_address(body.get("base_url"))
    with transaction(caller()) as db:
        provider = LlmProvider(kind=body["kind"])
        _apply(db, provider, {**DEFAULTS, **body})
        return created(wire.show(provider), f"/api/v1/chat/llm-providers/{provider.id}")


def get(id: str) -> dict[str, Any]:
    """The provider as it stands."""
    with reading(caller()) as db:
        return wire.show(db.require(LlmProvider, id))


def update(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Set the fields that came."""
    provision.check_address(body.get("base_url"))
    with transaction(caller()) as db:
        provider = db.require(LlmProvider, id, lock=True)
        _apply(db, provider, body)
        return wire.show(provider)


def delete(id: str) -> None:
    """Remove the provider and its key."""
    with transaction(caller()) as db:
        _one_at_a_time(db)
        provider = db.require(LlmProvider, id, lock=True)
        _check_unused(db, provider.name)
        db.delete(provider)


async def try_out(id: str, replay: Replay | None = None) -> Any:
    """Ask the provider for its models and for a word."""
    found = await in_thread(_to_try, id, replay)
    if not isinstance(found, Own):
        return found
    told = provision.shown(await provision.try_out(found))
    if replay is not None:
        await in_thread(_keep, replay, told)
    return told


def choices(exchange: Exchange) -> dict[str, Any]:
    """What a persona or a configuration may choose from; of what the tenant has none, the contract's own."""
    if exchange.operation is None:
        raise RuntimeError("the contract's defaults are needed, and so the operation")
    schema = exchange.operation.spec["responses"]["200"]["content"]["application/json"]["schema"]
    shown = {name: kind["default"] for name, kind in schema["properties"].items()}
    own = provision.active(caller())
    if own:
        shown["llm_providers"] = [
            {"name": provider.name, "kind": provider.kind, "chat_models": [*provider.models]}
            for provider in own
        ]
        shown["chat_models"] = [*dict.fromkeys(model for provider in own for model in provider.models)]
    return shown


def _apply(db: Session, provider: LlmProvider, values: dict[str, Any]) -> None:
    """Set what came and hold it against the rules."""
    _one_at_a_time(db)
    check_fields(provider.kind, values.get("base_url"), values.get("api_key"))
    if values.get("name", provider.name) != provider.name:
        _rename(db, provider, values["name"])
    if "base_url" in values:
        provider.move_to(values["base_url"], with_new_key="api_key" in values)
    if "api_key" in values:
        provision.keep_key(provider, values["api_key"])
    if "models" in values:
        provider.models = offered(values["models"])
    for field in ("order", "is_active"):
        if field in values:
            setattr(provider, field, values[field])
    db.put(provider)
    db.refresh(provider)


def _one_at_a_time(db: Session) -> None:
    """Wait for others who write providers or personas of this tenant: these refer to those by name."""
    db.get(Tenant, caller().tenant_id, with_for_update={"key_share": True})


def _rename(db: Session, provider: LlmProvider, name: str) -> None:
    if db.scalar(select(LlmProvider.id).where(LlmProvider.name == name)) is not None:
        raise Conflict("The name is taken.", pointer="/name")
    if provider.name is not None:
        _check_unused(db, provider.name)
    provider.name = name


def _check_unused(db: Session, name: str) -> None:
    persona = db.scalar(select(Persona.name).where(Persona.llm_provider == name).limit(1))
    if persona is not None:
        raise Conflict(f"The persona {persona} names this provider. Give it another one first.")


def _to_try(id: str, replay: Replay | None) -> Any:
    """The provider, or what was answered before to the same key."""
    with transaction(caller()) as db:
        answered = replay.answered(db) if replay is not None else None
        return answered or Own.of(db.require(LlmProvider, id))


def _keep(replay: Replay, told: dict[str, Any]) -> None:
    with transaction(caller()) as db:
        if replay.answered(db) is None:
            replay.keep(db, 200, {}, orjson.dumps(told))
