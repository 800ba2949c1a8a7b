"""Visitors of bots: who may come in by a public key, with which token, and what they may still spend.

A bot is read from SQL at every request, so that a pause, a new key or other origins reach every worker at
once. A token is sealed with the installation's secret and good for one conversation with one bot as it
stood: the bot's ``epoch`` is in it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import cast

import orjson
from cryptography.fernet import InvalidToken
from sqlalchemy import Connection, Table, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from models.access import VISITOR, Caller
from models.audit import AuditAction
from models.base import new_id, now
from models.bots import Bot, BotDay, BotReservation
from models.chat.conversations import ChatMessage, ChatSession, MessageStatus
from models.errors import TooManyRequests
from models.tenancy import Stack, Subscription, Tenant
from storage import audit
from storage.database import Session, platform
from storage.secrets import seal, unseal

PREFIX = "bv_"
LIFETIME = 900
"""Seconds that a token is good for."""
RENEWED_AFTER = 300
"""Seconds after which an answer carries a fresh one."""
CONTINUES_WITHIN = 86_400
"""Seconds after its issue in which a token that ran out still gets its conversation a new one."""
LEAST_OUTPUT = 16
MOST_OUTPUT = 1024
"""Tokens that a reply may have where the bot has a budget and the persona says nothing."""

_AT_ONCE = 1000
"""Old conversations of one bot that a sweep deletes; the next ones go with the next sweep."""
_DAYS = cast(Table, BotDay.__table__)
_RESERVED = cast(Table, BotReservation.__table__)


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a visitor's token says."""

    bot_id: str
    session_id: str
    visitor_id: str
    epoch: int
    issued: int

    @property
    def age(self) -> float:
        """Seconds since it was issued."""
        return time.time() - self.issued

    def token(self) -> str:
        """A fresh token for the same conversation."""
        said = [VISITOR, self.bot_id, self.session_id, self.visitor_id, self.epoch, int(time.time())]
        return PREFIX + seal(orjson.dumps(said)).decode()


@dataclass(frozen=True, slots=True)
class Door:
    """A bot that may be talked to, and the rights of its tenant."""

    bot: Bot
    has_capability: bool
    grants: frozenset[tuple[str, str]]

    def caller(self, visitor_id: str) -> Caller:
        """A visitor as rules see it: of the bot's tenant, and nobody there."""
        return Caller(self.bot.tenant_id, visitor_id, VISITOR, frozenset(), self.grants)

    def ticket(self, token: str, within: int = LIFETIME) -> Ticket | None:
        """What the token says, if it is ours, of this bot as it stands, and not older than ``within``."""
        try:
            kind, *said = orjson.loads(unseal(token.removeprefix(PREFIX).encode()))
            ticket = Ticket(*said) if kind == VISITOR else None
        except (InvalidToken, orjson.JSONDecodeError, ValueError, TypeError):
            return None
        fits = (
            ticket is not None
            and token.startswith(PREFIX)
            and (ticket.bot_id, ticket.epoch) == (self.bot.id, self.bot.epoch)
            and ticket.age < within
        )
        return ticket if fits else None

    def admit(self, session_id: str, visitor_id: str) -> Ticket:
        """A ticket for a conversation."""
        return Ticket(self.bot.id, session_id, visitor_id, self.bot.epoch, int(time.time()))


def door(public_key: str) -> Door | None:
    """The running bot of that key; None alike for one that is paused, gone, or never was."""
    with platform(writes=False) as db:
        bot = db.scalar(
            select(Bot)
            .join(Tenant, Tenant.id == Bot.tenant_id)
            .where(Bot.public_key == public_key, Bot.is_active, Tenant.is_active)
        )
        if bot is None:
            return None
        product_id = db.scalar(select(Stack.product_id).where(Stack.id == bot.stack_id)) or ""
        running = db.scalars(
            select(Subscription).where(
                Subscription.tenant_id == bot.tenant_id, Subscription.product_id == product_id
            )
        )
        grants = frozenset(
            (product_id, name) for row in running for name in row.capabilities if row.grants(name)
        )
        return Door(bot, (product_id, "chat_ai") in grants, grants)


def epochs(bot_ids: Collection[str]) -> dict[str, int]:
    """The epochs of those bots that are running."""
    running = select(Bot.id, Bot.epoch).join(Tenant, Tenant.id == Bot.tenant_id)
    with platform(writes=False) as db:
        found = db.execute(running.where(Bot.id.in_(bot_ids), Bot.is_active, Tenant.is_active))
        return dict(found.tuples().all())


