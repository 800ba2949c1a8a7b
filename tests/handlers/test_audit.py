"""The audit log over HTTP: every act leaves a row, in its own transaction; nothing personal stands in it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from models.access import AREAS, ApiKey, digest
from models.audit import FILE, NOT_AUDITED, OBJECTS, AuditEntry
from models.base import new_id
from models.chat.conversations import ChatSession
from models.tenancy import User
from storage import database
from tests.contract.conformance import described
from tests.handlers import knowledge
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


def test_talking_is_told_without_its_words_and_so_is_reading_anothers(
    client: httpx.Client, client_with: Callable[..., httpx.Client], server: Server, since: str
) -> None:
    member = client_with(role="member")
    stack_id = server.tenant["stack_id"]
    session = member.post(f"{CHAT}/sessions", json={"stack_id": stack_id}).json()
    at = f"{CHAT}/sessions/{session['id']}"
    reply = member.post(f"{at}/messages", json={"content": "What was Zanzibar's revenue?"}).json()
    again = member.post(f"{at}/regenerate").json()
    rating = {"rating": "unhelpful", "comment": "Zanzibar is missing."}
    for _ in range(2):
        assert member.put(f"{at}/messages/{again['id']}/feedback", json=rating).status_code == 200
        assert member.get(f"{at}/history").status_code == 200
    assert member.delete(f"{at}/messages/{again['id']}/feedback").status_code == 204
    assert member.patch(at, json={"metadata": {"about": "Zanzibar"}, "model": "any"}).status_code == 200
    assert told_of(client, since) == [
        ("create", "session", session["id"]),
        ("create", "message", reply["parent_id"]),
        ("create", "message", again["id"]),
        ("update", "message", again["id"]),
        ("update", "message", again["id"]),
        ("update", "session", session["id"]),
    ], "the same feedback once more is no change"
    told = [entry for entry in entries(client, page_size=100) if entry["id"] > since][::-1]
    assert [entry["fields"] for entry in told] == [
        ["metadata", "persona_id", "stack_id", "user_id"],
        ["content", "session_id"],
        ["session_id"],
        ["comment", "rating"],
        ["comment", "rating"],
        ["metadata", "model"],
    ]
    assert told[1]["values"] == {"session_id": {"to": session["id"]}}
    assert "Zanzibar" not in str(told)

    assert client.get(at).status_code == 200
    assert client.get(f"{at}/messages").status_code == 200
    assert client.delete(at).status_code == 204
    last = [entry for entry in entries(client, object_id=session["id"]) if entry["id"] > told[-1]["id"]]
    assert {(entry["action"], entry["operation"]) for entry in last} == {
        ("read", "sessions.get"),
        ("read", "messages.list"),
        ("read", "sessions.delete"),
        ("delete", "sessions.delete"),
    }
    with server.database() as db:
        assert db.get(ChatSession, session["id"]) is None


def test_a_cursor_of_another_list_or_tenant_is_refused(
    client: httpx.Client, other: httpx.Client, server: Server
) -> None:
    def cursor(of: httpx.Client) -> str:
        for _ in range(2):
            of.post("/api/v1/tenants/organizations", json={"name": f"Cursor {new_id()}"})
        found: str = of.get(LOG, params={"page_size": 1}).json()["next_cursor"]
        return found

    ours, theirs = cursor(client), cursor(other)
    assert client.get(LOG, params={"cursor": ours}).status_code == 200
    moved = f"{int(ours[:16]) + 1:016d}{ours[16:]}"
    for foreign in (theirs, moved, "1" * 48):
        refused = client.get(LOG, params={"cursor": foreign})
        assert refused.status_code == 400
        assert [fault["parameter"] for fault in refused.json()["errors"]] == ["cursor"]


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
    tables = {table.name for table in database.tables()}
    undecided = tables - OBJECTS.keys() - NOT_AUDITED
    assert not undecided, f"models/audit.py: say of {sorted(undecided)} whether their changes are acts"
    assert not OBJECTS.keys() & NOT_AUDITED
    assert AuditEntry.__tablename__ in NOT_AUDITED


PLATFORMS = {"product", "region"}
"""What is of no tenant: no tenant's log tells of it."""


