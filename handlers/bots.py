"""Bots: personas put on sites, whom these may be asked from, and how they look there."""

from __future__ import annotations

import html
import json
from typing import Any

from sqlalchemy import delete as remove
from sqlalchemy import select
from sqlalchemy.orm import joinedload

from handlers import chat
from handlers.auth import caller, require_stack_capability
from handlers.replies import Listing, Paging, Upload, created, with_query
from handlers.requests import Exchange
from handlers.schemas import bots as wire
from handlers.sessions import listing
from handlers.slugs import free_slug, one_at_a_time
from models.audit import AuditAction
from models.bots import Bot
from models.chat.conversations import ChatSession
from models.errors import RuleBroken
from models.personas import Persona
from models.tenancy import Organization, Stack
from storage import audit
from storage import icons as pictures
from storage.database import Session, reading, transaction
from storage.settings import settings

DEFAULTS: dict[str, Any] = {
    "description": "",
    "organization_id": None,
    "allowed_origins": [],
    "is_active": True,
    "icon_url": None,
    "theme": {},
    "greeting": "",
    "suggested_questions": [],
    "rate_limit_per_minute": 20,
    "daily_message_limit": None,
    "daily_token_budget": None,
    "retention_days": None,
    "collect_feedback": True,
}
ORDERINGS = {"name": Bot.name, "created_at": Bot.created_at, "updated_at": Bot.updated_at}
COLUMNS = (
    "id",
    "name",
    "slug",
    "description",
    "persona_id",
    "stack_id",
    "public_key",
    "is_active",
    "created_at",
    "updated_at",
)
REACT = """\
import {{ useEffect }} from "react";

export default function BoogaBot() {{
  useEffect(() => {{
    const script = document.createElement("script");
    script.src = {source};
    script.async = true;
    script.dataset.bot = {key};
    document.body.appendChild(script);
    return () => script.remove();
  }}, []);
  return null;
}}
"""


def list(paging: Paging, stack_id: str | None = None, is_active: bool | None = None) -> Listing:
    """The tenant's bots."""
    query = select(Bot).options(joinedload(Bot.persona))
    if stack_id is not None:
        with reading(caller()) as db:
            db.require(Stack, stack_id, parameter="stack_id")
        query = query.where(Bot.stack_id == stack_id)
    if is_active is not None:
        query = query.where(Bot.is_active == is_active)
    return Listing(
        query,
        wire.show,
        paging,
        ORDERINGS,
        Bot.id,
        caller(),
        searched=(Bot.name, Bot.description),
        columns=COLUMNS,
    )


