"""Rate limits per caller (or address, where nobody is signed in), told in the IETF draft's headers.

draft-ietf-httpapi-ratelimit-headers: ``RateLimit-Policy: "default";q=<quota>;w=<seconds>``, ``RateLimit:
"default";r=<left>;t=<seconds>``.
"""

from __future__ import annotations

import time
from functools import cache

import structlog
from limits import RateLimitItemPerMinute, WindowStats
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import StorageError

from handlers.problems import Problem
from openapi.exchange import Exchange
from storage import counters
from storage.settings import settings
from storage.throttle import network_of

log = structlog.get_logger("booga.limits")

WINDOW = 60
PUBLIC_PER_MINUTE = 600
"""For requests without credentials, per address."""


@cache
def _alone() -> FixedWindowRateLimiter:
    """Counts for this process."""
    return FixedWindowRateLimiter(MemoryStorage())


@cache
def _together() -> FixedWindowRateLimiter | None:
    """Counts for all workers, where Redis is configured."""
    storage = counters.shared()
    return None if storage is None else FixedWindowRateLimiter(storage)


async def _hit(item: RateLimitItemPerMinute, who: str) -> tuple[bool, WindowStats]:
    shared = _together()
    if shared is not None:
        try:
            return await shared.hit(item, who), await shared.get_window_stats(item, who)
        except StorageError as fault:  # Redis is away: each worker counts by itself until it is back
            log.warning("limits are counted per worker", fault=str(fault))
    return await _alone().hit(item, who), await _alone().get_window_stats(item, who)


async def count(exchange: Exchange) -> None:
    """Count the request; raise 429 when its caller has none left."""
    caller = exchange.caller
    quota = settings().rate_limit_per_minute if caller else PUBLIC_PER_MINUTE
    if caller is not None and caller.rate_limit is not None:
        quota = min(quota, caller.rate_limit)
    who = f"{caller.tenant_id}:{caller.identity}" if caller else f"address:{network_of(exchange.client)}"
    item = RateLimitItemPerMinute(quota)
    passed, window = await _hit(item, who)
    seconds = max(1, min(WINDOW, int(window.reset_time - time.time()) + 1))
    exchange.rate_headers = [
        (b"ratelimit-policy", f'"default";q={quota};w={WINDOW}'.encode()),
        (b"ratelimit", f'"default";r={window.remaining};t={seconds}'.encode()),
    ]
    if not passed:
        raise Problem(
            "too-many-requests",
            f"The limit of {quota} requests a minute is reached.",
            headers={"Retry-After": str(seconds)},
        )


async def spend(quota: int, who: str) -> None:
    """Count something of which ``who`` has ``quota`` a minute; raise 429 when none is left."""
    passed, window = await _hit(RateLimitItemPerMinute(quota), who)
    if not passed:
        seconds = max(1, min(WINDOW, int(window.reset_time - time.time()) + 1))
        raise Problem(
            "too-many-requests",
            f"The limit of {quota} questions a minute is reached.",
            headers={"Retry-After": str(seconds)},
        )
