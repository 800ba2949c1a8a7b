"""Personas over HTTP."""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from models.personas import PersonaAssignment, PersonaVersion
from models.tenancy import Organization, User
from tests.conftest import MakesClient
from tests.servers import Server, Tenant

PERSONAS = "/api/v1/chat/personas"
FIELDS = {
    "description": "Reads annual reports.",
    "system_prompt": "Be brief.",
    "llm_provider": "extractive",
    "default_chat_model": "any-model",
    "temperature": 0.5,
    "max_output_tokens": 300,
    "default_max_documents": 4,
    "default_score_threshold": 0.25,
    "question_rewriting": "provider",
    "allow_web_search": True,
    "allow_file_uploads": False,
    "allow_knowledge_search": False,
    "is_active": False,
}


@pytest.fixture
def make(client: httpx.Client, server: Server) -> Iterator[Callable[..., dict[str, Any]]]:
    """Makes personas of tenant A, and removes them."""
    made: list[str] = []

    def persona(name: str = "Analyst", **fields: Any) -> dict[str, Any]:
        response = client.post(PERSONAS, json={"name": name, "stack_id": server.tenant["stack_id"], **fields})
        assert response.status_code == 201, response.text
        made.append(response.json()["id"])
        body: dict[str, Any] = response.json()
        return body

    yield persona
    for id in made:
        client.delete(f"{PERSONAS}/{id}")


Make = Callable[..., dict[str, Any]]


class TestCreate:
    def test_what_is_left_out_takes_its_default(self, client: httpx.Client, server: Server) -> None:
        response = client.post(PERSONAS, json={"name": "Plain", "stack_id": server.tenant["stack_id"]})
        made = response.json()
        assert response.headers["location"] == f"{PERSONAS}/{made['id']}"
        assert made == client.get(response.headers["location"]).json()
        assert (made["slug"], made["version"], made["is_default"], made["is_active"]) == (
            "plain",
            1,
            False,
            True,
        )
        assert (made["allow_web_search"], made["allow_file_uploads"], made["allow_knowledge_search"]) == (
            False,
            True,
            True,
        )
        assert made["llm_provider"] is made["temperature"] is made["organization"] is None
        client.delete(response.headers["location"])

    def test_what_came_is_kept(self, make: Make) -> None:
        made = make(**FIELDS)
        assert {name: made[name] for name in FIELDS} == FIELDS

    @pytest.mark.parametrize(
        ("name", "slug"),
        [
            ("Zürich & Sons, Ltd.", "zurich-sons-ltd"),
            ("日本", "persona"),
            ("x" * 200, "x" * 80),
            ("y" * 79 + " and more", "y" * 79),
        ],
    )
    def test_a_slug_is_made_of_the_name(self, make: Make, name: str, slug: str) -> None:
        assert make(name)["slug"] == slug

    @pytest.mark.parametrize("name", ["Same name", "z" * 200])
    def test_a_made_slug_is_numbered_when_taken(self, make: Make, name: str) -> None:
        slugs = [make(name)["slug"] for _ in range(12)]
        assert len(set(slugs)) == 12
        assert all(slug[0] == slugs[0][0] for slug in slugs)

    def test_a_wanted_slug_that_is_taken_is_a_conflict(self, client: httpx.Client, make: Make) -> None:
        first = make(slug="taken")
        response = client.post(PERSONAS, json={"name": "B", "stack_id": first["stack_id"], "slug": "taken"})
        assert response.status_code == 409
        assert response.json()["errors"][0]["pointer"] == "/slug"

    def test_another_tenant_may_have_the_same_slug(
        self, make: Make, other: httpx.Client, other_tenant: Tenant
    ) -> None:
        make(slug="shared-word")
        body = {"name": "B", "stack_id": other_tenant["stack_id"], "slug": "shared-word"}
        response = other.post(PERSONAS, json=body)
        assert response.status_code == 201
        other.delete(response.headers["location"])

    @pytest.mark.parametrize(
        ("field", "pointer"),
        [
            ("stack_id", "/stack_id"),
            ("organization_id", "/organization_id"),
            ("accessible_index_ids", "/accessible_index_ids/0"),
            ("accessible_category_ids", "/accessible_category_ids/0"),
        ],
    )
    def test_what_it_refers_to_has_to_be_there(
        self, client: httpx.Client, server: Server, field: str, pointer: str
    ) -> None:
        unknown: Any = [str(uuid.uuid4())] if field.endswith("ids") else str(uuid.uuid4())
        body = {"name": "A", "stack_id": server.tenant["stack_id"], field: unknown}
        response = client.post(PERSONAS, json=body)
        assert response.status_code == 404
        assert [fault["pointer"] for fault in response.json()["errors"]] == [pointer]
        assert client.get(PERSONAS, params={"search": "A"}).json()["results"] == [
            row
            for row in client.get(PERSONAS, params={"search": "A"}).json()["results"]
            if row["name"] != "A"
        ]

    def test_all_faults_are_told_at_once(self, client: httpx.Client) -> None:
        body = {"name": " ", "stack_id": "none", "temperature": 3, "mood": "good", "slug": "No!"}
        faults = client.post(PERSONAS, json=body).json()["errors"]
        assert {fault["pointer"] for fault in faults} == {"", "/name", "/stack_id", "/temperature", "/slug"}
        assert "mood" in next(fault["detail"] for fault in faults if fault["pointer"] == "")

    def test_at_the_same_time_none_fails(self, server: Server, connect: MakesClient) -> None:
        clients = [connect(server.api_key) for _ in range(8)]
        body = {"name": "At once", "stack_id": server.tenant["stack_id"], "is_default": True}
        before = clients[0].get(PERSONAS, params={"search": "Assistant"}).json()["results"][0]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda client: client.post(PERSONAS, json=body), clients))
        assert [answer.status_code for answer in answers] == [201] * 8
        assert len({answer.json()["slug"] for answer in answers}) == 8
        listed = clients[0].get(PERSONAS, params={"page_size": 100}).json()["results"]
        assert sum(persona["is_default"] for persona in listed) == 1
        for answer in answers:
            clients[0].delete(answer.headers["location"])
        clients[0].patch(f"{PERSONAS}/{before['id']}", json={"is_default": True})


