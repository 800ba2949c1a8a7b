"""The audit log over HTTP: every act leaves a row, in its own transaction; nothing personal stands in it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from models.access import ApiKey, digest
from models.audit import NOT_AUDITED, OBJECTS, AuditEntry
from models.base import Base
from models.chat.conversations import ChatSession
from models.tenancy import User
from tests.servers import Server

LOG = "/api/v1/tenants/audit-log"
CHAT = "/api/v1/chat"
Entry = dict[str, Any]


def entries(client: httpx.Client, **filters: str | int) -> list[Entry]:
    response = client.get(LOG, params=filters)
    assert response.status_code == 200, response.text
    found: list[Entry] = response.json()["results"]
    return found


@pytest.fixture
def persona(client: httpx.Client, server: Server) -> dict[str, Any]:
    body = {"name": "Zebedee's own", "stack_id": server.tenant["stack_id"]}
    made: dict[str, Any] = client.post(f"{CHAT}/personas", json=body).json()
    return made


def test_each_change_is_one_row_with_who_what_and_from_where(
    client: httpx.Client, server: Server, persona: dict[str, Any]
) -> None:
    at = f"{CHAT}/personas/{persona['id']}"
    change = {"is_active": False, "name": "Quillon Personal", "system_prompt": "Zanzibar prompt"}
    assert client.patch(at, json=change, headers={"X-Request-ID": "audit-test-1"}).status_code == 200
    assert client.delete(at).status_code == 204
    told = entries(client, object_id=persona["id"], ordering="created_at")
    assert [entry["action"] for entry in told] == ["create", "update", "delete"]
    changed = told[1]
    with server.database() as db:
        key_id = db.scalar(select(ApiKey.id).where(ApiKey.key_hash == digest(server.api_key)))
    assert (changed["actor"], changed["actor_id"], changed["key_id"]) == (
        "key",
        server.tenant["user_id"],
        key_id,
    )
    assert changed["object_type"] == "persona"
    assert changed["operation"] == "personas.update"
    assert changed["fields"] == ["is_active", "name", "slug", "system_prompt"] or changed["fields"] == [
        "is_active",
        "name",
        "system_prompt",
    ]
    assert changed["values"] == {"is_active": {"from": True, "to": False}}
    assert changed["address"] == "127.0.0.1"
    assert changed["request_id"] == "audit-test-1"
    shown = str(told)
    assert not any(word in shown for word in ("Zebedee", "Quillon", "Zanzibar"))


def test_what_fails_leaves_no_row(client: httpx.Client) -> None:
    before = client.get(LOG, params={"page_size": 1}).json()["count"]
    name = {"name": "Once and no more"}
    assert client.post(f"{CHAT}/knowledge/indices", json=name).status_code == 201
    assert client.post(f"{CHAT}/knowledge/indices", json=name).status_code == 409
    assert client.get(LOG, params={"page_size": 1}).json()["count"] == before + 1


def test_secrets_are_named_and_never_shown(client: httpx.Client) -> None:
    body = {
        "name": "Audited provider",
        "kind": "openai",
        "base_url": "https://api.example.com/v1",
        "api_key": "sk-never-to-be-seen",
        "models": [{"name": "m"}],
    }
    made = client.post(f"{CHAT}/llm-providers", json=body).json()
    (entry,) = entries(client, object_id=made["id"])
    assert "api_key" in entry["fields"]
    assert "never-to-be-seen" not in str(entry)
    assert "api_key" not in entry["values"]
    assert client.delete(f"{CHAT}/llm-providers/{made['id']}").status_code == 204


def test_refused_administrative_acts_are_kept(
    client: httpx.Client, client_with: Callable[..., httpx.Client], persona: dict[str, Any]
) -> None:
    viewer = client_with(role="viewer")
    assert viewer.patch(f"{CHAT}/personas/{persona['id']}", json={"name": "Mine"}).status_code == 403
    assert viewer.get(LOG).status_code == 403
    told = entries(client, action="refused", page_size=2)
    assert [(entry["operation"], entry["object_type"]) for entry in told] == [
        ("audit.list", "audit"),
        ("personas.update", "personas"),
    ]
    assert told[1]["object_id"] == persona["id"]
    assert told[1]["actor"] == "key"


def test_talking_leaves_no_rows_but_deleting_and_reading_anothers_do(
    client: httpx.Client, client_with: Callable[..., httpx.Client], server: Server
) -> None:
    member = client_with(role="member")
    before = client.get(LOG, params={"page_size": 1}).json()["count"]
    session = member.post(f"{CHAT}/sessions", json={"stack_id": server.tenant["stack_id"]}).json()
    at = f"{CHAT}/sessions/{session['id']}"
    assert member.post(f"{at}/messages", json={"content": "What was revenue?"}).status_code == 201
    assert member.get(f"{at}/history").status_code == 200
    assert client.get(LOG, params={"page_size": 1}).json()["count"] == before
    assert client.get(at).status_code == 200
    assert client.get(f"{at}/messages").status_code == 200
    assert client.delete(at).status_code == 204
    told = entries(client, object_id=session["id"], ordering="created_at")
    assert {(entry["action"], entry["operation"]) for entry in told} == {
        ("read", "sessions.get"),
        ("read", "messages.list"),
        ("read", "sessions.delete"),
        ("delete", "sessions.delete"),
    }
    assert {entry["object_type"] for entry in told} == {"session"}
    with server.database() as db:
        assert db.get(ChatSession, session["id"]) is None


def test_a_cursor_is_stable_while_rows_are_added(client: httpx.Client) -> None:
    first = client.get(LOG, params={"page_size": 3}).json()
    seen = [entry["id"] for entry in first["results"]]
    assert client.post(f"{CHAT}/knowledge/categories", json={"name": "Added meanwhile"}).status_code == 201
    second = client.get(LOG, params={"page_size": 3, "cursor": first["next_cursor"]}).json()
    assert not set(seen) & {entry["id"] for entry in second["results"]}
    assert [*seen, *(entry["id"] for entry in second["results"])] == sorted(
        [*seen, *(entry["id"] for entry in second["results"])], reverse=True
    )


def test_filters_and_csv(client: httpx.Client, persona: dict[str, Any]) -> None:
    (made,) = entries(client, object_id=persona["id"], object_type="persona", action="create", actor="key")
    assert entries(client, object_id=persona["id"], **{"from": made["created_at"]})
    assert not entries(client, object_id=persona["id"], to=made["created_at"])
    assert not entries(client, object_id=persona["id"], actor="system")
    response = client.get(f"{LOG}.csv", params={"object_id": persona["id"]})
    (row,) = csv.DictReader(io.StringIO(response.text))
    assert row["id"] == made["id"]
    assert row["action"] == "create"


def test_another_tenant_sees_nothing_of_it(
    other: httpx.Client, server: Server, persona: dict[str, Any]
) -> None:
    assert not entries(other, object_id=persona["id"])
    with server.database() as db:
        ours = set(db.scalars(select(User.id).where(User.tenant_id == server.tenant["tenant_id"])))
    assert server.tenant["user_id"] in ours
    assert not ours & {entry["actor_id"] for entry in entries(other, page_size=100)}


def test_the_log_tells_of_the_tenants_own_beginning(client: httpx.Client, server: Server) -> None:
    told = entries(client, actor="system", page_size=100, ordering="created_at")
    kinds = [entry["object_type"] for entry in told]
    assert kinds[0] == "tenant"
    assert {"subscription", "stack", "user", "seat", "api_key"} <= set(kinds)
    assert "@" not in str(told)


def test_every_table_is_audited_or_has_a_reason_not_to_be(server: Server) -> None:
    tables = set(Base.metadata.tables)
    undecided = tables - OBJECTS.keys() - NOT_AUDITED
    assert not undecided, f"models/audit.py: say of {sorted(undecided)} whether their changes are acts"
    assert not OBJECTS.keys() & NOT_AUDITED
    assert AuditEntry.__tablename__ in NOT_AUDITED