def begin(db: Session, bot: Bot, visitor_id: str | None) -> ChatSession:
    """A visitor's new conversation: it has a bot and no user."""
    return db.put(
        ChatSession(
            persona_id=bot.persona_id,
            stack_id=bot.stack_id,
            bot_id=bot.id,
            visitor_id=visitor_id or new_id(),
            attributes={},
        )
    )


def _today() -> date:
    return now().date()


def _until_tomorrow() -> int:
    tomorrow = datetime.combine(_today() + timedelta(days=1), datetime.min.time(), UTC)
    return max(1, int((tomorrow - now()).total_seconds()) + 1)


def reserve(
    db: Session, bot: Bot, message_id: str, prompt_tokens: int, most_output: int | None
) -> int | None:
    """Count a question and set its tokens aside; the longest reply that is left for it (None: no limit).

    The bot's row of the day is locked until the transaction ends, so that parallel questions share exactly
    what is left. Raises ``TooManyRequests`` when the day has no question or too few tokens left.
    """
    connection, day = db.connection(), _today()
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    first = {
        "bot_id": bot.id,
        "day": day,
        "tenant_id": bot.tenant_id,
        "messages": 0,
        "tokens": 0,
        "reserved": 0,
    }
    connection.execute(insert(_DAYS).values(first).on_conflict_do_nothing(index_elements=["bot_id", "day"]))
    which = (_DAYS.c.bot_id == bot.id, _DAYS.c.day == day)
    used = connection.execute(select(_DAYS).where(*which).with_for_update()).one()
    if bot.daily_message_limit is not None and used.messages >= bot.daily_message_limit:
        raise TooManyRequests("The day's questions are used up.", _until_tomorrow())
    connection.execute(update(_DAYS).where(*which).values(messages=_DAYS.c.messages + 1))
    if bot.daily_token_budget is None:
        return most_output
    left = bot.daily_token_budget - used.tokens - used.reserved - prompt_tokens
    if left < LEAST_OUTPUT:
        raise TooManyRequests("The day's tokens are used up.", _until_tomorrow())
    output = min(most_output or MOST_OUTPUT, int(left))
    tokens = prompt_tokens + output
    connection.execute(update(_DAYS).where(*which).values(reserved=_DAYS.c.reserved + tokens))
    row = {
        "message_id": message_id,
        "bot_id": bot.id,
        "day": day,
        "tokens": tokens,
        "tenant_id": bot.tenant_id,
    }
    connection.execute(_RESERVED.insert().values(row))
    return output


def settle(connection: Connection, used: Mapping[str, int | None]) -> None:
    """Put what replies used in the place of what was set aside for them (None: all of that)."""
    if not used:
        return
    taken = connection.execute(
        delete(_RESERVED).where(_RESERVED.c.message_id.in_(list(used))).returning(_RESERVED)
    ).all()
    for row in sorted(taken, key=lambda row: (row.bot_id, row.day)):
        spent = used[row.message_id]
        connection.execute(
            update(_DAYS)
            .where(_DAYS.c.bot_id == row.bot_id, _DAYS.c.day == row.day)
            .values(
                reserved=_DAYS.c.reserved - row.tokens,
                tokens=_DAYS.c.tokens + (row.tokens if spent is None else spent),
            )
        )


def sweep() -> int:
    """Settle replies whose writer is gone; delete conversations past their days, and tell how many."""
    with platform() as db:
        left = db.scalars(
            select(BotReservation.message_id)
            .join(ChatMessage, ChatMessage.id == BotReservation.message_id)
            .where(ChatMessage.status != MessageStatus.STREAMING)
        )
        settle(db.connection(), dict.fromkeys(left))
        kept = select(Bot.id, Bot.tenant_id, Bot.retention_days).where(Bot.retention_days.is_not(None))
        return sum(
            _forget(db, id, tenant_id, now() - timedelta(days=days or 0))
            for id, tenant_id, days in db.execute(kept).all()
        )


def _forget(db: Session, bot_id: str, tenant_id: str, before: datetime) -> int:
    running = select(ChatMessage.session_id).where(ChatMessage.status == MessageStatus.STREAMING)
    old = (
        ChatSession.bot_id == bot_id,
        func.coalesce(ChatSession.last_message_at, ChatSession.created_at) < before,
        ChatSession.id.not_in(running),
    )
    gone = db.scalars(select(ChatSession.id).where(*old).limit(_AT_ONCE).with_for_update()).all()
    if not gone:
        return 0
    these = ChatSession.id.in_(gone)
    audit.forget_visitors(db, tenant_id, select(ChatSession.id).where(these))
    db.execute(delete(ChatSession).where(these).execution_options(synchronize_session=False))
    audit.note_each(db, AuditAction.DELETE, "session", gone, tenant_id=tenant_id)
    return len(gone)