def create(body: dict[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Put a persona on sites and make its public key."""
    with transaction(caller()) as db:
        one_at_a_time(db)
        persona = db.require(Persona, body["persona_id"], pointer="/persona_id")
        bot = Bot(stack_id=persona.stack_id, name=body["name"], slug=free_slug(db, Bot, body))
        bot.epoch = 0
        _apply(db, bot, {**DEFAULTS, **body})
        return created(wire.show(bot), f"/api/v1/chat/bots/{bot.id}")


def get(id: str) -> dict[str, Any]:
    """The bot as it stands."""
    with reading(caller()) as db:
        return wire.show(db.require(Bot, id))


def replace(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Set every field; what is left out takes its default."""
    return _changed(id, {**DEFAULTS, **body})


def update(id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Set the fields that came."""
    return _changed(id, body)


def delete(id: str) -> None:
    """Remove the bot with its visitors' conversations."""
    with transaction(caller()) as db:
        bot = db.require(Bot, id, lock=True)
        audit.forget_visitors(db, bot.tenant_id, select(ChatSession.id).where(ChatSession.bot_id == bot.id))
        theirs = remove(ChatSession).where(ChatSession.bot_id == bot.id).returning(ChatSession.id)
        gone = db.scalars(theirs, execution_options={"synchronize_session": False}).all()
        audit.note_each(db, AuditAction.DELETE, "session", gone)
        db.delete(bot)


def toggle_active(id: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Pause the bot or let it go on: as asked, or else the other way round."""
    with transaction(caller()) as db:
        bot = db.require(Bot, id, lock=True)
        bot.set_active((body or {}).get("is_active", not bot.is_active))
        return _shown(db, bot)


def regenerate_key(id: str) -> dict[str, Any]:
    """Another public key; the old one is dead at once."""
    with transaction(caller()) as db:
        bot = db.require(Bot, id, lock=True)
        bot.renew_key()
        return _shown(db, bot)


def embed_code(id: str) -> dict[str, str]:
    """What to put into a page."""
    with reading(caller()) as db:
        bot = db.require(Bot, id)
    source, page = f"{settings().public_url}/embed.js", f"{settings().public_url}/embed/{bot.public_key}"
    title = html.escape(bot.name)
    return {
        "script": f'<script src="{html.escape(source)}" data-bot="{bot.public_key}" async></script>',
        "iframe": f'<iframe src="{html.escape(page)}" title="{title}" width="400" height="600" '
        'style="border: 0" loading="lazy"></iframe>',
        "react": REACT.format(source=json.dumps(source), key=json.dumps(bot.public_key)),
    }


def sessions(id: str, paging: Paging) -> Listing:
    """Its visitors' conversations."""
    with reading(caller()) as db:
        bot = db.require(Bot, id)
        audit.read(db, caller(), "session", None)
    return listing(select(ChatSession).where(ChatSession.bot_id == bot.id), paging)


def icons(paging: Paging, exchange: Exchange) -> dict[str, Any]:
    """The shared icons, then the tenant's own."""
    found = pictures.shared() + pictures.of_tenant(caller())
    page, size = paging.page, paging.page_size
    at = settings().public_url + exchange.path

    def link(number: int) -> str:
        return with_query(at, {"page": number, "page_size": size})

    last = max(1, -(-len(found) // size))
    return {
        "count": len(found),
        "next": link(page + 1) if page * size < len(found) else None,
        "previous": link(min(page - 1, last)) if page > 1 else None,
        "results": [_icon(icon) for icon in found[(page - 1) * size : page * size]],
    }


def upload_icon(file: Upload) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Keep a picture of the tenant's own."""
    made = pictures.received(file.file, name=file.name, media_type=file.media_type)
    with transaction(caller()) as db:
        audit.note(db, AuditAction.CREATE, "icon", None, fields=["name"])
        kept = pictures.keep(caller(), made)
    return created(_icon(kept), kept.url)


async def health() -> dict[str, Any]:
    """How the parts are that bots stand on: those of the chat."""
    return await chat.health()


def _icon(icon: pictures.Icon) -> dict[str, Any]:
    return {"name": icon.name, "url": icon.url, "shared": icon.shared}


def _changed(id: str, values: dict[str, Any]) -> dict[str, Any]:
    with transaction(caller()) as db:
        one_at_a_time(db)
        bot = db.require(Bot, id, lock=True)
        if values.get("slug", bot.slug) != bot.slug:
            bot.slug = free_slug(db, Bot, values)
        _apply(db, bot, values)
        return _shown(db, bot)


def _apply(db: Session, bot: Bot, values: dict[str, Any]) -> None:
    """Set fields, and check what they refer to."""
    if "persona_id" in values:
        persona = db.require(Persona, values["persona_id"], pointer="/persona_id")
        if persona.stack_id != bot.stack_id:
            raise RuleBroken("A bot stays in its stack.", pointer="/persona_id")
    if "stack_id" in values:
        stack = db.require(Stack, values["stack_id"], pointer="/stack_id")
        if stack.id != bot.stack_id:
            raise RuleBroken("The persona belongs to another stack.", pointer="/stack_id")
    if values.get("organization_id"):
        db.require(Organization, values["organization_id"], pointer="/organization_id")
    require_stack_capability(db, bot.stack_id, "chat_ai")
    for name, value in values.items():
        if name == "allowed_origins":
            bot.allow(value)
        elif name == "is_active":
            bot.set_active(value)
        elif name not in ("slug", "stack_id"):
            setattr(bot, name, value)
    db.put(bot)
    db.refresh(bot)


def _shown(db: Session, bot: Bot) -> dict[str, Any]:
    db.flush()
    db.refresh(bot)
    return wire.show(bot)