def test_the_contract_names_every_kind_of_object() -> None:
    said = described().spec["components"]["schemas"]["AuditObjectType"]["description"]
    named = set(re.findall(r"`([a-z_]+)`", said))
    assert named == {*OBJECTS.values(), FILE, "delivery", "icon", *AREAS} - PLATFORMS


def told_of(client: httpx.Client, since: str, **filters: str | int) -> list[tuple[str, str, str | None]]:
    """(action, object type, object id) of each entry behind that one, oldest first."""
    found = entries(client, page_size=100, **filters)
    newer = [entry for entry in found if entry["id"] > since]
    return [
        (e["action"], e["object_type"], e["object_id"]) for e in sorted(newer, key=lambda e: str(e["id"]))
    ]


@pytest.fixture
def since(client: httpx.Client) -> str:
    """The newest entry before the test's own acts."""
    id: str = entries(client, page_size=1)[0]["id"]
    return id


@pytest.fixture
def member(client_with: Callable[..., httpx.Client]) -> httpx.Client:
    return client_with(role="member")


def begun(client: httpx.Client, server: Server, **values: Any) -> str:
    body = {"stack_id": server.tenant["stack_id"], **values}
    id: str = client.post(f"{CHAT}/sessions", json=body).json()["id"]
    return id


class TestLinks:
    """What stands in tables of its own is told with what it belongs to."""

    def test_what_a_persona_is_given(self, client: httpx.Client, persona: dict[str, Any]) -> None:
        index, label = knowledge.make(client, "indices")["id"], knowledge.make(client, "categories")["id"]
        at = f"{CHAT}/personas/{persona['id']}"
        changes: list[dict[str, Any]] = [
            {"accessible_index_ids": [index], "accessible_category_ids": [label], "is_active": False},
            {"accessible_index_ids": [index]},
            {"accessible_index_ids": []},
        ]
        for body in changes:
            assert client.patch(at, json=body).status_code == 200
        given, taken = entries(client, object_id=persona["id"], action="update", ordering="created_at")
        assert given["fields"] == ["accessible_category_ids", "accessible_index_ids", "is_active"]
        assert given["values"]["accessible_index_ids"] == {"from": [], "to": [index]}
        assert taken["fields"] == ["accessible_index_ids"]
        assert taken["values"] == {"accessible_index_ids": {"from": [index], "to": []}}

    def test_a_documents_categories(self, client: httpx.Client) -> None:
        label = knowledge.make(client, "categories")["id"]
        document = knowledge.upload(client, knowledge.make(client, "indices")["id"]).json()["id"]
        at = f"{CHAT}/knowledge/documents/{document}"
        assert client.patch(at, json={"category_ids": [label]}).status_code == 200
        (told,) = entries(client, object_id=document, action="update")
        assert told["values"] == {"category_ids": {"from": [], "to": [label]}}

    def test_whom_a_persona_is_taken_from(
        self, client: httpx.Client, persona: dict[str, Any], member: httpx.Client, since: str
    ) -> None:
        who = {"user_ids": [member.get("/api/v1/auth/me").json()["id"]]}
        for verb in ("assign", "unassign", "unassign"):
            url = f"{CHAT}/personas/{persona['id']}/{verb}-users"
            assert client.post(url, json=who).status_code == 200
        told = told_of(client, since, object_type="persona_assignment")
        assert [(action, id) for action, _, id in told] == [
            ("create", persona["id"]),
            ("delete", persona["id"]),
        ]

    def test_which_persona_is_no_longer_the_default(self, client: httpx.Client, server: Server) -> None:
        stack = {"stack_id": server.tenant["stack_id"]}
        first = client.get(f"{CHAT}/personas", params={**stack, "page_size": 100}).json()["results"]
        (before,) = [row["id"] for row in first if row["is_default"]]
        body = {"name": "Takes the place", "is_default": True, **stack}
        second = client.post(f"{CHAT}/personas", json=body).json()["id"]
        assert client.patch(f"{CHAT}/personas/{before}", json={"is_default": True}).status_code == 200
        for id, states in ((before, [False, True]), (second, [False])):
            told = entries(client, object_id=id, action="update", ordering="created_at", page_size=100)
            changed = [e["values"]["is_default"]["to"] for e in told if "is_default" in e["fields"]]
            assert changed[-len(states) :] == states


