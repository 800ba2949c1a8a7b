"""The door for visitors of bots: which page asks, with which token, and how often.

The order is the contract's: a bot that is not there, then a page that may not ask, then the token, then the
rate. What a browser may read of an answer is said by CORS headers (Fetch standard, 3.3), on problems, too.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from starlette.types import Scope

from handlers.problems import Problem
from handlers.visits import Visit
from models.errors import CapabilityRequired, NotFound
from openapi import limits
from openapi.contract import Operation
from openapi.exchange import Exchange
from openapi.sending import Headers
from storage import visitors
from storage.settings import settings
from storage.threads import in_thread
from storage.throttle import network_of

PREFIX = "/api/v1/embed/"
_KEY = re.compile(re.escape(PREFIX) + r"([^/]+)/")
RENEWED = "X-Visitor-Token"
VARY = (b"vary", b"Origin")
READABLE = (
    b"access-control-expose-headers",
    f"{RENEWED}, X-Request-ID, RateLimit, RateLimit-Policy, Retry-After".encode(),
)


def _one(scope: Scope, name: bytes) -> str | None:
    """A header that came once; none counts where it came several times."""
    values = [value for key, value in scope["headers"] if key == name]
    return values[0].decode("latin-1") if len(values) == 1 else None


async def preflight(exchange: Exchange, scope: Scope, allow: str) -> Headers:
    """What OPTIONS says beside ``Allow``: nothing, unless the page that asks is allowed."""
    found = _KEY.match(exchange.path)
    if found is None:
        return []
    origin, door = _one(scope, b"origin"), await in_thread(visitors.door, found[1])
    if door is None or origin not in door.bot.allowed_origins:
        return [VARY]
    return [
        VARY,
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-allow-methods", allow.encode()),
        (b"access-control-allow-headers", b"Authorization, Content-Type, Last-Event-ID, X-Request-ID"),
        (b"access-control-max-age", b"600"),
    ]


async def admit(exchange: Exchange, scope: Scope, operation: Operation) -> None:
    """Let a visitor in, or raise the problem."""
    exchange.extra_headers = [VARY]
    door = await in_thread(visitors.door, exchange.path_values["public_key"])
    if door is None:
        raise NotFound()
    origin, token = _one(scope, b"origin"), _token(scope)
    begins = operation.id == "embed.begin"
    within = visitors.CONTINUES_WITHIN if begins else visitors.LIFETIME
    ticket = door.ticket(token, within) if token else None
    if origin in door.bot.allowed_origins:
        exchange.extra_headers += [(b"access-control-allow-origin", origin.encode("latin-1")), READABLE]
    elif not _is_own_page(origin, door) and (operation.method != "get" or ticket is None):
        raise Problem("origin-not-allowed", "Pages of this origin may not talk to this bot.")
    needs = "id" in exchange.path_values
    if ticket is None and (needs or token):
        raise Problem(
            "unauthorized",
            "The visitor's token is missing or not good any more. Begin again with POST .../sessions.",
            headers={"WWW-Authenticate": 'Bearer realm="booga visitors"'},
        )
    if not door.has_capability:
        raise CapabilityRequired("No active subscription for this bot's stack grants chat_ai.")
    if needs and ticket is not None and ticket.session_id != exchange.path_values["id"].lower():
        raise NotFound()
    if operation.method == "post":
        quota, bot_id = door.bot.rate_limit_per_minute, door.bot.id
        if ticket is not None:
            await limits.spend(quota, f"visitor:{bot_id}:{ticket.visitor_id}")
        await limits.spend(quota, f"bot-address:{bot_id}:{network_of(exchange.client)}")
    if ticket is not None and not begins and ticket.age > visitors.RENEWED_AFTER:
        exchange.extra_headers.append((RENEWED.lower().encode(), ticket.token().encode()))
    exchange.visit = Visit(door, ticket)
    exchange.caller = door.caller(ticket.visitor_id if ticket else "")


def _is_own_page(origin: str | None, door: visitors.Door) -> bool:
    """Whether our own page of the bot asks, which those sites may frame that may ask themselves."""
    at = urlsplit(settings().public_url)
    return bool(door.bot.allowed_origins) and origin == f"{at.scheme}://{at.netloc}"


def _token(scope: Scope) -> str | None:
    given = _one(scope, b"authorization")
    scheme, _, token = (given or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else given
