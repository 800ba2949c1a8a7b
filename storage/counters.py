"""Where requests are counted for all workers together: Redis, when it is configured."""

from __future__ import annotations

from functools import cache

from limits.aio.storage import RedisStorage

from storage.settings import settings

CONNECTIONS = 32
"""Per worker. Requests beyond that wait for one instead of being refused."""
PATIENCE = 2.0
"""Seconds to wait for a connection or an answer before Redis counts as away."""


@cache
def shared() -> RedisStorage | None:
    """The counters that all workers share; None where each counts by itself."""
    url = settings().redis_url
    if url is None:
        return None
    from redis.asyncio import BlockingConnectionPool  # it takes a while to load, and many do without

    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=PATIENCE,
        socket_timeout=PATIENCE,
        socket_connect_timeout=PATIENCE,
    )
    return RedisStorage(
        "async+" + url,
        implementation="redispy",
        key_prefix="booga:limits",
        wrap_exceptions=True,
        connection_pool=pool,  # type: ignore[arg-type] # declared narrower than what it documents
    )