class TestConversations:
    def test_in_bulk_each_has_a_row_of_its_own(
        self, client: httpx.Client, server: Server, since: str
    ) -> None:
        ids = [begun(client, server) for _ in range(2)]
        for action, dry_run in (
            ("archive", True),
            ("archive", False),
            ("archive", False),
            ("restore", False),
            ("export", False),
            ("delete", False),
        ):
            body = {"action": action, "ids": ids, "dry_run": dry_run}
            done = client.post(f"{CHAT}/sessions/bulk", json=body)
            assert done.json()["succeeded"] == 2, done.text
        told = told_of(client, since)
        acts = ("create", "update", "update", "delete")
        assert told == [(action, "session", id) for action in acts for id in ids], (
            "begun, archived once, restored once, deleted"
        )
        changes = entries(client, object_id=ids[0], action="update", ordering="created_at")
        assert [e["values"]["status"]["to"] for e in changes] == ["archived", "active"]

    def test_what_is_done_to_anothers(
        self, client: httpx.Client, member: httpx.Client, server: Server, since: str
    ) -> None:
        id = begun(member, server)
        assert client.patch(f"{CHAT}/sessions/{id}", json={"title": "Seen by the owner"}).status_code == 200
        body = {"action": "export", "ids": [id]}
        assert client.post(f"{CHAT}/sessions/bulk", json=body).json()["succeeded"] == 1
        assert told_of(client, since) == [
            ("create", "session", id),
            ("read", "session", id),
            ("update", "session", id),
            ("read", "session", id),
        ]
        (changed,) = entries(client, object_id=id, action="update")
        assert (changed["fields"], changed["values"]) == (["title"], {})

    def test_a_list_of_everybodys_is_a_look_into_them(
        self, client: httpx.Client, member: httpx.Client, since: str
    ) -> None:
        for who, params in ((client, {}), (member, {"show_all": True})):
            assert who.get(f"{CHAT}/sessions", params=params).status_code == 200
        assert told_of(client, since) == []
        for path in ("sessions", "sessions.csv"):
            assert client.get(f"{CHAT}/{path}", params={"show_all": True}).status_code == 200
        assert told_of(client, since) == [("read", "session", None)] * 2

    def test_a_file_of_anothers(
        self, client: httpx.Client, member: httpx.Client, server: Server, since: str
    ) -> None:
        id = begun(member, server)
        file = {"file": ("own.txt", b"A line of one's own.", "text/plain")}
        added = member.post(f"{CHAT}/files", data={"session_id": id}, files=file).json()["data"]
        for who in (member, client):
            assert who.get(f"{CHAT}/files/{added['id']}").status_code == 200
        assert member.delete(f"{CHAT}/files/{added['id']}").status_code == 200
        assert told_of(client, since) == [
            ("create", "session", id),
            ("create", "file", added["id"]),
            ("read", "session", id),
            ("delete", "file", added["id"]),
        ]
        (put,) = entries(client, object_id=added["id"], action="create")
        assert put["values"]["session_id"] == {"to": id}
        assert "own.txt" not in str(put)

    def test_with_a_bot_its_visitors_conversations_go_each_with_a_row(
        self, client: httpx.Client, anonymous: httpx.Client, persona: dict[str, Any], since: str
    ) -> None:
        page = {"Origin": "https://www.tarnwick.example"}
        body = {"name": "Short-lived", "persona_id": persona["id"], "allowed_origins": [page["Origin"]]}
        bot = client.post(f"{CHAT}/bots", json=body).json()
        at = f"/api/v1/embed/{bot['public_key']}/sessions"
        ids = [anonymous.post(at, headers=page).json()["session_id"] for _ in range(3)]
        listed = client.get(f"{CHAT}/bots/{bot['id']}/sessions")
        assert listed.json()["count"] == 3
        assert client.delete(f"{CHAT}/bots/{bot['id']}").status_code == 204
        told = told_of(client, since, object_type="session")
        assert told[:4] == [*(("create", "session", id) for id in ids), ("read", "session", None)]
        assert sorted(told[4:]) == [("delete", "session", id) for id in ids]


