"""Knowledge indices over HTTP."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from models.personas import PersonaAssignment
from models.tenancy import User
from tests.handlers import knowledge
from tests.handlers.knowledge import BASE, UNKNOWN, make
from tests.servers import Server

KINDS = pytest.mark.parametrize("kind", ["indices", "categories"])


@KINDS
class TestEither:
    """Indices and categories are made, found and changed alike."""

    def test_made_read_and_listed(self, client: httpx.Client, kind: str) -> None:
        answer = client.post(
            f"{BASE}/{kind}", json={"name": f"Filings of {kind}", "description": "Since 2019."}
        )
        assert answer.status_code == 201
        made = answer.json()
        assert made["name"] == f"Filings of {kind}"
        assert made["description"] == "Since 2019."
        assert made["document_count"] == 0
        item = f"{BASE}/{kind}/{made['id']}"
        assert answer.headers["location"] == item
        read = client.get(item)
        assert read.json() == made
        assert read.headers["etag"] == answer.headers["etag"]
        assert client.get(item, headers={"If-None-Match": read.headers["etag"]}).status_code == 304
        found = client.get(f"{BASE}/{kind}", params={"search": f"filings of {kind}"}).json()
        assert [entry["id"] for entry in found["results"]] == [made["id"]]

    def test_description_is_empty_unless_given(self, client: httpx.Client, kind: str) -> None:
        assert make(client, kind)["description"] == ""

    def test_sorted_and_paged(self, client: httpx.Client, kind: str) -> None:
        for letter in "bca":
            make(client, kind, name=f"Sorted {kind} {letter}")
        query = {"search": f"Sorted {kind}", "ordering": "-name", "page_size": "2"}
        first = client.get(f"{BASE}/{kind}", params=query).json()
        assert [entry["name"][-1] for entry in first["results"]] == ["c", "b"]
        assert first["count"] == 3
        second = client.get(first["next"]).json()
        assert [entry["name"][-1] for entry in second["results"]] == ["a"]
        assert second["next"] is None

    def test_as_csv(self, client: httpx.Client, kind: str) -> None:
        make(client, kind, name=f"=1+{kind}")
        answer = client.get(f"{BASE}/{kind}.csv", params={"search": f"1+{kind}"})
        assert answer.headers["content-type"].startswith("text/csv")
        head, row = answer.text.splitlines()
        assert head == "id,name,description,document_count,created_at,updated_at"
        assert f",'=1+{kind},,0," in row

    def test_changed(self, client: httpx.Client, kind: str) -> None:
        made = make(client, kind, description="Old.")
        changed = client.patch(f"{BASE}/{kind}/{made['id']}", json={"description": "New."})
        assert changed.status_code == 200
        assert changed.json()["description"] == "New."
        assert changed.json()["name"] == made["name"]
        assert changed.json()["updated_at"] > made["updated_at"]

    def test_a_stale_change_is_refused(self, client: httpx.Client, kind: str) -> None:
        made = make(client, kind)
        item = f"{BASE}/{kind}/{made['id']}"
        etag = client.get(item).headers["etag"]
        assert client.patch(item, json={"description": "1"}, headers={"If-Match": etag}).status_code == 200
        assert client.patch(item, json={"description": "2"}, headers={"If-Match": etag}).status_code == 412
        assert client.delete(item, headers={"If-Match": etag}).status_code == 412
        assert client.get(item).json()["description"] == "1"

    def test_a_name_is_taken_once(self, client: httpx.Client, other: httpx.Client, kind: str) -> None:
        first, second = make(client, kind), make(client, kind)
        for answer in (
            client.post(f"{BASE}/{kind}", json={"name": first["name"]}),
            client.patch(f"{BASE}/{kind}/{second['id']}", json={"name": first["name"]}),
        ):
            assert answer.status_code == 409
            assert answer.json()["error"] == "conflict"
            assert knowledge.pointers(answer) == ["/name"]
        assert client.get(f"{BASE}/{kind}/{second['id']}").json()["name"] == second["name"]
        assert other.post(f"{BASE}/{kind}", json={"name": first["name"]}).status_code == 201

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({}, ""),
            ({"name": " "}, "/name"),
            ({"name": "x" * 201}, "/name"),
            ({"name": "x", "tenant_id": "y"}, ""),
        ],
    )
    def test_what_the_contract_refuses(
        self, client: httpx.Client, kind: str, body: dict[str, str], pointer: str
    ) -> None:
        answer = client.post(f"{BASE}/{kind}", json=body)
        assert answer.status_code == 400
        assert knowledge.pointers(answer) == [pointer]

    def test_deleted(self, client: httpx.Client, kind: str) -> None:
        item = f"{BASE}/{kind}/{make(client, kind)['id']}"
        assert client.delete(item).status_code == 204
        assert client.get(item).status_code == 404
        assert client.delete(item).status_code == 404

    def test_nobody_else_s(self, client: httpx.Client, other: httpx.Client, kind: str) -> None:
        item = f"{BASE}/{kind}/{make(client, kind)['id']}"
        never = other.get(f"{BASE}/{kind}/{UNKNOWN}").json()
        for answer in (other.get(item), other.patch(item, json={"name": "x"}), other.delete(item)):
            assert answer.status_code == 404
            assert answer.json()["detail"] == never["detail"]
        assert client.get(item).status_code == 200

    @pytest.mark.parametrize("role", ["member", "viewer"])
    def test_who_does_not_administer_reads_what_its_personas_are_given(
        self,
        server: Server,
        client: httpx.Client,
        client_with: Callable[..., httpx.Client],
        kind: str,
        role: str,
    ) -> None:
        given, kept = make(client, kind), make(client, kind)
        persona = knowledge.persona(client, server, **{kind: [given["id"]]})
        person = client_with(role=role)
        assert person.get(f"{BASE}/{kind}/{given['id']}").status_code == 404
        assign(server, persona["id"])
        assert person.get(f"{BASE}/{kind}/{given['id']}").json() == given
        assert person.get(f"{BASE}/{kind}/{kept['id']}").status_code == 404
        listed = [
            entry["id"] for entry in person.get(f"{BASE}/{kind}", params={"page_size": 100}).json()["results"]
        ]
        assert given["id"] in listed
        assert kept["id"] not in listed
        assert person.post(f"{BASE}/{kind}", json={"name": "Mine"}).status_code == 403
        client.patch(f"/api/v1/chat/personas/{persona['id']}", json={"allow_knowledge_search": False})
        assert person.get(f"{BASE}/{kind}/{given['id']}").status_code == 404


def assign(server: Server, persona_id: str) -> None:
    """Let everybody of the first tenant chat with a persona."""
    tenant_id = server.tenant["tenant_id"]
    with server.database() as db:
        for user in db.query(User).filter(User.tenant_id == tenant_id):
            db.add(PersonaAssignment(tenant_id=tenant_id, persona_id=persona_id, user_id=user.id))


def test_an_index_goes_with_its_documents(client: httpx.Client) -> None:
    index = make(client, "indices")
    document = knowledge.ready(client, index["id"])
    item = f"{BASE}/indices/{index['id']}"
    assert client.get(item).json()["document_count"] == 1
    assert client.delete(item).status_code == 204
    assert client.get(f"{BASE}/documents/{document['id']}").status_code == 404
    assert client.get(f"{BASE}/documents/{document['id']}/content").status_code == 404
    found = client.post(f"{BASE}/search", json={"query": "lamp inventories", "score_threshold": 0}).json()
    assert document["id"] not in [hit["document_id"] for hit in found["results"]]


def test_a_list_counts_the_documents_of_each(client: httpx.Client) -> None:
    full, empty = make(client, "indices", name="Counted: full"), make(client, "indices", name="Counted: none")
    for _ in range(2):
        assert knowledge.upload(client, full["id"]).status_code == 201
    listed = client.get(f"{BASE}/indices", params={"search": "Counted:"}).json()["results"]
    assert {entry["id"]: entry["document_count"] for entry in listed} == {full["id"]: 2, empty["id"]: 0}
