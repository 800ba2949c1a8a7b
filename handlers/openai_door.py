"""The OpenAI-compatible door: the official client, pointed here, chats with a persona by its slug."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

import orjson
from sqlalchemy import select

from handlers import problems, reach, turns
from handlers.auth import caller, require_stack_capability
from handlers.briefing import briefing_of
from handlers.problems import Problem
from handlers.replies import Events
from handlers.requests import Exchange
from handlers.turns import Order, Turn
from models.base import new_id
from models.chat.conversations import MessageStatus
from models.chat.ports import Message
from models.errors import RuleBroken
from models.personas import Persona
from storage import quotas
from storage.configurations import effective
from storage.conversations import Begun
from storage.database import reading
from storage.threads import in_thread


def models() -> dict[str, Any]:
    """The personas that the caller may chat with."""
    with reading(caller()) as db:
        personas = db.scalars(
            select(Persona).where(reach.to_personas(), Persona.is_active).order_by(Persona.slug).limit(10_000)
        )
        data = [
            {"id": p.slug, "object": "model", "created": int(p.created_at.timestamp()), "owned_by": "tenant"}
            for p in personas
        ]
    return {"object": "list", "data": data}


async def complete(body: dict[str, Any], exchange: Exchange) -> Any:
    """Answer the last message of a conversation."""
    order = await in_thread(_order, body)
    turn = turns.house().begin(order)
    if body.get("stream"):
        with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        reading = turns.Reading(turn, partial(_chunks, turn, body["model"], with_usage))
        return Events(await turns.begun(turn, reading))
    await turns.whole(turn)
    if turn.reply.error is not None:
        raise problems.of_provider(turn.reply.error)
    message = {"role": "assistant", "content": turn.reply.text, "refusal": None}
    return {
        **_head(turn, body["model"], "chat.completion"),
        "choices": [{"index": 0, "message": message, "finish_reason": _reason(turn), "logprobs": None}],
        "usage": _usage(turn),
        "citations": turn.reply.citations,
    }


def _order(body: dict[str, Any]) -> Order:
    said = [(message["role"], _text(message["content"])) for message in body["messages"]]
    role, question = said[-1]
    if role != "user" or not question.strip():
        raise RuleBroken("The last message has to be the user's, with a text.", pointer="/messages")
    system = "\n\n".join(text for role, text in said if role in ("system", "developer"))
    history = [
        Message("assistant" if role == "assistant" else "user", text)
        for role, text in said[:-1]
        if role in ("user", "assistant") and text
    ]
    with reading(caller()) as db:
        named = select(Persona).where(reach.given(), Persona.slug == body["model"], Persona.is_active)
        persona = db.scalar(named)
        if persona is None:
            fault = {"pointer": "/model", "detail": "is the slug of no persona of yours"}
            raise Problem("not-found", "There is no such model.", faults=[fault])
        require_stack_capability(db, persona.stack_id, "chat_ai")
        briefing = briefing_of(db, persona.id)
        order = briefing.order(
            caller(),
            session_id=None,
            searches=briefing.reads,
            begun=Begun(new_id(), new_id(), history),
            question=question,
            configuration=effective(db, persona.stack_id),
            system=system,
        )
    quotas.admit(caller(), order.reply_id, order.tokens)
    return order


def _text(content: Any) -> str:
    """A message's text; of parts those of type text."""
    if isinstance(content, list):
        return "\n".join(part.get("text", "") for part in content if part["type"] == "text")
    return content or ""


def _head(turn: Turn, model: str, kind: str) -> dict[str, Any]:
    id = f"chatcmpl-{turn.order.reply_id}"
    return {"id": id, "object": kind, "created": int(time.time()), "model": model}


def _reason(turn: Turn) -> str:
    reason = turn.reply.finish_reason
    return reason if reason in ("length", "content_filter") else "stop"


def _usage(turn: Turn) -> dict[str, int]:
    usage = turn.usage()
    del usage["source"]
    return usage


async def _chunks(
    turn: Turn, model: str, with_usage: bool, reader: asyncio.Event
) -> AsyncGenerator[bytes, None]:
    """The reply as OpenAI's events."""
    head = _head(turn, model, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], reason: str | None = None, **extra: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return b"data: %b\n\n" % orjson.dumps({**head, "choices": [choice], **extra})

    yield chunk({"role": "assistant", "content": ""})
    sent = 0
    async with aclosing(turns.changes(turn, reader)) as changed:
        async for more in changed:
            if not more:
                yield turns.COMMENT
            elif len(turn.reply.text) > sent and not (turn.order.is_whole and turn.reply.is_running):
                text, sent = turn.reply.text[sent:], len(turn.reply.text)
                yield chunk({"content": text})
    if turn.reply.status == MessageStatus.FAILED and turn.reply.error is not None:
        yield b"data: %b\n\n" % orjson.dumps(
            problems.of_provider(turn.reply.error).openai_body(turn.order.reply_id)
        )
        return
    yield chunk({}, _reason(turn), citations=turn.reply.citations)
    if with_usage:
        yield b"data: %b\n\n" % orjson.dumps({**head, "choices": [], "usage": _usage(turn)})
    yield b"data: [DONE]\n\n"