def test_what_somebody_was_given_ends_with_them_and_each_has_a_row(
    client: httpx.Client, member: httpx.Client, persona: dict[str, Any], since: str
) -> None:
    me = member.get("/api/v1/auth/me").json()["id"]
    url = f"{CHAT}/personas/{persona['id']}/assign-users"
    assert client.post(url, json={"user_ids": [me]}).status_code == 200
    assert client.delete(f"/api/v1/tenants/users/{me}").status_code == 204
    told = told_of(client, since, action="delete")
    kinds = sorted(kind for _, kind, _ in told)
    assert kinds == ["api_key", "persona_assignment", "region_assignment", "seat", "user"]
    assert told[-1] == ("delete", "user", me)


def test_a_subscriptions_end_tells_whose_seats_went_with_it(
    server: Server, operator_key: str, connect: Callable[..., httpx.Client]
) -> None:
    tenant, operator = server.bootstrap("Unsubscribed"), connect(operator_key)
    listed = operator.get("/api/v1/tenants/subscriptions", params={"tenant_id": tenant["tenant_id"]})
    (subscription,) = listed.json()["results"]
    assert operator.delete(f"/api/v1/tenants/subscriptions/{subscription['id']}").status_code == 204
    told = entries(connect(tenant["api_key"]), action="delete", actor="operator")
    assert {entry["object_type"] for entry in told} == {"seat", "subscription"}
    (seat,) = [entry for entry in told if entry["object_type"] == "seat"]
    assert seat["values"]["user_id"] == {"from": tenant["user_id"]}


def test_a_tenants_end_is_told_and_stays(
    server: Server, operator_key: str, connect: Callable[..., httpx.Client]
) -> None:
    tenant, operator = server.bootstrap("Soon gone"), connect(operator_key)
    at = f"/api/v1/tenants/{tenant['tenant_id']}"
    assert operator.patch(at, json={"is_active": False}).status_code == 200
    assert operator.delete(at).status_code == 204
    with server.database() as db:
        (entry,) = db.scalars(select(AuditEntry).where(AuditEntry.object_id == tenant["tenant_id"]))
        assert (entry.tenant_id, entry.action, entry.actor_kind) == (None, "delete", "operator")


REFUSED: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "a member who invites": ("POST", "/api/v1/tenants/users", {"email": "a@example.com", "role": "member"}),
    "a member who lists people": ("GET", "/api/v1/tenants/users", None),
    "a member who makes an index": ("POST", f"{CHAT}/knowledge/indices", {"name": "No"}),
    "a member who makes a webhook": (
        "POST",
        "/api/v1/webhooks",
        {"url": "https://a.example", "event_types": []},
    ),
    "a tenant's person who makes a tenant": ("POST", "/api/v1/tenants", {"name": "No"}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_scopes_refuse_has_a_row(
    case: str, client: httpx.Client, member: httpx.Client, since: str
) -> None:
    method, path, body = REFUSED[case]
    assert member.request(method, path, json=body).status_code == 403
    assert [action for action, _, _ in told_of(client, since)] == ["refused"]


def test_what_a_rule_refuses_an_administrator_has_a_row_and_changes_nothing(
    client: httpx.Client, client_with: Callable[..., httpx.Client], server: Server, since: str
) -> None:
    admin, owner = client_with(role="admin"), server.tenant["user_id"]
    at = f"/api/v1/tenants/users/{owner}"
    for answer in (
        admin.patch(at, json={"role": "member"}),
        admin.delete(at),
        admin.post(f"{at}/erase"),
        admin.post("/api/v1/tenants/users", json={"email": "b@example.com", "role": "owner"}),
    ):
        assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")
    assert told_of(client, since) == [
        *[("refused", "tenants", owner)] * 3,
        ("refused", "tenants", None),
    ]