class TestChange:
    def test_replacing_resets_what_is_left_out(self, client: httpx.Client, make: Make) -> None:
        made = make(**FIELDS)
        body = {"name": "Replaced", "stack_id": made["stack_id"]}
        replaced = client.put(f"{PERSONAS}/{made['id']}", json=body).json()
        assert (replaced["name"], replaced["description"], replaced["temperature"]) == ("Replaced", "", None)
        assert (replaced["version"], replaced["slug"]) == (2, made["slug"])

    def test_it_stays_in_its_stack(self, client: httpx.Client, make: Make) -> None:
        body = {"name": "A", "stack_id": str(uuid.uuid4())}
        response = client.put(f"{PERSONAS}/{make()['id']}", json=body)
        assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "/stack_id")

    def test_changing_keeps_what_is_left_out(self, client: httpx.Client, make: Make) -> None:
        made = make(**FIELDS)
        changed = client.patch(f"{PERSONAS}/{made['id']}", json={"temperature": None, "name": "New"}).json()
        kept = {name: value for name, value in FIELDS.items() if name != "temperature"}
        assert {name: changed[name] for name in kept} == kept
        assert (changed["temperature"], changed["name"], changed["version"]) == (None, "New", 2)

    def test_nothing_to_change_is_refused(self, client: httpx.Client, make: Make) -> None:
        assert client.patch(f"{PERSONAS}/{make()['id']}", json={}).status_code == 400

    def test_its_own_slug_is_not_taken(self, client: httpx.Client, make: Make) -> None:
        made = make(slug="mine")
        assert client.patch(f"{PERSONAS}/{made['id']}", json={"slug": "mine"}).status_code == 200
        make(slug="theirs")
        assert client.patch(f"{PERSONAS}/{made['id']}", json={"slug": "theirs"}).status_code == 409

    def test_a_new_default_takes_it_from_the_old(self, client: httpx.Client, make: Make) -> None:
        (old,) = [
            p for p in client.get(PERSONAS, params={"page_size": 100}).json()["results"] if p["is_default"]
        ]
        new = make("New default", is_default=True)
        assert not client.get(f"{PERSONAS}/{old['id']}").json()["is_default"]
        assert client.patch(f"{PERSONAS}/{old['id']}", json={"is_default": True}).json()["is_default"]
        assert not client.get(f"{PERSONAS}/{new['id']}").json()["is_default"]

    def test_each_change_is_a_version_that_stays(
        self, client: httpx.Client, make: Make, server: Server
    ) -> None:
        made = make(system_prompt="first")
        client.patch(f"{PERSONAS}/{made['id']}", json={"system_prompt": "second"})
        with server.database() as db:
            rows = db.query(PersonaVersion).filter_by(persona_id=made["id"]).order_by(PersonaVersion.version)
            kept = [(row.version, row.values["system_prompt"], row.author_id) for row in rows]
        owner = server.tenant["user_id"]
        assert kept == [(1, "first", owner), (2, "second", owner)]

    def test_of_two_writers_only_the_first_is_right(
        self, make: Make, server: Server, connect: MakesClient
    ) -> None:
        made = make("Contended")
        url = f"{PERSONAS}/{made['id']}"
        clients = [connect(server.api_key) for _ in range(6)]
        etag = clients[0].get(url).headers["etag"]

        def write(client: httpx.Client) -> int:
            return client.patch(url, json={"name": "Mine"}, headers={"If-Match": etag}).status_code

        with ThreadPoolExecutor(6) as pool:
            statuses = sorted(pool.map(write, clients))
        assert statuses == [200] + [412] * 5
        assert clients[0].get(url).json()["version"] == 2

    def test_an_organization_labels_it(self, client: httpx.Client, make: Make, server: Server) -> None:
        with server.database() as db:
            organization = Organization(tenant_id=server.tenant["tenant_id"], name="Treasury")
            db.add(organization)
            db.flush()
            id = organization.id
        made = make(organization_id=id)
        assert made["organization"] == {"id": id, "name": "Treasury"}
        assert made["organization_name"] == "Treasury"
        found = client.get(PERSONAS, params={"organization": id}).json()["results"]
        assert [persona["id"] for persona in found] == [made["id"]]


