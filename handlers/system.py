"""What the host's own machinery asks: alive, ready, which counts, which signing keys."""

from __future__ import annotations

from typing import Any

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from handlers.replies import Text
from storage import health, tokens
from storage import metrics as counted
from storage.health import Part, Status

Answer = tuple[dict[str, Any], int, dict[str, str]]
NO_STORE = {"Cache-Control": "no-store"}


async def livez() -> Answer:
    """The process answers: without thread or database, so that a busy server is not taken for a dead one."""
    return {"status": "ok"}, 200, NO_STORE


async def readyz() -> Answer:
    """Whether this process had better get requests, and how each part is."""
    parts = await health.parts()
    report = shown(parts)
    if health.overall(parts) is Status.DOWN:
        return report, 503, {**NO_STORE, "Retry-After": "5"}
    return report, 200, NO_STORE


def shown(parts: list[Part]) -> dict[str, Any]:
    """The component ``Readiness``."""
    return {
        "status": health.overall(parts).value,
        "checks": [
            {
                "name": part.name,
                "status": part.status.value,
                "latency_ms": part.latency_ms,
                "detail": part.detail,
            }
            for part in parts
        ],
    }


def metrics() -> Text:
    """What all workers count."""
    return Text(counted.render(), CONTENT_TYPE_PLAIN_0_0_4, NO_STORE)


def jwks() -> Answer:
    """The public keys of access tokens."""
    return tokens.jwks(), 200, {"Cache-Control": f"public, max-age={tokens.SHOWN_FOR}"}
