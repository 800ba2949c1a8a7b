"""The public bot service: what a bot's visitors may do, without signing in."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from handlers.answers import Answers
from handlers.auth import caller
from handlers.briefing import Briefing, briefing_of
from handlers.messages import Branch
from handlers.replies import Events, Listing, Paging
from handlers.requests import Exchange
from handlers.schemas import visitors as wire
from handlers.turns import Order
from handlers.visits import Visit
from models.chat import rewriting
from models.chat.conversations import ChatMessage, ChatSession, session_expired
from models.chat.ports import estimate_tokens
from models.chat.prompts import CITING
from models.configuration import Effective
from models.errors import FeatureDisabled, NotFound
from storage import conversations, events, quotas, visitors
from storage.configurations import effective, is_idle
from storage.conversations import Begun
from storage.database import Session, reading, transaction
from storage.threads import in_thread

PASSAGE = 400
"""Tokens that one passage takes of a prompt at most, with its place."""
OVERHEAD = 64
"""Tokens that a prompt's own words take beside all that is counted."""
_answers = Answers(wire.show)


def config(public_key: str, exchange: Exchange) -> dict[str, Any]:
    """How the bot looks and greets."""
    return wire.config(_visit(exchange).bot)


def begin(
    public_key: str, exchange: Exchange, body: dict[str, Any] | None = None
) -> tuple[dict[str, Any], int]:
    """A new conversation; or the present one's new token, for a visitor who comes with the old one."""
    visit = _visit(exchange)
    bot, ticket = visit.bot, visit.ticket
    with transaction(caller()) as db:
        if ticket is not None and not (body or {}).get("restart", False):
            _session(db, visit, ticket.session_id)
            return _admitted(ticket.session_id, ticket.token()), 200
        session = visitors.begin(db, bot, ticket.visitor_id if ticket else None)
        told = {name: getattr(session, name) for name in ("id", "bot_id", "stack_id", "persona_id")}
        events.publish(db, "bot.session.created", told)
        admitted = visit.door.admit(session.id, session.visitor_id or "")
        return _admitted(session.id, admitted.token()), 201


def list(public_key: str, id: str, exchange: Exchange, paging: Paging) -> Listing:
    """The conversation so far, oldest first."""
    with reading(caller()) as db:
        session = _session(db, _visit(exchange), id)
    return Branch(
        conversations.on_branch(id, session.leaf_id),
        wire.show,
        paging,
        {"created_at": ChatMessage.created_at},
        ChatMessage.id,
        caller(),
        by_cursor=(ChatMessage.created_at, ChatMessage.id),
        session_id=id,
        leaf_id=session.leaf_id,
    )


async def send(public_key: str, id: str, body: dict[str, Any], exchange: Exchange) -> Any:
    """Ask, and answer with the whole reply."""
    return await _answers.whole(await in_thread(_begin, _visit(exchange), id, body))


async def stream(public_key: str, id: str, body: dict[str, Any], exchange: Exchange) -> Any:
    """Ask, and answer with the reply's events as they come."""
    return await _answers.streamed(await in_thread(_begin, _visit(exchange), id, body), exchange)


async def resume(public_key: str, id: str, last_event_id: str | None, exchange: Exchange) -> Events:
    """Follow the running or last reply, from behind an event."""
    visit = _visit(exchange)
    return await _answers.resumed(lambda db: _session(db, visit, id), id, last_event_id, exchange)


async def ask(public_key: str, id: str, body: dict[str, Any], exchange: Exchange) -> Any:
    """``stream`` by its shorter path."""
    return await stream(public_key, id, body, exchange)


async def follow(public_key: str, id: str, last_event_id: str | None, exchange: Exchange) -> Events:
    """``resume`` by its shorter path."""
    return await resume(public_key, id, last_event_id, exchange)


def rate(
    public_key: str, id: str, message_id: str, body: dict[str, Any], exchange: Exchange
) -> dict[str, Any]:
    """Keep what the visitor thinks of a reply."""
    visit = _visit(exchange)
    if not visit.bot.collect_feedback:
        raise FeatureDisabled("This bot collects no feedback.")
    with transaction(caller()) as db:
        session = _session(db, visit, id)
        reply = db.require(ChatMessage, message_id, lock=True)
        if reply.session_id != session.id or reply.role != "assistant":
            raise NotFound()
        conversations.rate(db, session, reply, body["rating"], body.get("comment"))
        return {"rating": reply.rating, "comment": reply.comment}


def _visit(exchange: Exchange) -> Visit:
    visit = exchange.visit
    if visit is None:
        raise RuntimeError("the binding lets every visitor in")
    return visit


def _admitted(session_id: str, token: str) -> dict[str, Any]:
    return {"session_id": session_id, "visitor_token": token, "expires_in": visitors.LIFETIME}


def _session(db: Session, visit: Visit, id: str, *, lock: bool = False) -> ChatSession:
    """The visitor's conversation with this bot."""
    session = db.require(ChatSession, id, lock=lock)
    if session.bot_id != visit.bot.id:
        raise NotFound()
    return session


def _begin(visit: Visit, id: str, body: dict[str, Any]) -> Order:
    """Write question and empty reply, set its tokens aside, and gather what the turn needs."""
    began = time.monotonic()
    with transaction(caller(), followed=True) as db:
        session = _session(db, visit, id, lock=True)
        session.accept_question()
        configuration = effective(db, session.stack_id)
        if is_idle(configuration, session):
            raise session_expired()
        persona = _answering(db, visit)
        session.persona_id = persona.persona_id
        begun = conversations.begin(
            db,
            session,
            body["content"],
            parent_id=body.get("parent_id"),
            attributes={},
            persona_version=persona.version,
        )
        most = visitors.reserve(
            db,
            visit.bot,
            begun.reply_id,
            _prompt_tokens(persona, begun, body["content"], configuration),
            persona.instructions.max_output_tokens,
        )
        order = persona.order(
            caller(),
            session_id=session.id,
            searches=persona.reads,
            begun=begun,
            question=body["content"],
            configuration=configuration,
            began=began,
        )
        instructions = replace(order.instructions, max_output_tokens=most)
        order = replace(
            order, instructions=instructions, user_id=None, bot_id=visit.bot.id, cites=wire.citation
        )
        quotas.admit(caller(), order.reply_id, order.tokens)
        return order


def _answering(db: Session, visit: Visit) -> Briefing:
    briefing = briefing_of(db, visit.bot.persona_id)
    if not briefing.is_active:
        raise FeatureDisabled("This bot's persona is switched off.")
    return briefing


def _prompt_tokens(persona: Briefing, begun: Begun, question: str, configuration: Effective) -> int:
    """The most that the turn's prompt may take, by estimate: nothing is searched yet."""
    said = [persona.instructions.system_prompt, question, *(message.content for message in begun.history)]
    most = persona.max_documents or configuration["default_max_documents"]
    passages = most * PASSAGE if persona.reads else 0
    asked = (
        rewriting.most_tokens(question, begun.history) if persona.asks_first(question, begun.history) else 0
    )
    return asked + sum(estimate_tokens(text) for text in said) + estimate_tokens(CITING) + passages + OVERHEAD
