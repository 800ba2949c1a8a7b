"""Rate limits per caller (or address, where nobody is signed in), told in the IETF draft's headers.

draft-ietf-httpapi-ratelimit-headers: ``RateLimit-Policy: "default";q=<quota>;w=<seconds>``, ``RateLimit:
"default";r=<left>;t=<seconds>``.
"""

from __future__ import annotations

import time
from functools import cache

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter

from handlers.problems import Problem
from openapi.exchange import Exchange
from storage.settings import settings

WINDOW = 60
PUBLIC_PER_MINUTE = 600
"""For requests without credentials, per address."""


@cache
def _limiter() -> FixedWindowRateLimiter:
    url = settings().redis_url
    storage = (
        RedisStorage("async+" + url, implementation="redispy", key_prefix="booga:limits")
        if url
        else MemoryStorage()
    )
    return FixedWindowRateLimiter(storage)


async def count(exchange: Exchange) -> None:
    """Count the request; raise 429 when its caller has none left."""
    caller = exchange.caller
    quota = settings().rate_limit_per_minute if caller else PUBLIC_PER_MINUTE
    who = f"{caller.tenant_id}:{caller.identity}" if caller else f"address:{exchange.client}"
    item = RateLimitItemPerMinute(quota)
    passed = await _limiter().hit(item, who)
    window = await _limiter().get_window_stats(item, who)
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
