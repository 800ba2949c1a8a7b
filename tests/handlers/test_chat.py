"""The root and the health of the chat platform."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from handlers.chat import COLLECTIONS
from openapi import bundle
from tests.contract.conformance import described
from tests.servers import Server, Tenant

ROOT, HEALTH = "/api/v1/chat", "/api/v1/chat/health"


def collections() -> set[str]:
    """The paths of the contract under ``/chat`` that list things of one kind."""
    found = set()
    for path, method, operation in bundle.operations(described().spec):
        if method != "get" or not path.startswith(f"{ROOT}/") or "{" in path:
            continue
        ok = described().resolve(operation["responses"]["200"])
        shown = ok["content"].get("application/json", {}).get("schema", {}).get("properties", {})
        listed = shown.get("results") or shown.get("data") or {}
        if listed.get("type") == "array":
            found.add(path)
    return found


def test_every_collection_of_the_contract_is_named() -> None:
    assert set(COLLECTIONS.values()) == collections(), "handlers/chat.py names them (and openapi/components)"


def test_the_urls_lead_there(server: Server, client: httpx.Client) -> None:
    shown = client.get(ROOT).json()
    assert shown.keys() == COLLECTIONS.keys()
    for url in shown.values():
        assert url.startswith(server.url)
        assert client.get(url).status_code in (200, 400), url  # 400: some need to be told of what


def test_health_tells_of_each_part(client: httpx.Client, anonymous: httpx.Client) -> None:
    told = client.get(HEALTH).json()
    assert told["success"] is True
    assert {check["name"] for check in told["data"]["checks"]} >= {"database", "vector_store", "provider"}
    assert anonymous.get(HEALTH).status_code == 401


@pytest.mark.parametrize("path", [ROOT, HEALTH])
def test_needs_the_scope_and_no_capability(
    path: str, without_capability: Tenant, client_with: Callable[..., httpx.Client]
) -> None:
    assert client_with(tenant=without_capability).get(path).status_code == 200
    assert client_with(role="viewer").get(path).status_code == 200
    assert client_with(scopes=["personas:read"]).get(path).status_code == 403