class TestDelete:
    def test_it_is_gone(self, client: httpx.Client, make: Make) -> None:
        url = f"{PERSONAS}/{make()['id']}"
        assert client.delete(url).status_code == 204
        assert [client.get(url).status_code, client.delete(url).status_code] == [404, 404]


class TestList:
    def test_pages_hold_each_once(self, client: httpx.Client, make: Make) -> None:
        ids = {make("Paged")["id"] for _ in range(5)}
        seen: list[str] = []
        params: Any = {"search": "paged", "page_size": 2, "ordering": "-created_at"}
        page = client.get(PERSONAS, params=params).json()
        assert (page["count"], page["previous"]) == (5, None)
        while True:
            seen += [persona["id"] for persona in page["results"]]
            if page["next"] is None:
                break
            page = client.get(page["next"]).json()
        assert (len(seen), set(seen)) == (5, ids)
        assert seen == sorted(seen, reverse=True)  # ids are made in the order of time
        assert client.get(page["previous"]).json()["results"][0]["id"] == seen[2]

    def test_behind_the_last_page_is_nothing(self, client: httpx.Client) -> None:
        page = client.get(PERSONAS, params={"page": 1000}).json()
        assert page["results"] == []
        assert client.get(page["previous"]).json()["results"]

    @pytest.mark.parametrize(
        ("text", "found"), [("100%", 1), ("under_score", 1), ("100_", 0), ("back\\slash", 1)]
    )
    def test_searched_words_are_no_patterns(
        self, client: httpx.Client, make: Make, text: str, found: int
    ) -> None:
        for name in ("100% sure", "under_score", "underXscore", "back\\slash"):
            make(name)
        assert client.get(PERSONAS, params={"search": text}).json()["count"] == found

    def test_links_stay_on_the_public_address(self, client: httpx.Client, make: Make, server: Server) -> None:
        make("Linked")
        answer = client.get(PERSONAS, params={"page_size": 1}, headers={"Host": "elsewhere.example"}).json()
        assert answer["next"].startswith(server.url + PERSONAS)

    def test_csv_is_the_whole_and_harmless(self, client: httpx.Client, make: Make) -> None:
        make('=HYPERLINK("x")', description="two\r\nlines, and a comma", slug="formula")
        for response in (
            client.get(f"{PERSONAS}.csv", params={"page_size": 1}),
            client.get(PERSONAS, params={"page_size": 1}, headers={"Accept": "text/csv"}),
        ):
            assert response.headers["content-type"] == "text/csv; charset=utf-8"
            rows = list(csv.DictReader(io.StringIO(response.text, newline="")))
            assert len(rows) == client.get(PERSONAS).json()["count"]
            (row,) = [row for row in rows if row["slug"] == "formula"]
            assert row["name"] == '\'=HYPERLINK("x")'
            assert row["description"] == "two\r\nlines, and a comma"


class TestWhoSeesWhat:
    def test_a_member_sees_the_default_one_and_its_own(
        self, make: Make, server: Server, connect: MakesClient
    ) -> None:
        assigned, hidden = make("Assigned"), make("Hidden")
        member = connect(server.issue_key(role="member"))
        with server.database() as db:
            user = db.query(User).filter_by(role="member").order_by(User.created_at.desc()).first()
            assert user is not None
            db.add(PersonaAssignment(tenant_id=user.tenant_id, persona_id=assigned["id"], user_id=user.id))
        seen = member.get(PERSONAS).json()["results"]
        assert [persona["name"] for persona in seen if not persona["is_default"]] == ["Assigned"]
        assert any(persona["is_default"] for persona in seen)
        assert member.get(f"{PERSONAS}/{assigned['id']}").status_code == 200
        assert member.get(f"{PERSONAS}/{hidden['id']}").status_code == 404
