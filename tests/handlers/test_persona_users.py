"""Who may use which persona, and its earlier states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.contract.specimens import unknown_id
from tests.handlers.test_sessions import begin
from tests.servers import Server

PERSONAS = "/api/v1/chat/personas"


@pytest.fixture
def persona(client: httpx.Client, server: Server) -> dict[str, Any]:
    body = {"name": "Assigned one", "stack_id": server.tenant["stack_id"], "system_prompt": "First."}
    made: dict[str, Any] = client.post(PERSONAS, json=body).json()
    return made


def me(client: httpx.Client) -> str:
    id: str = client.get("/api/v1/auth/me").json()["id"]
    return id


class TestAssignment:
    def test_a_member_chats_with_what_it_was_given_as_long_as_it_has_it(
        self,
        client: httpx.Client,
        server: Server,
        persona: dict[str, Any],
        client_with: Callable[..., httpx.Client],
    ) -> None:
        member, stack = client_with(role="member"), {"stack_id": server.tenant["stack_id"]}
        url, body = f"{PERSONAS}/{persona['id']}", {"user_ids": [me(member)]}
        assert member.post("/api/v1/chat/sessions", json={"persona_id": persona["id"]}).status_code == 404
        assert client.post(f"{url}/assign-users", json=body).json()["assigned"] == body["user_ids"]
        assert client.post(f"{url}/assign-users", json=body).json()["unchanged"] == body["user_ids"]
        assert [u["id"] for u in client.get(f"{url}/users").json()["results"]] == body["user_ids"]
        given = member.get(f"{PERSONAS}/assigned", params=stack).json()["data"]
        assert [p["id"] for p in given] == [persona["id"]]
        begin(member, persona_id=persona["id"])
        assert client.post(f"{url}/unassign-users", json=body).json()["unassigned"] == body["user_ids"]
        assert member.post("/api/v1/chat/sessions", json={"persona_id": persona["id"]}).status_code == 404
        assert member.get(f"{PERSONAS}/assigned", params=stack).json()["data"] == []

    def test_only_who_has_seat_and_region_is_eligible_and_each_other_is_named(
        self, client: httpx.Client, server: Server, persona: dict[str, Any], other: httpx.Client
    ) -> None:
        listed = client.get("/api/v1/chat/users", params={"stack_id": server.tenant["stack_id"]}).json()
        assert server.tenant["user_id"] in [user["id"] for user in listed["data"]]
        ids = [server.tenant["user_id"], me(other), unknown_id()]
        response = client.post(f"{PERSONAS}/{persona['id']}/assign-users", json={"user_ids": ids})
        assert response.status_code == 422
        assert [fault["pointer"] for fault in response.json()["errors"]] == ["/user_ids/1", "/user_ids/2"]
        assert client.get(f"{PERSONAS}/{persona['id']}/users").json()["count"] == 0, "all or nothing"

    def test_knowledge_is_reached_through_personas(
        self,
        client: httpx.Client,
        server: Server,
        persona: dict[str, Any],
        client_with: Callable[..., httpx.Client],
    ) -> None:
        member, stack = client_with(role="member"), {"stack_id": server.tenant["stack_id"]}
        access = "/api/v1/chat/knowledge/access"
        index = client.post("/api/v1/chat/knowledge/indices", json={"name": "For the member"}).json()
        client.patch(f"{PERSONAS}/{persona['id']}", json={"accessible_index_ids": [index["id"]]})
        assert index["id"] not in str(member.get(access, params=stack).json())
        client.post(f"{PERSONAS}/{persona['id']}/assign-users", json={"user_ids": [me(member)]})
        told = member.get(access, params=stack).json()["data"]
        assert told["has_access"] is True
        assert index["id"] in [i["id"] for i in told["indices"]]
        assert persona["id"] in [p["id"] for p in told["personas"]]


class TestVersions:
    def test_an_earlier_state_comes_back_as_a_new_version(
        self, client: httpx.Client, persona: dict[str, Any]
    ) -> None:
        url = f"{PERSONAS}/{persona['id']}"
        client.patch(url, json={"system_prompt": "Second.", "temperature": 0.5})
        kept = client.get(f"{url}/versions").json()["results"]
        assert [(v["version"], v["values"]["system_prompt"]) for v in kept] == [(2, "Second."), (1, "First.")]
        restored = client.post(f"{url}/versions/1/restore").json()
        assert (restored["version"], restored["system_prompt"], restored["temperature"]) == (
            3,
            "First.",
            None,
        )
        assert client.post(f"{url}/versions/9/restore").status_code == 404

    def test_a_copy_is_like_the_original_but_for_its_name(
        self, client: httpx.Client, persona: dict[str, Any]
    ) -> None:
        url = f"{PERSONAS}/{persona['id']}"
        copy = client.post(f"{url}/duplicate").json()
        assert copy["name"] == "Assigned one (copy)"
        assert copy["slug"] != client.get(url).json()["slug"]
        assert (copy["system_prompt"], copy["version"], copy["is_default"]) == ("First.", 1, False)


def test_a_preview_stores_nothing(client: httpx.Client, persona: dict[str, Any]) -> None:
    before = client.get("/api/v1/chat/sessions").json()["count"]
    shown = client.post(f"{PERSONAS}/{persona['id']}/preview", json={"content": "What is EBITDA?"})
    assert shown.json()["content"]
    assert client.get("/api/v1/chat/sessions").json()["count"] == before
