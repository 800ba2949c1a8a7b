"""The root of the chat platform: where its collections are, and how the parts are that it stands on."""

from __future__ import annotations

from typing import Any

from handlers.problems import Problem
from handlers.replies import envelope
from handlers.system import shown
from storage.health import Status, down, overall, parts
from storage.settings import settings

BASE = "/api/v1/chat"
COLLECTIONS = {
    "bots": f"{BASE}/bots",
    "bot_icons": f"{BASE}/bots/icons",
    "configurations": f"{BASE}/configurations",
    "personas": f"{BASE}/personas",
    "assigned_personas": f"{BASE}/personas/assigned",
    "users": f"{BASE}/users",
    "sessions": f"{BASE}/sessions",
    "files": f"{BASE}/files",
    "indices": f"{BASE}/knowledge/indices",
    "categories": f"{BASE}/knowledge/categories",
    "documents": f"{BASE}/knowledge/documents",
    "llm_providers": f"{BASE}/llm-providers",
}
"""Each collection's path; a test holds them against the contract."""


def root() -> dict[str, Any]:
    """Each collection's name and its absolute URL."""
    return {name: settings().public_url + path for name, path in COLLECTIONS.items()}


async def health() -> dict[str, Any]:
    """Each part and its latency; 503 with the same where ``/readyz`` says that one is down that is needed."""
    found = await parts()
    if overall(found) is Status.DOWN:
        broken = [part for part in down(found) if part.needed]
        names = ", ".join(part.name for part in broken)
        raise Problem("unavailable", f"Not working just now: {names}.", meta=shown(found))
    return envelope(shown(found))
